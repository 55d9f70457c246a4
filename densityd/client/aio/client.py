"""`AsyncClient`, the entry to the API."""

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Self, TypeVar, Unpack

import httpx
import numpy as np
from anyio import to_thread

from densityd.client.aio.datasets import AsyncDatasets
from densityd.client.aio.jobs import AsyncJobs
from densityd.client.aio.keys import AsyncKeys
from densityd.client.aio.models import AsyncModels
from densityd.client.aio.transport import AsyncTransport
from densityd.client.aio.webhooks import AsyncWebhooks
from densityd.client.call import ARROW, NPY, Call, ignore
from densityd.client.errors import ApiError
from densityd.client.options import Extra, FileOptions, RowOptions, Space
from densityd.client.records.account import Me, ServiceVersion, Usage
from densityd.client.row_results import (
    Conditionals,
    Evidence,
    Explained,
    Parts,
    Scores,
    Transformed,
    join_conditionals,
    join_explained,
    split_evidence,
    split_parts,
    split_scores,
    split_transformed,
)
from densityd.client.scores import (
    Context,
    Drawing,
    Operation,
    RowCalls,
    RowQuery,
    build_calls,
    build_conditionals_query,
    build_evidence_file_query,
    build_evidence_query,
    build_explain_query,
    build_file_calls,
    build_file_query,
    build_parts_query,
    build_query,
    build_table_query,
)
from densityd.client.settings import Settings
from densityd.client.wire.arrow import ArrowDecoder
from densityd.client.wire.files import choose_media_type, open_target
from densityd.client.wire.frames import Rows
from densityd.client.wire.npy import Floats, NpyDecoder
from densityd.client.wire.parts import JoinedResults
from densityd.client.wire.problems import of_part

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

_Chunk = TypeVar("_Chunk")
_Rows_co = TypeVar("_Rows_co", covariant=True)


class _Decoder(Protocol[_Rows_co]):
    def feed(self, data: bytes) -> Iterator[_Rows_co]: ...

    def finish(self) -> None: ...


