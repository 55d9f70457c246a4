"""What there is to manage: datasets, jobs and models."""

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
from densityd.client.wire.files import destination
from densityd.client.wire.npy import Floats

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

_Item = TypeVar("_Item")


class Datasets:
    """Tables: uploaded, looked at, read back, deleted."""

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
            source: path of a file, whose name tells its format; an array; or an Arrow table.
            name: a label; None: that of the file.
            **options: how it is read.

        Raises:
            ApiError: the table is refused, and why.
            TransportError: there is no answer. Once bytes were sent the upload is not tried again,
                because the service could store the table twice.
            ValueError: the source is no table.
            OSError: the file cannot be read.
        """
        return self._transport.send(dataset_calls.upload(source, name=name, options=options))

    def list(self) -> Iterator[DatasetSummary]:
        """Summaries of all datasets, newest first; pages are fetched as they are needed."""
        return _through(self._transport, lambda cursor: dataset_calls.page(cursor=cursor))

    def get(self, dataset_id: str) -> Dataset:
        """One dataset."""
        return self._transport.send(dataset_calls.get(dataset_id))

    def rows(self, dataset_id: str, *, offset: int = 0, limit: int = 100) -> Floats:
        """Some rows as they are stored."""
        return self._transport.send(dataset_calls.rows(dataset_id, offset=offset, limit=limit))

    def rows_table(self, dataset_id: str, *, offset: int = 0, limit: int = 100) -> "pa.Table":
        """Some rows as an Arrow table."""
        call = dataset_calls.rows_table(dataset_id, offset=offset, limit=limit)
        return self._transport.send(call)

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset that no unfinished job uses."""
        self._transport.send(dataset_calls.delete(dataset_id))


