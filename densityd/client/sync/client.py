"""The client for ordinary code."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import httpx
import numpy as np
from numpy.typing import ArrayLike

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
from densityd.client.sync.resources import Datasets, Jobs, Models
from densityd.client.sync.transport import Transport
from densityd.client.wire.arrow import ArrowDecoder
from densityd.client.wire.files import destination
from densityd.client.wire.npy import Floats, NpyDecoder

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information


class Client:
    """A service for density estimation; threads may share it.

    Wherever a model is named, `name` (its alias `production` if set, else the newest version),
    `name@alias` or `name:version` will do. All methods raise `ApiError` where the service refuses,
    and `TransportError` where it does not answer.

    Example:
        with Client() as client:
            dataset = client.datasets.upload("train.csv")
            job = client.jobs.wait(client.jobs.train("shuttle", dataset.id).id)
            print(client.log_prob(job.ref, rows))

    Args:
        service: where the service is and how to deal with it, or its URL; None: `DENSITYD_URL`,
            or else http://127.0.0.1:8000.
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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        settings = service if isinstance(service, Settings) else Settings(service)
        self._transport = Transport(settings, transport)
        self.datasets = Datasets(self._transport)
        self.jobs = Jobs(self._transport)
        self.models = Models(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def log_prob(self, ref: str, rows: ArrayLike, *, space: Space = "data") -> Floats:
        """The log density of each row, in nats; -inf or NaN where there is no finite one.

        Args:
            ref: the model.
            rows: 2-D, the model's columns in their order, then those of its context. An array that
                lies in a file (`np.load(..., mmap_mode="r")`) is sent a piece at a time.
            space: of the rows.

        Raises:
            ValueError: the rows are no table of numbers.
        """
        return np.concatenate(list(self.iter_log_prob(ref, rows, space=space)))

    def iter_log_prob(
        self,
        ref: str,
        rows: ArrayLike,
        *,
        space: Space = "data",
        rows_per_request: int | None = None,
    ) -> Iterator[Floats]:
        """As `log_prob`, piece by piece: neither rows nor results are ever whole in memory."""
        calls = ask("log_prob", ref, rows, space=space, rows_per_request=rows_per_request)
        return (self._transport.send(call) for call in calls)

    def score(self, ref: str, rows: ArrayLike) -> Scores:
        """The log density of each row and its calibrated rank; rows are as for `log_prob`.

        Raises:
            ApiError: `score-unavailable`, of a model without held-out rows; and as ever.
        """
        calls = ask("score", ref, rows, space="data")
        return scored(np.concatenate([self._transport.send(call) for call in calls]))

    def inverse(self, ref: str, rows: ArrayLike, *, space: Space = "data") -> Transformed:
        """The noise that each row of data comes from; rows are as for `log_prob`."""
        return self._transform("inverse", ref, rows, space)

    def forward(self, ref: str, noise: ArrayLike, *, space: Space = "data") -> Transformed:
        """The data that each row of noise becomes; the columns of a context come after it."""
        return self._transform("forward", ref, noise, space)

    def sample(
        self,
        ref: str,
        n: int,
        *,
        seed: int | None = None,
        context: Context = None,
        space: Space = "data",
    ) -> Floats:
        """Rows drawn from a model.

        Args:
            ref: the model.
            n: how many.
            seed: the same seed gives the same rows from the same version; None: others each time.
            context: of a conditional model: one row for all, or one for each sample.
            space: of the rows.
        """
        return self._transport.send(Drawing(n, seed, context, space).array(ref))

    def iter_sample(
        self,
        ref: str,
        n: int,
        *,
        seed: int | None = None,
        context: Context = None,
        space: Space = "data",
    ) -> Iterator[Floats]:
        """As `sample`, in arrays of about a megabyte while they are drawn."""
        decoder = NpyDecoder()
        call = Drawing(n, seed, context, space).call(ref, NPY, nothing)
        with self._transport.stream(call) as answer:
            for piece in answer.pieces:
                yield from decoder.feed(piece)
        decoder.finish()

    def log_prob_table(self, ref: str, table: "pa.Table", *, space: Space = "data") -> "pa.Table":
        """As `log_prob` of an Arrow table, whose columns are matched by name; so is the answer."""
        return self._ask_table("log_prob", ref, table, space)

    def inverse_table(self, ref: str, table: "pa.Table", *, space: Space = "data") -> "pa.Table":
        """As `inverse` of an Arrow table; the last column of the answer is the log determinant."""
        return self._ask_table("inverse", ref, table, space)

    def forward_table(self, ref: str, table: "pa.Table", *, space: Space = "data") -> "pa.Table":
        """As `forward` of an Arrow table; the last column of the answer is the log determinant."""
        return self._ask_table("forward", ref, table, space)

    def sample_table(
        self,
        ref: str,
        n: int,
        *,
        seed: int | None = None,
        context: Context = None,
        space: Space = "data",
    ) -> "pa.Table":
        """As `sample`, as an Arrow table."""
        return self._transport.send(Drawing(n, seed, context, space).table(ref))

    def iter_sample_table(
        self,
        ref: str,
        n: int,
        *,
        seed: int | None = None,
        context: Context = None,
        space: Space = "data",
    ) -> "Iterator[pa.RecordBatch]":
        """As `sample_table`, batch by batch while they are drawn."""
        decoder = ArrowDecoder()
        call = Drawing(n, seed, context, space).call(ref, ARROW, nothing)
        with self._transport.stream(call) as answer:
            for piece in answer.pieces:
                yield from decoder.feed(piece)
        decoder.finish()

    def log_prob_file(
        self,
        ref: str,
        path: Path,
        target: Path | BinaryIO,
        *,
        media_type: str = "text/csv",
        space: Space = "data",
    ) -> None:
        """Score a file into a file; both pass through in pieces, in any of the formats.

        Args:
            ref: the model.
            path: of the rows; the end of its name tells the format.
            target: of the log densities; a path has all of them or is not written.
            media_type: the format of the target.
            space: of the rows.

        Raises:
            FileFormatError: the name tells no format.
            OSError: a file cannot be read or written.
        """
        self._save(ask_file("log_prob", ref, path, media_type=media_type, space=space), target)

    def score_file(
        self, ref: str, path: Path, target: Path | BinaryIO, *, media_type: str = "text/csv"
    ) -> None:
        """As `log_prob_file`, of log densities and calibrated ranks, as columns."""
        self._save(ask_file("score", ref, path, media_type=media_type, space="data"), target)

    def sample_file(
        self, ref: str, drawing: Drawing, target: Path | BinaryIO, *, media_type: str = "text/csv"
    ) -> None:
        """Draw rows into a file, in any of the formats; a path has all of them or none."""
        self._save(drawing.call(ref, media_type, nothing), target)

    def _save(self, call: Call[Any], target: Path | BinaryIO) -> None:
        with self._transport.stream(call) as answer, destination(target) as file:
            for piece in answer.pieces:
                file.write(piece)

    def _transform(
        self, question: Question, ref: str, rows: ArrayLike, space: Space
    ) -> Transformed:
        calls = ask(question, ref, rows, space=space)
        return transformed(np.concatenate([self._transport.send(call) for call in calls]))

    def _ask_table(
        self, question: Question, ref: str, table: "pa.Table", space: Space
    ) -> "pa.Table":
        import pyarrow as pa  # noqa: PLC0415 - only those who have tables need it

        calls = ask_table(question, ref, table, space=space)
        return pa.concat_tables([self._transport.send(call) for call in calls])