class AsyncClient:
    """A client of the service. Tasks of asyncio or trio may share it.

    Wherever a model is named, `name` (its alias `production` if set, else the newest version),
    `name@alias` or `name:version` will do. All methods raise `ApiError` if the service refuses the
    request, and `TransportError` if there is no response.

    Example:
        async with AsyncClient() as client:
            dataset = await client.datasets.upload("train.csv")
            job = await client.jobs.train("shuttle", dataset.id)
            job = await client.jobs.wait(job.id)
            print(await client.log_prob(job.ref, rows))

    Args:
        service: Settings of the client, or the service's URL; None for the URL in `DENSITYD_URL`
            or http://127.0.0.1:8000.
        transport: Transport of httpx in place of the network.

    Attributes:
        datasets: Uploaded tables.
        jobs: Training and bulk jobs.
        models: Trained models and their versions.
        webhooks: URLs that are notified when jobs end.
        keys: API keys of the project.
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
        self.webhooks = AsyncWebhooks(self._transport)
        self.keys = AsyncKeys(self._transport)

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

    async def me(self) -> Me:
        """Return the caller as the service sees it: project, scope, key and limits."""
        return await self._transport.send(Call("GET", "/v1/me", Me.of))

    async def usage(self) -> Usage:
        """Return what the project has and has used, beside its quotas."""
        return await self._transport.send(Call("GET", "/v1/usage", Usage.of))

    async def version(self) -> ServiceVersion:
        """Return the version of the service."""
        return await self._transport.send(Call("GET", "/v1/version", ServiceVersion.of))

    async def log_prob(self, ref: str, rows: Rows, **options: Unpack[RowOptions]) -> Floats:
        """Return the log density of each row in nats; -inf or NaN if there is no finite one.

        Args:
            ref: Reference of the model.
            rows: Frame of pandas, polars or pyarrow, structured array or list of records, whose
                columns are matched by name, in any order; or a 2-D array of the model's columns in
                their order, then those of its context. An array in a file
                (`np.load(..., mmap_mode="r")`) is read and sent in chunks.
            **options: Space of the rows, and what becomes of columns that the model does not have:
                they are ignored by default if the model has types, else refused.

        Raises:
            ValueError: The rows are no table, or an array of something else than numbers.
        """
        chunks = self.iter_log_prob(ref, rows, **options)
        return np.concatenate([chunk async for chunk in chunks])

    def iter_log_prob(
        self,
        ref: str,
        rows: Rows,
        *,
        rows_per_request: int | None = None,
        **options: Unpack[RowOptions],
    ) -> AsyncIterator[Floats]:
        """Return an iterator over the log densities in chunks; arguments are those of `log_prob`.

        Neither the rows nor the results are ever whole in memory.
        """
        query = build_query("log_prob", ref, **options)
        return self._send_all(build_calls(query, rows, rows_per_request=rows_per_request))

    async def log_prob_parts(self, ref: str, rows: Rows, *, extra: Extra | None = None) -> Parts:
        """Return the log density of each row and its two parts; rows as for `log_prob`."""
        return split_parts(await self._collect(build_parts_query(ref, extra=extra), rows))

    async def conditionals(
        self, ref: str, rows: Rows, *, space: Space = "data", extra: Extra | None = None
    ) -> Conditionals:
        """Return log p(x_i | x_<i) of each column of each row, and its mean given those before it.

        The rows are as for `log_prob`. The means are the reconstruction of an autoencoder: of columns of
        0 and 1 under a Bernoulli MADE, probabilities of a 1.

        Raises:
            ApiError: The model is not one autoregressive layer (`conditionals-unavailable`), or the
                service refuses the request.
        """
        query = build_conditionals_query(ref, space=space, extra=extra)
        return join_conditionals(await self._chunks(query, rows))

    async def score(self, ref: str, rows: Rows, *, extra: Extra | None = None) -> Scores:
        """Return the log density and the calibrated rank of each row; rows as for `log_prob`.

        Raises:
            ApiError: The model has no held-out rows (`score-unavailable`), or the service refuses
                the request.
        """
        return split_scores(await self._collect(build_query("score", ref, extra=extra), rows))

    async def explain(self, ref: str, rows: Rows, *, extra: Extra | None = None) -> Explained:
        """Return the scores of each row and the contribution of each of its columns.

        A model that was trained with `missing="any"` tells the contribution of every column.

        Raises:
            ApiError: As for `score`.
        """
        query = build_explain_query(ref, extra=extra)
        return join_explained(await self._chunks(query, rows))

    async def evidence(
        self,
        ref: str,
        rows: Rows,
        *,
        samples: int = 100,
        seed: int = 0,
        extra: Extra | None = None,
    ) -> Evidence:
        """Return two lower bounds of the log evidence of each row under a model with latent variables.

        Args:
            ref: Reference of the model.
            rows: Rows of the data that the latent variables explain, the model's context columns;
                given as for `log_prob`.
            samples: Number of samples of the posterior of each row.
            seed: Seed of the samples.
            extra: Refuse rows with columns that the model does not have, or ignore the columns.

        Raises:
            ApiError: The model has no latent variables (`evidence-unavailable`), or the service
                refuses the request.
        """
        query = build_evidence_query(ref, samples=samples, seed=seed, extra=extra)
        return split_evidence(await self._collect(query, rows))

    async def inverse(self, ref: str, rows: Rows, *, space: Space = "data") -> Transformed:
        """Return the noise that each row of data comes from; rows are as for `log_prob`."""
        return await self._transform("inverse", ref, rows, space)

    async def forward(self, ref: str, noise: Rows, *, space: Space = "data") -> Transformed:
        """Return the data that each row of noise becomes; columns of a context come last."""
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
        """Draw rows from a model as an array, in which text is codes and dates are seconds.

        `sample_table` gives the values of the table.

        Args:
            ref: Reference of the model.
            n: Number of rows.
            seed: Seed that gives the same rows from the same version again; None for a random one.
            context: Context of a conditional model: one row for all samples, or one for each.
            space: Space of the rows.
        """
        return await self._transport.send(Drawing(n, seed, context, space).array(ref))

    def iter_sample(
        self,
        ref: str,
        n: int,
        *,
        seed: int | None = None,
        context: Context = None,
        space: Space = "data",
    ) -> AsyncIterator[Floats]:
        """Return an iterator over the rows of `sample`, in arrays of about a megabyte."""
        call = Drawing(n, seed, context, space).call(ref, NPY, ignore)
        return self._decode(call, NpyDecoder())

    async def log_prob_table(self, ref: str, table: Rows, *, space: Space = "data") -> "pa.Table":
        """Return `log_prob` as an Arrow table; rows are as for `log_prob`."""
        return await self._send_table("log_prob", ref, table, space)

    async def inverse_table(self, ref: str, table: Rows, *, space: Space = "data") -> "pa.Table":
        """Return `inverse` as an Arrow table; the last column is the log determinant."""
        return await self._send_table("inverse", ref, table, space)

    async def forward_table(self, ref: str, table: Rows, *, space: Space = "data") -> "pa.Table":
        """Return `forward` as an Arrow table; the last column is the log determinant."""
        return await self._send_table("forward", ref, table, space)

    async def sample_table(
        self,
        ref: str,
        n: int,
        *,
        seed: int | None = None,
        context: Context = None,
        space: Space = "data",
    ) -> "pa.Table":
        """Draw rows from a model as an Arrow table; arguments are those of `sample`.

        The table has the values of the data, text and dates too; `.to_pandas()`, `.to_pylist()` and
        polars' `from_arrow` make a frame or records of it.
        """
        return await self._transport.send(Drawing(n, seed, context, space).table(ref))

    def iter_sample_table(
        self,
        ref: str,
        n: int,
        *,
        seed: int | None = None,
        context: Context = None,
        space: Space = "data",
    ) -> "AsyncIterator[pa.RecordBatch]":
        """Return an iterator over the record batches of `sample_table`, as they are drawn."""
        call = Drawing(n, seed, context, space).call(ref, ARROW, ignore)
        return self._decode(call, ArrowDecoder())

    async def log_prob_file(
        self, ref: str, path: Path, target: Path | BinaryIO, **options: Unpack[FileOptions]
    ) -> None:
        """Write the log density of each row of a file to a file; large ones are sent in parts.

        All parts are scored by the version that responded to the first, even if an alias moves
        meanwhile.

        Args:
            ref: Reference of the model.
            path: File of the rows; the suffix of its name is its format.
            target: File of the log densities; a path has all of them or is not written.
            **options: Options of the scoring. If no `media_type` is given, the suffix of the
                target's name is its format; an open file gets CSV.

        Raises:
            FileFormatError: The suffix is of no known format.
            OSError: A file cannot be read or written.
        """
        media_type = choose_media_type(target, options.get("media_type"))
        query = build_file_query("log_prob", ref, media_type, options)
        calls = build_file_calls(query, path, options.get("rows_per_request"))
        await self._write_file(calls, target)

    async def score_file(
        self, ref: str, path: Path, target: Path | BinaryIO, **options: Unpack[FileOptions]
    ) -> None:
        """Write the log density and the calibrated rank of each row, as `log_prob_file` does."""
        media_type = choose_media_type(target, options.get("media_type"))
        query = build_file_query("score", ref, media_type, options)
        calls = build_file_calls(query, path, options.get("rows_per_request"))
        await self._write_file(calls, target)

    async def evidence_file(
        self,
        ref: str,
        path: Path,
        target: Path | BinaryIO,
        *,
        samples: int = 100,
        seed: int = 0,
        extra: Extra | None = None,
    ) -> None:
        """Write both bounds of the log evidence of each row, as `log_prob_file` does.

        Args:
            ref: Reference of a model with latent variables.
            path: File of the rows; the suffix of its name is its format.
            target: File of the bounds; the suffix of its name is its format, and an open file
                gets CSV.
            samples: Number of samples of the posterior of each row.
            seed: Seed of the samples.
            extra: Refuse rows with columns that the model does not have, or ignore the columns.

        Raises:
            FileFormatError: The suffix is of no known format.
            OSError: A file cannot be read or written.
        """
        media_type = choose_media_type(target, None)
        query = build_evidence_file_query(ref, media_type, samples=samples, seed=seed, extra=extra)
        await self._write_file(build_file_calls(query, path, None), target)

    async def sample_file(
        self,
        ref: str,
        drawing: Drawing,
        target: Path | BinaryIO,
        *,
        media_type: str | None = None,
    ) -> None:
        """Draw rows into a file of any format; a path has all of them or is not written.

        Args:
            ref: Reference of the model.
            drawing: Options of the sampling.
            target: File of the rows.
            media_type: Format of the rows; None for that of the target's suffix, and CSV for an
                open file.

        Raises:
            FileFormatError: The suffix is of no known format.
        """
        call = drawing.call(ref, choose_media_type(target, media_type), ignore)
        await self._transport.save(call, target)

    async def _write_file(self, calls: RowCalls[bytes], target: Path | BinaryIO) -> None:
        """Write the results of each part of a file to one file."""
        with open_target(target) as file:
            results = JoinedResults(calls.query.media_type, file)
            parts = iter(calls)
            while (call := await to_thread.run_sync(next, parts, None)) is not None:
                try:
                    content = await self._transport.send(call)
                except ApiError as error:
                    raise of_part(error, results.rows) from error
                await to_thread.run_sync(results.add, content)
            await to_thread.run_sync(JoinedResults.finish, results)

    async def _transform(
        self, operation: Operation, ref: str, rows: Rows, space: Space
    ) -> Transformed:
        return split_transformed(
            await self._collect(build_query(operation, ref, space=space), rows)
        )

    async def _collect(self, query: RowQuery[Floats], rows: Rows) -> Floats:
        return np.concatenate(await self._chunks(query, rows))

    async def _chunks(self, query: RowQuery[_Chunk], rows: Rows) -> list[_Chunk]:
        return [chunk async for chunk in self._send_all(build_calls(query, rows))]

    async def _send_table(
        self, operation: Operation, ref: str, rows: Rows, space: Space
    ) -> "pa.Table":
        import pyarrow as pa  # noqa: PLC0415 - only those who have tables need it

        query = build_table_query(operation, ref, space=space)
        return pa.concat_tables(await self._chunks(query, rows))

    async def _send_all(self, calls: Iterable[Call[_Chunk]]) -> AsyncIterator[_Chunk]:
        for call in calls:
            yield await self._transport.send(call)

    async def _decode(
        self, call: Call[Any], decoder: _Decoder[_Rows_co]
    ) -> AsyncIterator[_Rows_co]:
        async with self._transport.stream(call) as response:
            async for chunk in response.chunks:
                for rows in decoder.feed(chunk):
                    yield rows
        decoder.finish()
