"""Calls of a model: densities, samples, and the transforms between data and noise."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from densityd.client.call import (
    ARROW,
    JSON,
    LONG_S,
    NPY,
    Body,
    Call,
    Response,
    encode_json,
)
from densityd.client.options import Extra, FileOptions, Space
from densityd.client.row_results import (
    Conditionals,
    Explained,
    read_conditionals,
    read_explained,
)
from densityd.client.wire.arrow import encode_table, read_table
from densityd.client.wire.frames import Rows, to_table
from densityd.client.wire.npy import Floats, check_rows, encode_array, read_array
from densityd.client.wire.parts import cut_file

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

Operation = Literal["log_prob", "score", "evidence", "inverse", "forward"]
Context = ArrayLike | Mapping[str, object] | Sequence[Mapping[str, object]] | None
"""Context of a conditional model: one row for all samples or one for each."""

_REQUEST_BYTES = 2 << 20  # few enough for a slow flow to respond before the timeout
_Chunk = TypeVar("_Chunk")


@dataclass(frozen=True)
class RowQuery(Generic[_Chunk]):
    """A request about rows, without the rows.

    Args:
        ref: `name`, `name@alias` or `name:version`.
        operation: Operation of the model.
        params: Parameters of the query.
        media_type: Format of the responses.
        read: Makes the result from the content of a response.
    """

    ref: str
    operation: Operation
    params: Mapping[str, str | int | None]
    media_type: str
    read: Callable[[bytes], _Chunk]


@dataclass
class RowCalls(Generic[_Chunk]):
    """One request about many rows: calls of bounded size, to be sent in order.

    All go to the version that responded to the first, even if an alias moves meanwhile.

    Args:
        query: Request without the rows.
        bodies: Bodies of the calls.
        read_timeout_s: Longest silence of the service in seconds; None for the client's own.
    """

    query: RowQuery[_Chunk]
    bodies: Iterable[Body]
    read_timeout_s: float | None = None

    def __post_init__(self) -> None:
        self._ref = self.query.ref

    def __iter__(self) -> Iterator[Call[_Chunk]]:
        """Yield the calls; each must have been parsed before the next is taken."""
        for body in self.bodies:
            yield Call(
                "POST",
                f"{_path(self._ref)}/{self.query.operation}",
                self._parse,
                params=self.query.params,
                headers={"Accept": self.query.media_type},
                body=body,
                read_timeout_s=self.read_timeout_s,
            )

    def _parse(self, response: Response) -> _Chunk:
        self._ref = response.headers.get("x-model", self._ref)
        return self.query.read(response.content)


def build_query(
    operation: Operation, ref: str, *, space: Space = "data", extra: Extra | None = None
) -> RowQuery[Floats]:
    """Return a request whose responses are arrays."""
    return RowQuery(ref, operation, _build_params(operation, space, extra), NPY, read_array)


def build_table_query(operation: Operation, ref: str, *, space: Space) -> "RowQuery[pa.Table]":
    """Return a request whose responses are Arrow tables."""
    return RowQuery(ref, operation, _build_params(operation, space, None), ARROW, read_table)


def build_parts_query(ref: str, *, extra: Extra | None = None) -> RowQuery[Floats]:
    """Return a request for log densities and their two parts, one a column."""
    params = {**_build_params("log_prob", "data", extra), "parts": "true"}
    return RowQuery(ref, "log_prob", params, NPY, read_array)


def build_conditionals_query(
    ref: str, *, space: Space = "data", extra: Extra | None = None
) -> RowQuery[Conditionals]:
    """Return a request for log densities and those of single columns."""
    params = {**_build_params("log_prob", space, extra), "conditionals": "true"}
    return RowQuery(ref, "log_prob", params, JSON, read_conditionals)


def build_explain_query(ref: str, *, extra: Extra | None = None) -> RowQuery[Explained]:
    """Return a request for scores and the contribution of each column."""
    params = {**_build_params("score", "data", extra), "explain": "true"}
    return RowQuery(ref, "score", params, JSON, read_explained)


def build_evidence_query(
    ref: str, *, samples: int, seed: int, extra: Extra | None = None
) -> RowQuery[Floats]:
    """Return a request for the evidence of rows."""
    params: dict[str, str | int | None] = {"samples": samples, "seed": seed, "extra": extra}
    return RowQuery(ref, "evidence", params, NPY, read_array)


def build_calls(
    query: RowQuery[_Chunk], rows: Rows, *, rows_per_request: int | None = None
) -> RowCalls[_Chunk]:
    """Return the calls for rows: by name if their columns have names, else by position.

    Args:
        query: Request without the rows.
        rows: Frame, list of records, or array, which may be memory-mapped.
        rows_per_request: Number of rows of each call; None for about two megabytes.

    Raises:
        ValueError: The rows are no table.
    """
    table = to_table(rows)
    if table is not None:
        step = rows_per_request or _count_rows(table.nbytes, table.num_rows)
        starts = range(0, max(1, table.num_rows), step)
        return RowCalls(query, (encode_table(table.slice(start, step)) for start in starts))
    array = check_rows(rows)
    step = rows_per_request or _count_rows(array.nbytes, len(array))
    # An empty table is sent too, for the service's error.
    starts = range(0, max(1, len(array)), step)
    return RowCalls(query, (encode_array(array[start : start + step]) for start in starts))


def build_file_calls(
    query: RowQuery[bytes], path: Path, rows_per_request: int | None
) -> RowCalls[bytes]:
    """Return the calls for the rows of a file, one for each part of bounded size.

    Args:
        query: Request without the rows.
        path: File of the rows; the suffix of its name is its format.
        rows_per_request: Most rows of each call; None for half a million.
    """
    return RowCalls(query, cut_file(path, rows_per_request), read_timeout_s=LONG_S)


def build_file_query(
    operation: Operation, ref: str, media_type: str, options: FileOptions
) -> RowQuery[bytes]:
    """Return a request whose responses are parts of a file.

    Args:
        operation: Operation of the model.
        ref: Reference of the model.
        media_type: Format of the responses.
        options: Options of the scoring.
    """
    params = _build_params(operation, options.get("space", "data"), options.get("extra"))
    for name in ("parts", "conditionals", "explain"):
        if options.get(name):
            params[name] = "true"
    return RowQuery(ref, operation, params, media_type, bytes)


def build_evidence_file_query(
    ref: str, media_type: str, *, samples: int, seed: int, extra: Extra | None
) -> RowQuery[bytes]:
    """Return a request for the evidence of rows whose responses are parts of a file."""
    params: dict[str, str | int | None] = {"samples": samples, "seed": seed, "extra": extra}
    return RowQuery(ref, "evidence", params, media_type, bytes)


@dataclass(frozen=True)
class Drawing:
    """The options of a sampling.

    Args:
        n: Number of rows.
        seed: Seed that gives the same rows again; None for a random one.
        context: Context of a conditional model.
        space: Space of the rows.
    """

    n: int
    seed: int | None
    context: Context
    space: Space

    def call(self, ref: str, media_type: str, parse: Callable[[Response], _Chunk]) -> Call[_Chunk]:
        """Return the call of a model, with the response in a format."""
        body: dict[str, object] = {"n": self.n, "seed": self.seed}
        if self.context is not None:
            body["context"] = encode_context(self.context)
        return Call(
            "POST",
            f"{_path(ref)}/sample",
            parse,
            params={"space": self.space},
            headers={"Accept": media_type},
            body=encode_json(body),
        )

    def array(self, ref: str) -> Call[Floats]:
        """Return the call that gives one array."""
        return self.call(ref, NPY, lambda response: read_array(response.content))

    def table(self, ref: str) -> "Call[pa.Table]":
        """Return the call that gives one Arrow table."""
        return self.call(ref, ARROW, lambda response: read_table(response.content))


def encode_context(context: Context) -> object:
    """Return a context as JSON: an object, or a list of rows.

    Raises:
        ValueError: The array has more than two dimensions.
    """
    if isinstance(context, Mapping):
        return dict(context)
    if isinstance(context, Sequence) and context and isinstance(context[0], Mapping):
        return list(context)
    array: Any = np.atleast_1d(np.asarray(context, dtype=np.float64))
    if array.ndim > 2:
        raise ValueError(f"a context must be a 2-D array; this one is {array.ndim}-D")
    return np.atleast_2d(array).tolist()


def _count_rows(size: int, rows: int) -> int:
    """Return the number of rows of a request, from the bytes of all rows."""
    return max(1, _REQUEST_BYTES * rows // max(1, size))


def _build_params(
    operation: Operation, space: Space, extra: Extra | None
) -> dict[str, str | int | None]:
    # Ranks are of rows in the units of the data.
    params: dict[str, str | int | None] = {} if operation == "score" else {"space": space}
    return params | {"extra": extra}


def _path(ref: str) -> str:
    return f"/v1/models/{quote(ref, safe=':@')}"
