"""The client for code that runs in an event loop."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import httpx
import numpy as np
from anyio import to_thread
from numpy.typing import ArrayLike

from densityd.client.aio.resources import AsyncDatasets, AsyncJobs, AsyncModels
from densityd.client.aio.transport import AsyncTransport
from densityd.client.call import ARROW, NPY, Call, nothing
from densityd.client.calls.scores import (
    Context,
    Drawing,
    Question,
    Scores,
    Transformed,
    ask,
    ask_file,
    ask_table,
    scored,
    transformed,
)
from densityd.client.options import Space
from densityd.client.settings import Settings
from densityd.client.wire.arrow import ArrowDecoder
from densityd.client.wire.files import destination
from densityd.client.wire.npy import Floats, NpyDecoder

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information


class AsyncClient:
    """As `Client`, for asyncio and trio; iterators are asynchronous.

    Args:
        service: where the service is and how to deal with it, or its URL.
        transport: of httpx, in place of the network's.

    Attributes:
        datasets: tables.
        jobs: trainings and the like.
        models: what came out of them.
    """

    def __init__(
        self,
        service: Settings | str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        settings = service if isinstance(service, Settings) else Settings(service)
        self._transport = AsyncTransport(settings, transport)
        self.datasets = AsyncDatasets(self._transport)
        self.jobs = AsyncJobs(self._transport)
        self.models = AsyncModels(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def log_prob(self, ref: str, rows: ArrayLike, *, space: Space = "data") -> Floats:
        """The log density of each row, in nats; -inf or NaN where there is no finite one."""
        pieces = [piece async for piece in self.iter_log_prob(ref, rows, space=space)]
        return np.concatenate(pieces)

    async def iter_log_prob(
        self,
        ref: str,
        rows: ArrayLike,
        *,
        space: Space = "data",
        rows_per_request: int | None = None,
    ) -> AsyncIterator[Floats]:
        """As `log_prob`, piece by piece: neither rows nor results are ever whole in memory."""
        for call in ask("log_prob", ref, rows, space=space, rows_per_request=rows_per_request):
            yield await self._transport.send(call)

    async def score(self, ref: str, rows: ArrayLike) -> Scores:
        """The log density of each row and its calibrated rank; rows are as for `log_prob`."""
        calls = ask("score", ref, rows, space="data")
        return scored(np.concatenate([await self._transport.send(call) for call in calls]))

    async def inverse(self, ref: str, rows: ArrayLike, *, space: Space = "data") -> Transformed:
        """The noise that each row of data comes from; rows are as for `log_prob`."""
        return await self._transform("inverse", ref, rows, space)

    async def forward(self, ref: str, noise: ArrayLike, *, space: Space = "data") -> Transformed:
        """The data that each row of noise becomes; the columns of a context come after it."""
        return await self._transform("forward", ref, noise, space)

    async def sample(
        self,
        ref: str,
        n: int,
        *,
        seed: int | None = None,
        context: Context = None,
        space: Space = "data",
    ) -> Floats:
        """Rows drawn from a model."""
        return await self._transport.send(Drawing(n, seed, context, space).array(ref))

    async def iter_sample(
        self,
        ref: str,
        n: int,
        *,
        seed: int | None = None,
        context: Context = None,
        space: Space = "data",
    ) -> AsyncIterator[Floats]:
        """As `sample`, in arrays of about a megabyte while they are drawn."""
        decoder = NpyDecoder()
        call = Drawing(n, seed, context, space).call(ref, NPY, nothing)
        async with self._transport.stream(call) as answer:
            async for piece in answer.pieces:
                for rows in decoder.feed(piece):
                    yield rows
        decoder.finish()

    async def log_prob_table(
        self, ref: str, table: "pa.Table", *, space: Space = "data"
    ) -> "pa.Table":
        """As `log_prob` of an Arrow table, whose columns are matched by name; so is the answer."""
        return await self._ask_table("log_prob", ref, table, space)

    async def inverse_table(
        self, ref: str, table: "pa.Table", *, space: Space = "data"
    ) -> "pa.Table":
        """As `inverse` of an Arrow table; the last column of the answer is the log determinant."""
        return await self._ask_table("inverse", ref, table, space)

    async def forward_table(
        self, ref: str, table: "pa.Table", *, space: Space = "data"
    ) -> "pa.Table":
        """As `forward` of an Arrow table; the last column of the answer is the log determinant."""
        return await self._ask_table("forward", ref, table, space)

    async def sample_table(
        self,
        ref: str,
        n: int,
        *,
        seed: int | None = None,
        context: Context = None,
        space: Space = "data",
    ) -> "pa.Table":
        """As `sample`, as an Arrow table."""
        return await self._transport.send(Drawing(n, seed, context, space).table(ref))

    async def iter_sample_table(
        self,
        ref: str,
        n: int,
        *,
        seed: int | None = None,
        context: Context = None,
        space: Space = "data",
    ) -> "AsyncIterator[pa.RecordBatch]":
        """As `sample_table`, batch by batch while they are drawn."""
        decoder = ArrowDecoder()
        call = Drawing(n, seed, context, space).call(ref, ARROW, nothing)
        async with self._transport.stream(call) as answer:
            async for piece in answer.pieces:
                for batch in decoder.feed(piece):
                    yield batch
        decoder.finish()

    async def log_prob_file(
        self,
        ref: str,
        path: Path,
        target: Path | BinaryIO,
        *,
        media_type: str = "text/csv",
        space: Space = "data",
    ) -> None:
        """Score a file into a file; both pass through in pieces, in any of the formats."""
        call = ask_file("log_prob", ref, path, media_type=media_type, space=space)
        await self._save(call, target)

    async def score_file(
        self, ref: str, path: Path, target: Path | BinaryIO, *, media_type: str = "text/csv"
    ) -> None:
        """As `log_prob_file`, of log densities and calibrated ranks, as columns."""
        call = ask_file("score", ref, path, media_type=media_type, space="data")
        await self._save(call, target)

    async def sample_file(
        self, ref: str, drawing: Drawing, target: Path | BinaryIO, *, media_type: str = "text/csv"
    ) -> None:
        """Draw rows into a file, in any of the formats; a path has all of them or none."""
        await self._save(drawing.call(ref, media_type, nothing), target)

    async def _save(self, call: Call[Any], target: Path | BinaryIO) -> None:
        async with self._transport.stream(call) as answer:
            with destination(target) as file:
                async for piece in answer.pieces:
                    await to_thread.run_sync(file.write, piece)

    async def _transform(
        self, question: Question, ref: str, rows: ArrayLike, space: Space
    ) -> Transformed:
        calls = ask(question, ref, rows, space=space)
        return transformed(np.concatenate([await self._transport.send(call) for call in calls]))

    async def _ask_table(
        self, question: Question, ref: str, table: "pa.Table", space: Space
    ) -> "pa.Table":
        import pyarrow as pa  # noqa: PLC0415 - only those who have tables need it

        calls = ask_table(question, ref, table, space=space)
        return pa.concat_tables([await self._transport.send(call) for call in calls])
