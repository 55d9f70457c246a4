# Generated from densityd/client/aio/resources.py by tools/sync_client.py; do not edit.
"""The resources of the API: datasets, jobs and models."""

import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, Unpack

from numpy.typing import ArrayLike

from densityd.client.call import Call
from densityd.client.calls import (
    datasets as dataset_calls,
    jobs as job_calls,
    models as model_calls,
)
from densityd.client.errors import TransportError
from densityd.client.options import (
    JobFilters,
    PictureFormat,
    PlotKind,
    SamplingOptions,
    ScoringOptions,
    TrainingOptions,
    UploadOptions,
    VariationalOptions,
)
from densityd.client.records import (
    Alias,
    Dataset,
    DatasetSummary,
    Event,
    EventPage,
    Job,
    JobSummary,
    Model,
    Page,
    Version,
    VersionSummary,
)
from densityd.client.sync.transport import Transport
from densityd.client.waiting import RECONNECT_S, Watch
from densityd.client.wire.events import EventDecoder
from densityd.client.wire.npy import Floats

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

_Item = TypeVar("_Item")


class Datasets:
    """Uploaded tables."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def upload(
        self,
        source: "str | Path | ArrayLike | pa.Table",
        *,
        name: str | None = None,
        **options: Unpack[UploadOptions],
    ) -> Dataset:
        """Upload a table.

        Args:
            source: Path of a file, the suffix of which is its format; an array; or an Arrow table.
            name: Label of the dataset; None for the file's name.
            **options: Options of the reader.

        Raises:
            ApiError: The service refuses the table.
            TransportError: There is no response.
            ValueError: The source is not a table.
            OSError: The file cannot be read.
        """
        return self._transport.send(dataset_calls.upload(source, name=name, options=options))

    def list(self) -> Iterator[DatasetSummary]:
        """Return an iterator over all datasets, newest first; pages are fetched as needed."""
        return _iter_pages(self._transport, lambda cursor: dataset_calls.page(cursor=cursor))

    def get(self, dataset_id: str) -> Dataset:
        """Return a dataset."""
        return self._transport.send(dataset_calls.get(dataset_id))

    def rows(self, dataset_id: str, *, offset: int = 0, limit: int = 100) -> Floats:
        """Return a range of the stored rows as an array."""
        call = dataset_calls.rows(dataset_id, offset=offset, limit=limit)
        return self._transport.send(call)

    def rows_table(self, dataset_id: str, *, offset: int = 0, limit: int = 100) -> "pa.Table":
        """Return a range of the stored rows as an Arrow table."""
        call = dataset_calls.rows_table(dataset_id, offset=offset, limit=limit)
        return self._transport.send(call)

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset that no unfinished job uses."""
        self._transport.send(dataset_calls.delete(dataset_id))


