"""Calls of a model: densities, samples, and the transforms between data and noise."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from densityd.client.call import ARROW, LONG_S, NPY, Body, Call, Response, encode_json, ignore
from densityd.client.options import Space
from densityd.client.wire.arrow import encode_table, read_table
from densityd.client.wire.files import read_file
from densityd.client.wire.npy import Floats, check_rows, encode_array, read_array

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

Operation = Literal["log_prob", "score", "inverse", "forward"]
Context = ArrayLike | Mapping[str, float] | Sequence[Mapping[str, float]] | None
"""Context of a conditional model: one row for all samples or one for each."""

_REQUEST_BYTES = 2 << 20  # few enough for a slow flow to respond before the timeout
_Chunk = TypeVar("_Chunk")


class Transformed(NamedTuple):
    """Transformed rows, and the log determinant of the transform at each."""

    rows: Floats
    log_det: Floats


class Scores(NamedTuple):
    """Log densities, and the rank of each among rows that the model was not trained on."""

    log_prob: Floats
    quantile: Floats


@dataclass
class RowCalls(Generic[_Chunk]):
    """One operation on many rows: calls of bounded size, to be sent in order.

    All go to the version that responded to the first, even if an alias moves meanwhile.

    Args:
        ref: `name`, `name@alias` or `name:version`; replaced by the version in the response.
        operation: Operation of the model.
        count: Number of rows in total.
        step: Number of rows of each call.
        space: Space of the data.
        encode: Makes the body of a range of rows.
        media_type: Format of the responses.
        read: Makes the result from the content of a response.
    """

    ref: str
    operation: Operation
    count: int
    step: int
    space: Space
    encode: Callable[[slice], Body]
    media_type: str
    read: Callable[[bytes], _Chunk]

    def __iter__(self) -> Iterator[Call[_Chunk]]:
        """Yield the calls; each must have been parsed before the next is taken."""
        # An empty table is sent too, for the service's error.
        for start in range(0, max(1, self.count), self.step):
            yield Call(
                "POST",
                f"{_path(self.ref)}/{self.operation}",
                self._parse,
                params=_build_params(self.operation, self.space),
                headers={"Accept": self.media_type},
                body=self.encode(slice(start, start + self.step)),
            )

    def _parse(self, response: Response) -> _Chunk:
        self.ref = response.headers.get("x-model", self.ref)
        return self.read(response.content)


def build_array_calls(
    operation: Operation,
    ref: str,
    rows: ArrayLike,
    *,
    space: Space,
    rows_per_request: int | None = None,
) -> RowCalls[Floats]:
    """Return the calls for the rows of an array, which may be memory-mapped.

    Raises:
        ValueError: The rows are not a 2-D array of numbers.
    """
    array = check_rows(rows)
    width = max(1, array.shape[1] * array.dtype.itemsize)
    return RowCalls(
        ref,
        operation,
        count=len(array),
        step=rows_per_request or max(1, _REQUEST_BYTES // width),
        space=space,
        encode=lambda part: encode_array(array[part]),
        media_type=NPY,
        read=read_array,
    )


def build_table_calls(
    operation: Operation, ref: str, table: "pa.Table", *, space: Space
) -> "RowCalls[pa.Table]":
    """Return the calls for the rows of an Arrow table, whose columns are matched by name."""
    return RowCalls(
        ref,
        operation,
        count=table.num_rows,
        step=max(1, _REQUEST_BYTES // (8 * max(1, table.num_columns))),
        space=space,
        encode=lambda part: encode_table(table.slice(part.start, part.stop - part.start)),
        media_type=ARROW,
        read=read_table,
    )


def build_file_call(
    operation: Operation, ref: str, path: Path, *, media_type: str, space: Space
) -> Call[None]:
    """Return the call for the rows of a file, whose response is to be streamed.

    Args:
        operation: Operation of the model.
        ref: Reference of the model.
        path: File of the rows; the suffix of its name is its format.
        media_type: Format of the response.
        space: Space of the data.

    Raises:
        FileFormatError: The suffix is of no known format.
        OSError: There is no such file.
    """
    return Call(
        "POST",
        f"{_path(ref)}/{operation}",
        ignore,
        params=_build_params(operation, space),
        headers={"Accept": media_type},
        body=read_file(path),
        read_timeout_s=LONG_S,
    )


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


def split_transformed(values: Floats) -> Transformed:
    """Split an array of rows with their log determinants in the last column."""
    return Transformed(values[:, :-1], values[:, -1])


def split_scores(values: Floats) -> Scores:
    """Split an array of log densities and quantiles."""
    return Scores(values[:, 0], values[:, 1])


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


def _build_params(operation: Operation, space: Space) -> dict[str, str | int | None]:
    return (
        {} if operation == "score" else {"space": space}
    )  # ranks are of rows in the units of the data


def _path(ref: str) -> str:
    return f"/v1/models/{quote(ref, safe=':@')}"