class Jobs:
    """Work that runs in the background: started, followed, cancelled, resumed."""

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
        """Start a training; what is left out is chosen from the data, and the job shows it.

        Args:
            model_name: the model that gets a new version.
            dataset_id: of the rows.
            idempotency_key: the same key with the same request gives the same job; None: a new key.
            **options: the choices.

        Raises:
            ApiError: the training is refused, and why.
            TransportError: there is no answer.
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
            model_name: the model that gets a new version.
            target: `{"potential": "U1"}`, `{"log_density": "...", "dim": 2}` or
                `{"posterior": {...}}`.
            idempotency_key: as for `train`, and so are the errors.
            **options: the choices.
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
            ref: the model.
            dataset_id: of the rows; columns are matched by name.
            idempotency_key: as for `train`, and so are the errors.
            **options: the choices.
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
            ref: the model.
            n: how many.
            idempotency_key: as for `train`, and so are the errors.
            **options: the choices.
        """
        call = job_calls.sample(ref, n, options, key=idempotency_key)
        return self._transport.send(call)

    def download(
        self, job_id: str, target: Path | BinaryIO, *, media_type: str | None = None
    ) -> None:
        """Write the file that a scoring or a sampling made; a path has all of it or none.

        Args:
            job_id: of the job.
            target: where to.
            media_type: another format for the same rows; None: the file as it is.
        """
        call = job_calls.result(job_id, media_type=media_type)
        with (
            self._transport.stream(call) as answer,
            destination(target) as file,
        ):
            for piece in answer.pieces:
                file.write(piece)

    def delete_result(self, job_id: str) -> None:
        """Delete the file that a scoring or a sampling made; the job stays."""
        self._transport.send(job_calls.delete_result(job_id))

    def list(self, **filters: Unpack[JobFilters]) -> Iterator[JobSummary]:
        """Summaries of all jobs, newest first; pages are fetched as they are needed."""
        return _through(self._transport, lambda cursor: job_calls.page(filters, cursor=cursor))

    def get(self, job_id: str) -> Job:
        """One job as it stands."""
        return self._transport.send(job_calls.get(job_id))

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; one that runs stops within seconds."""
        return self._transport.send(job_calls.cancel(job_id))

    def resume(self, job_id: str) -> Job:
        """Queue a job again that has failed or was cancelled; it goes on where it stopped."""
        return self._transport.send(job_calls.resume(job_id))

    def wait(
        self,
        job_id: str,
        *,
        on_progress: Callable[[Job], object] | None = None,
        timeout_s: float | None = None,
        check: bool = True,
    ) -> Job:
        """Wait until a job has ended; a service that restarts meanwhile is waited for too.

        Args:
            job_id: of the job.
            on_progress: told the job each time that it was looked at, such as `ProgressBar`.
            timeout_s: the longest wait; None: as long as it takes.
            check: whether a job that failed or was cancelled is an error.

        Raises:
            JobFailedError: it did not succeed.
            WaitTimeoutError: it takes too long; it goes on.
            TransportError: the service has not answered for a minute.
        """
        watch = Watch(timeout_s=timeout_s, check=check)
        while True:
            try:
                job = self.get(job_id)
            except TransportError as error:
                watch.missed(error)
            else:
                if on_progress is not None:
                    on_progress(job)
                if watch.heard(job):
                    return job
            time.sleep(watch.pause_s())

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """What happens to a job, as it happens, until it has ended; broken streams are resumed.

        Args:
            job_id: of the job.
            after: number of the last event that is known already.
        """
        while True:
            last = after
            with self._transport.stream(job_calls.follow(job_id, after=after)) as answer:
                if answer.status == HTTPStatus.NO_CONTENT:
                    return
                decoder = EventDecoder()
                try:
                    for piece in answer.pieces:
                        for event in decoder.feed(piece):
                            after = event.id
                            yield event
                except TransportError:
                    if after == last:
                        raise
            if after == last:
                time.sleep(RECONNECT_S)

    def event_page(self, job_id: str, *, after: int = 0) -> EventPage:
        """The events that there are by now, at most some hundreds."""
        return self._transport.send(job_calls.event_page(job_id, after=after))


class Models:
    """Trained flows: their versions, aliases and weights."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Model]:
        """All models, newest first; pages are fetched as they are needed."""
        return _through(self._transport, lambda cursor: model_calls.page(cursor=cursor))

    def get(self, name: str) -> Model:
        """One model: its newest version and its aliases."""
        return self._transport.send(model_calls.get(name))

    def versions(self, name: str) -> Iterator[VersionSummary]:
        """All versions of a model, newest first."""
        return _through(
            self._transport, lambda cursor: model_calls.version_page(name, cursor=cursor)
        )

    def version(self, name: str, number: int) -> Version:
        """One version."""
        return self._transport.send(model_calls.version(name, number))

    def plot(
        self,
        name: str,
        version: int,
        kind: PlotKind,
        *,
        format: PictureFormat = "png",  # noqa: A002 - the word for it
    ) -> bytes:
        """A picture of a version: how it learnt, or what, beside its data if they are there.

        Args:
            name: of the model.
            version: number of the version.
            kind: what it shows.
            format: of the file that comes back.

        Raises:
            ApiError: the version has no such picture, and why.
            TransportError: there is no answer.
        """
        return self._transport.send(model_calls.plot(name, version, kind, format=format))

    def upload(self, name: str, path: Path) -> Version:
        """Import a file that `download` wrote, as the next version of a model.

        Args:
            name: of the model; it is made with its first version.
            path: of the file.

        Raises:
            ApiError: it is no usable model, and why.
            OSError: it cannot be read.
        """
        return self._transport.send(model_calls.upload(name, path))

    def alias(self, name: str, alias: str) -> Alias:
        """Where an alias points, and the etag that makes a later move conditional."""
        return self._transport.send(model_calls.alias(name, alias))

    def set_alias(self, name: str, alias: str, version: int, *, etag: str | None = None) -> Alias:
        """Point an alias at a version.

        Args:
            name: of the model.
            alias: its label.
            version: number of the version.
            etag: of the alias: move it only if nobody else has since; None: whatever it was.
        """
        return self._transport.send(model_calls.set_alias(name, alias, version, etag=etag))

    def delete_alias(self, name: str, alias: str) -> None:
        """Delete an alias; the version stays."""
        self._transport.send(model_calls.delete_alias(name, alias))

    def download(self, name: str, version: int, target: Path | BinaryIO) -> None:
        """Write the weights of a version, a safetensors file; a path has all of it or none."""
        with (
            self._transport.stream(model_calls.checkpoint(name, version)) as answer,
            destination(target) as file,
        ):
            for piece in answer.pieces:
                file.write(piece)


def _through(
    transport: Transport, page: Callable[[str | None], Call[Page[_Item]]]
) -> Iterator[_Item]:
    cursor = None
    while True:
        found = transport.send(page(cursor))
        yield from found.items
        cursor = found.next_cursor
        if cursor is None:
            return
