"""What there is to manage, from an event loop; `sync_resources` says what each method does."""

from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, Unpack

import anyio
from anyio import to_thread
from numpy.typing import ArrayLike

from densityd.client.aio.transport import AsyncTransport
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
from densityd.client.waiting import RECONNECT_S, Watch
from densityd.client.wire.events import EventDecoder
from densityd.client.wire.files import destination
from densityd.client.wire.npy import Floats

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

_Item = TypeVar("_Item")


class AsyncDatasets:
    """As `Datasets`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def upload(
        self,
        source: "str | Path | ArrayLike | pa.Table",
        *,
        name: str | None = None,
        **options: Unpack[UploadOptions],
    ) -> Dataset:
        """Upload a table."""
        return await self._transport.send(dataset_calls.upload(source, name=name, options=options))

    def list(self) -> AsyncIterator[DatasetSummary]:
        """Summaries of all datasets, newest first; pages are fetched as they are needed."""
        return _through(self._transport, lambda cursor: dataset_calls.page(cursor=cursor))

    async def get(self, dataset_id: str) -> Dataset:
        """One dataset."""
        return await self._transport.send(dataset_calls.get(dataset_id))

    async def rows(self, dataset_id: str, *, offset: int = 0, limit: int = 100) -> Floats:
        """Some rows as they are stored."""
        call = dataset_calls.rows(dataset_id, offset=offset, limit=limit)
        return await self._transport.send(call)

    async def rows_table(self, dataset_id: str, *, offset: int = 0, limit: int = 100) -> "pa.Table":
        """Some rows as an Arrow table."""
        call = dataset_calls.rows_table(dataset_id, offset=offset, limit=limit)
        return await self._transport.send(call)

    async def delete(self, dataset_id: str) -> None:
        """Delete a dataset that no unfinished job uses."""
        await self._transport.send(dataset_calls.delete(dataset_id))


class AsyncJobs:
    """As `Jobs`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def train(
        self,
        model_name: str,
        dataset_id: str,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[TrainingOptions],
    ) -> Job:
        """Start a training; what is left out is chosen from the data, and the job shows it."""
        call = job_calls.train(model_name, dataset_id, options, key=idempotency_key)
        return await self._transport.send(call)

    async def variational(
        self,
        model_name: str,
        target: Mapping[str, object],
        *,
        idempotency_key: str | None = None,
        **options: Unpack[VariationalOptions],
    ) -> Job:
        """Start the fit of a flow to a density that is known up to a constant."""
        call = job_calls.variational(model_name, target, options, key=idempotency_key)
        return await self._transport.send(call)

    async def score(
        self,
        ref: str,
        dataset_id: str,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[ScoringOptions],
    ) -> Job:
        """Start the scoring of a whole dataset into a file."""
        call = job_calls.score(ref, dataset_id, options, key=idempotency_key)
        return await self._transport.send(call)

    async def sample(
        self,
        ref: str,
        n: int,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Job:
        """Start the drawing of many rows into a file."""
        call = job_calls.sample(ref, n, options, key=idempotency_key)
        return await self._transport.send(call)

    async def download(
        self, job_id: str, target: Path | BinaryIO, *, media_type: str | None = None
    ) -> None:
        """Write the file that a scoring or a sampling made; a path has all of it or none."""
        call = job_calls.result(job_id, media_type=media_type)
        async with self._transport.stream(call) as answer:
            with destination(target) as file:
                async for piece in answer.pieces:
                    await to_thread.run_sync(file.write, piece)

    async def delete_result(self, job_id: str) -> None:
        """Delete the file that a scoring or a sampling made; the job stays."""
        await self._transport.send(job_calls.delete_result(job_id))

    def list(self, **filters: Unpack[JobFilters]) -> AsyncIterator[JobSummary]:
        """Summaries of all jobs, newest first; pages are fetched as they are needed."""
        return _through(self._transport, lambda cursor: job_calls.page(filters, cursor=cursor))

    async def get(self, job_id: str) -> Job:
        """One job as it stands."""
        return await self._transport.send(job_calls.get(job_id))

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job; one that runs stops within seconds."""
        return await self._transport.send(job_calls.cancel(job_id))

    async def resume(self, job_id: str) -> Job:
        """Queue a job again that has failed or was cancelled; it goes on where it stopped."""
        return await self._transport.send(job_calls.resume(job_id))

    async def wait(
        self,
        job_id: str,
        *,
        on_progress: Callable[[Job], object] | None = None,
        timeout_s: float | None = None,
        check: bool = True,
    ) -> Job:
        """Wait until a job has ended; a service that restarts meanwhile is waited for too."""
        watch = Watch(timeout_s=timeout_s, check=check)
        while True:
            try:
                job = await self.get(job_id)
            except TransportError as error:
                watch.missed(error)
            else:
                if on_progress is not None:
                    on_progress(job)
                if watch.heard(job):
                    return job
            await anyio.sleep(watch.pause_s())

    async def events(self, job_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """What happens to a job, as it happens, until it has ended; broken streams are resumed."""
        while True:
            last = after
            async with self._transport.stream(job_calls.follow(job_id, after=after)) as answer:
                if answer.status == HTTPStatus.NO_CONTENT:
                    return
                decoder = EventDecoder()
                try:
                    async for piece in answer.pieces:
                        for event in decoder.feed(piece):
                            after = event.id
                            yield event
                except TransportError:
                    if after == last:
                        raise
            if after == last:
                await anyio.sleep(RECONNECT_S)

    async def event_page(self, job_id: str, *, after: int = 0) -> EventPage:
        """The events that there are by now, at most some hundreds."""
        return await self._transport.send(job_calls.event_page(job_id, after=after))


class AsyncModels:
    """As `Models`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    def list(self) -> AsyncIterator[Model]:
        """All models, newest first; pages are fetched as they are needed."""
        return _through(self._transport, lambda cursor: model_calls.page(cursor=cursor))

    async def get(self, name: str) -> Model:
        """One model: its newest version and its aliases."""
        return await self._transport.send(model_calls.get(name))

    def versions(self, name: str) -> AsyncIterator[VersionSummary]:
        """All versions of a model, newest first."""
        return _through(
            self._transport, lambda cursor: model_calls.version_page(name, cursor=cursor)
        )

    async def version(self, name: str, number: int) -> Version:
        """One version."""
        return await self._transport.send(model_calls.version(name, number))

    async def plot(
        self,
        name: str,
        version: int,
        kind: PlotKind,
        *,
        format: PictureFormat = "png",  # noqa: A002 - the word for it
    ) -> bytes:
        """A picture of a version: how it learnt, or what, beside its data if they are there."""
        return await self._transport.send(model_calls.plot(name, version, kind, format=format))

    async def upload(self, name: str, path: Path) -> Version:
        """Import a file that `download` wrote, as the next version of a model."""
        return await self._transport.send(model_calls.upload(name, path))

    async def alias(self, name: str, alias: str) -> Alias:
        """Where an alias points, and the etag that makes a later move conditional."""
        return await self._transport.send(model_calls.alias(name, alias))

    async def set_alias(
        self, name: str, alias: str, version: int, *, etag: str | None = None
    ) -> Alias:
        """Point an alias at a version."""
        call = model_calls.set_alias(name, alias, version, etag=etag)
        return await self._transport.send(call)

    async def delete_alias(self, name: str, alias: str) -> None:
        """Delete an alias; the version stays."""
        await self._transport.send(model_calls.delete_alias(name, alias))

    async def download(self, name: str, version: int, target: Path | BinaryIO) -> None:
        """Write the weights of a version, a safetensors file; a path has all of it or none."""
        async with self._transport.stream(model_calls.checkpoint(name, version)) as answer:
            with destination(target) as file:
                async for piece in answer.pieces:
                    await to_thread.run_sync(file.write, piece)


async def _through(
    transport: AsyncTransport, page: Callable[[str | None], Call[Page[_Item]]]
) -> AsyncIterator[_Item]:
    cursor = None
    while True:
        found = await transport.send(page(cursor))
        for item in found.items:
            yield item
        cursor = found.next_cursor
        if cursor is None:
            return
