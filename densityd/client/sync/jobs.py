# Generated from densityd/client/aio/jobs.py by tools/sync_client.py; do not edit.
"""Jobs of the service."""

import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Unpack

from densityd.client.call import (
    EVENTS,
    LONG_S,
    Call,
    Retry,
    build_change,
    build_deletion,
    build_path,
    encode_json,
    ignore,
    new_key,
)
from densityd.client.errors import TransportError
from densityd.client.filters import JobFilters, UnusualFilters, format_filters
from densityd.client.options import (
    DensityTarget,
    ImputationOptions,
    Labels,
    PotentialTarget,
    Range,
    SamplingOptions,
    ScoringOptions,
    SweepOptions,
    Target,
    TrainingOptions,
    VariationalOptions,
)
from densityd.client.record import Page
from densityd.client.records import (
    Event,
    EventPage,
    Job,
    JobSummary,
    TargetPreview,
    TrainingEstimate,
    Unusual,
)
from densityd.client.signatures import shows_options
from densityd.client.waiting import RECONNECT_S, EventDecoder, Watch
from densityd.client.wire.files import guess_media_type

if TYPE_CHECKING:  # httpx takes a while
    from densityd.client.sync.transport import Transport

_PATH = "/v1/jobs"


class Jobs:
    """Jobs that run in the background."""

    def __init__(self, transport: "Transport") -> None:
        self._transport = transport

    @shows_options(TrainingOptions)
    def train(
        self,
        model_name: str,
        dataset_id: str,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[TrainingOptions],
    ) -> Job:
        """Start a training; options that are left out are chosen from the data.

        Args:
            idempotency_key: Key under which the same request gives the same job; None for a new
                key.
            **options: Options of the training; the returned job has all of them.
        """
        body = {"model_name": model_name, "dataset_id": dataset_id, **options}
        return self._start("training", body, idempotency_key)

    @shows_options(TrainingOptions)
    def estimate(self, dataset_id: str, **options: Unpack[TrainingOptions]) -> TrainingEstimate:
        """Return how long a training would take, in seconds, and start none; options are those of `train`."""
        body = {"model_name": "model", "dataset_id": dataset_id, **options}
        path = f"{_PATH}/training/estimate"
        call = Call("POST", path, TrainingEstimate.of, body=encode_json(body))
        return self._transport.send(call)

    @shows_options(SweepOptions)
    def sweep(
        self,
        model_name: str,
        dataset_id: str,
        ranges: Mapping[str, Range],
        *,
        idempotency_key: str | None = None,
        **options: Unpack[SweepOptions],
    ) -> Job:
        """Start a sweep: train models at points of some ranges; the best becomes the new version.

        Args:
            ranges: Ranges by the path of their field, such as `{"flow.layers": {"low": 2, "high":
                8}}` or `{"flow.hidden": {"values": [[32], [64, 64]]}}`.
        """
        body = {"model_name": model_name, "dataset_id": dataset_id, "ranges": ranges, **options}
        return self._start("sweep", body, idempotency_key)

    @shows_options(VariationalOptions)
    def variational(
        self,
        model_name: str,
        target: Target,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[VariationalOptions],
    ) -> Job:
        """Start the fit of a flow to a density that is known up to a constant.

        Args:
            target: `{"potential": "U1"}`, `{"log_density": "...", "dim": 2}`,
                `{"posterior": {...}}` or `{"latent": {...}}`.
        """
        body = {"model_name": model_name, "target": target, **options}
        return self._start("variational", body, idempotency_key)

    @shows_options(ScoringOptions)
    def score(
        self,
        ref: str,
        dataset_id: str,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[ScoringOptions],
    ) -> Job:
        """Start the scoring of a whole dataset into a file.

        Args:
            dataset_id: Id of the dataset to score; columns are matched by name.
        """
        body = {"model": ref, "dataset_id": dataset_id, **options}
        return self._start("scoring", body, idempotency_key)

    @shows_options(ImputationOptions)
    def impute(
        self,
        ref: str,
        dataset_id: str,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[ImputationOptions],
    ) -> Job:
        """Start the filling of the gaps of a whole dataset into a file.

        Args:
            ref: Reference of the model.
            dataset_id: Id of the dataset; columns are matched by name.
            idempotency_key: Key as for `train`, which has the errors too.
            **options: Options of the job.
        """
        body = {"model": ref, "dataset_id": dataset_id, **options}
        return self._start("imputation", body, idempotency_key)

    @shows_options(SamplingOptions)
    def sample(
        self,
        ref: str,
        n: int,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Job:
        """Start the drawing of many rows into a file."""
        return self._start("sampling", {"model": ref, "n": n, **options}, idempotency_key)

    def download(self, job_id: str, to: Path | BinaryIO) -> None:
        """Download the file of a scoring, sampling or imputation job; a path has all of it or is not written.

        Args:
            to: File to write: the suffix of a path is the format, an open file gets it as it is.

        Raises:
            FileFormatError: The suffix is of no known format.
        """
        accept = guess_media_type(to) if isinstance(to, Path) else "*/*"
        path = build_path(_PATH, job_id, "result")
        self._transport.save(Call("GET", path, ignore, headers={"Accept": accept}), to)

    @shows_options(UnusualFilters)
    def rows(self, job_id: str, **filters: Unpack[UnusualFilters]) -> Unusual:
        """Return the least likely rows that a scoring job has found, as `models.unusual` does.

        Raises:
            ApiError: The job has found none (`unusual-unavailable`, `result-not-ready`).
        """
        path = build_path(_PATH, job_id, "rows")
        call = Call("GET", path, Unusual.of, params=format_filters(filters), read_timeout_s=LONG_S)
        return self._transport.send(call)

    def delete_result(self, job_id: str) -> None:
        """Delete the file of a scoring, sampling or imputation job; the job stays."""
        self._transport.send(build_deletion(_PATH, job_id, "result"))

    @shows_options(JobFilters)
    def list(self, **filters: Unpack[JobFilters]) -> Iterator[JobSummary]:
        """Return an iterator over jobs, newest first; pages are fetched as needed."""
        return self._transport.iter_items(_PATH, Page[JobSummary].of, format_filters(filters))

    def get(self, job_id: str, *, wait_s: int | None = None) -> Job:
        """Return a job in its current state.

        Args:
            wait_s: Seconds to wait for the end of the job first, at most 60.
        """
        return self._transport.send(_get(job_id, wait_s=wait_s))

    @shows_options(Labels)
    def update(self, job_id: str, *, etag: str | None = None, **labels: Unpack[Labels]) -> Job:
        """Describe and tag a job.

        Args:
            etag: Etag that the job must still have; None to change it in any case.
            **labels: New description and tags; what is left out stays.
        """
        path = build_path(_PATH, job_id)
        return self._transport.send(build_change(path, Job.of, labels, etag))

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; a running one stops within seconds."""
        return self._transport.send(Call("POST", build_path(_PATH, job_id, "cancel"), Job.of))

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended, with its events and its result."""
        self._transport.send(build_deletion(_PATH, job_id))

    def resume(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again; it continues from its last checkpoint."""
        path = build_path(_PATH, job_id, "resume")
        return self._transport.send(Call("POST", path, Job.of, retry=Retry.REFUSED))

    def wait(
        self,
        job_id: str,
        *,
        on_progress: Callable[[Job], object] | None = None,
        timeout_s: float | None = None,
        check: bool = True,
    ) -> Job:
        """Wait until a job has ended; a restart of the service meanwhile is tolerated.

        Args:
            on_progress: Called with the job each time it is fetched, such as a `ProgressBar`.
            timeout_s: Longest wait in seconds; None for no limit.
            check: Raise an error if the job failed or was cancelled.

        Raises:
            JobFailedError: The job did not succeed.
            WaitTimeoutError: The job takes longer; it continues.
            TransportError: The service has not responded for a minute, or until the end of the wait.
        """
        watch = Watch(timeout_s=timeout_s, check=check)
        while True:
            try:
                job = self._transport.send(_get(job_id, retry_s=watch.left_s()))
            except TransportError as error:
                watch.miss(error)
            else:
                if on_progress is not None:
                    on_progress(job)
                if watch.is_over(job):
                    return job
            time.sleep(watch.pause_s())

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """Yield the events of a job as they happen, until it has ended; reconnect as needed.

        Args:
            after: Number of the last event that is already known.
        """
        path = build_path(_PATH, job_id, "events")
        while True:
            last = after
            call = Call("GET", path, ignore, params={"after": after}, headers={"Accept": EVENTS})
            with self._transport.stream(call) as response:
                if response.status == HTTPStatus.NO_CONTENT:
                    return
                decoder = EventDecoder()
                try:
                    for chunk in response.chunks:
                        for event in decoder.feed(chunk):
                            after = event.id
                            yield event
                except TransportError:
                    if after == last:
                        raise
            if after == last:
                time.sleep(RECONNECT_S)

    def event_page(self, job_id: str, *, after: int = 0) -> EventPage:
        """Return the events so far, at most some hundreds."""
        path = build_path(_PATH, job_id, "events")
        params: dict[str, str | int | None] = {"format": "json", "after": after}
        return self._transport.send(Call("GET", path, EventPage.of, params=params))

    def preview_target(self, target: PotentialTarget | DensityTarget) -> TargetPreview:
        """Return the density of a target of two coordinates on a grid, without starting a job.

        Args:
            target: Potential or formula, as for `variational`.

        Raises:
            ApiError: The target is no formula, or cannot be drawn in the plane.
        """
        body = encode_json({"target": target})
        path = build_path(_PATH, "variational", "preview")
        return self._transport.send(Call("POST", path, TargetPreview.of, body=body))

    def _start(self, kind: str, body: Mapping[str, object], key: str | None) -> Job:
        call = Call(
            "POST",
            build_path(_PATH, kind),
            Job.of,
            # Every attempt has the same key, so that there is one job.
            headers={"Idempotency-Key": key or new_key()},
            body=encode_json(body),
        )
        return self._transport.send(call)


def _get(job_id: str, *, wait_s: int | None = None, retry_s: float | None = None) -> Call[Job]:
    return Call(
        "GET",
        build_path(_PATH, job_id),
        Job.of,
        params={"wait": wait_s},
        read_timeout_s=None if wait_s is None else LONG_S,
        retry_s=retry_s,
    )