class Jobs:
    """Jobs that run in the background."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

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
            model_name: Name of the model that gets a new version.
            dataset_id: Id of the dataset to train on.
            idempotency_key: Key under which the same request gives the same job; None for a new
                key.
            **options: Options of the training; the returned job has all of them.

        Raises:
            ApiError: The service refuses the training.
            TransportError: There is no response.
        """
        call = job_calls.train(model_name, dataset_id, options, key=idempotency_key)
        return self._transport.send(call)

    def variational(
        self,
        model_name: str,
        target: Mapping[str, object],
        *,
        idempotency_key: str | None = None,
        **options: Unpack[VariationalOptions],
    ) -> Job:
        """Start the fit of a flow to a density that is known up to a constant.

        Args:
            model_name: Name of the model that gets a new version.
            target: `{"potential": "U1"}`, `{"log_density": "...", "dim": 2}` or
                `{"posterior": {...}}`.
            idempotency_key: Key as for `train`, which has the errors too.
            **options: Options of the fit.
        """
        call = job_calls.variational(model_name, target, options, key=idempotency_key)
        return self._transport.send(call)

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
            ref: Reference of the model.
            dataset_id: Id of the dataset to score; columns are matched by name.
            idempotency_key: Key as for `train`, which has the errors too.
            **options: Options of the job.
        """
        call = job_calls.score(ref, dataset_id, options, key=idempotency_key)
        return self._transport.send(call)

    def sample(
        self,
        ref: str,
        n: int,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Job:
        """Start the drawing of many rows into a file.

        Args:
            ref: Reference of the model.
            n: Number of rows.
            idempotency_key: Key as for `train`, which has the errors too.
            **options: Options of the job.
        """
        call = job_calls.sample(ref, n, options, key=idempotency_key)
        return self._transport.send(call)

    def download(
        self, job_id: str, target: Path | BinaryIO, *, media_type: str | None = None
    ) -> None:
        """Download the file of a scoring or sampling job; a path has all of it or is not written.

        Args:
            job_id: Id of the job.
            target: File to write.
            media_type: Format to convert the rows to; None for the file as it is.
        """
        self._transport.save(job_calls.result(job_id, media_type=media_type), target)

    def delete_result(self, job_id: str) -> None:
        """Delete the file of a scoring or sampling job; the job stays."""
        self._transport.send(job_calls.delete_result(job_id))

    def list(self, **filters: Unpack[JobFilters]) -> Iterator[JobSummary]:
        """Return an iterator over all jobs, newest first; pages are fetched as needed."""
        return _iter_pages(self._transport, lambda cursor: job_calls.page(filters, cursor=cursor))

    def get(self, job_id: str) -> Job:
        """Return a job in its current state."""
        return self._transport.send(job_calls.get(job_id))

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; a running one stops within seconds."""
        return self._transport.send(job_calls.cancel(job_id))

    def resume(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again; it continues from its last checkpoint."""
        return self._transport.send(job_calls.resume(job_id))

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
            job_id: Id of the job.
            on_progress: Called with the job each time it is fetched, such as a `ProgressBar`.
            timeout_s: Longest wait in seconds; None for no limit.
            check: Raise an error if the job failed or was cancelled.

        Raises:
            JobFailedError: The job did not succeed.
            WaitTimeoutError: The job takes longer; it continues.
            TransportError: The service has not responded for a minute.
        """
        watch = Watch(timeout_s=timeout_s, check=check)
        while True:
            try:
                job = self.get(job_id)
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
            job_id: Id of the job.
            after: Number of the last event that is already known.
        """
        while True:
            last = after
            with self._transport.stream(job_calls.follow(job_id, after=after)) as response:
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
        return self._transport.send(job_calls.event_page(job_id, after=after))


class Models:
    """Trained models: their versions, aliases and weights."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Model]:
        """Return an iterator over all models, newest first; pages are fetched as needed."""
        return _iter_pages(self._transport, lambda cursor: model_calls.page(cursor=cursor))

    def get(self, name: str) -> Model:
        """Return a model: its newest version and its aliases."""
        return self._transport.send(model_calls.get(name))

    def versions(self, name: str) -> Iterator[VersionSummary]:
        """Return an iterator over all versions of a model, newest first."""
        return _iter_pages(
            self._transport, lambda cursor: model_calls.version_page(name, cursor=cursor)
        )

    def version(self, name: str, number: int) -> Version:
        """Return a version of a model."""
        return self._transport.send(model_calls.version(name, number))

    def plot(
        self,
        name: str,
        version: int,
        kind: PlotKind,
        *,
        format: PictureFormat = "png",  # noqa: A002 - the word for it
    ) -> bytes:
        """Return a plot of a version as an image file: its training, or what it has learnt.

        Args:
            name: Name of the model.
            version: Number of the version.
            kind: Kind of plot.
            format: Format of the image file.

        Raises:
            ApiError: The version has no such plot, or the service refuses the request.
            TransportError: There is no response.
        """
        return self._transport.send(model_calls.plot(name, version, kind, format=format))

    def upload(self, name: str, path: Path) -> Version:
        """Import a file that `download` wrote, as the next version of a model.

        Args:
            name: Name of the model, which is created with its first version.
            path: File of the weights.

        Raises:
            ApiError: The file is not a usable model, or the service refuses the request.
            OSError: The file cannot be read.
        """
        return self._transport.send(model_calls.upload(name, path))

    def alias(self, name: str, alias: str) -> Alias:
        """Return an alias: its version, and the etag that makes a later move conditional."""
        return self._transport.send(model_calls.alias(name, alias))

    def set_alias(self, name: str, alias: str, version: int, *, etag: str | None = None) -> Alias:
        """Point an alias at a version.

        Args:
            name: Name of the model.
            alias: Label of the alias.
            version: Number of the version.
            etag: Etag that the alias must still have; None to move it in any case.
        """
        call = model_calls.set_alias(name, alias, version, etag=etag)
        return self._transport.send(call)

    def delete_alias(self, name: str, alias: str) -> None:
        """Delete an alias; the version stays."""
        self._transport.send(model_calls.delete_alias(name, alias))

    def download(self, name: str, version: int, target: Path | BinaryIO) -> None:
        """Download the weights of a version, a safetensors file; a path has all or is not written.

        Args:
            name: Name of the model.
            version: Number of the version.
            target: File to write.
        """
        self._transport.save(model_calls.checkpoint(name, version), target)


def _iter_pages(
    transport: Transport, page: Callable[[str | None], Call[Page[_Item]]]
) -> Iterator[_Item]:
    cursor = None
    while True:
        found = transport.send(page(cursor))
        yield from found.items
        cursor = found.next_cursor
        if cursor is None:
            return
