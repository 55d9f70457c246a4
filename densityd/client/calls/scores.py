"""The requests that ask a model: densities, samples, and the ways between data and noise."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from densityd.client.call import ARROW, LONG_S, NPY, Answer, Body, Call, json_body, nothing
from densityd.client.options import Space
from densityd.client.wire.arrow import table_body, table_of
from densityd.client.wire.files import file_body
from densityd.client.wire.npy import Floats, array_of, npy_body, rows_of

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

Question = Literal["log_prob", "score", "inverse", "forward"]
Context = ArrayLike | Mapping[str, float] | Sequence[Mapping[str, float]] | None
"""Of a conditional model: one row for all samples or one for each, by position or by name."""

_REQUEST_BYTES = 2 << 20  # also for a slow flow an answer that comes before the time-out
_Piece = TypeVar("_Piece")


class Transformed(NamedTuple):
    """Rows on the other side of a flow, and the log determinant of each one's way there."""

    rows: Floats
    log_det: Floats


class Scores(NamedTuple):
    """Log densities, and the rank of each among rows that the model was not trained on."""

    log_prob: Floats
    quantile: Floats


@dataclass
class RowCalls(Generic[_Piece]):
    """One question about many rows: requests of bounded size, one after the other.

    All are answered by the version that answered the first, also if an alias moves meanwhile.

    Args:
        ref: `name`, `name@alias` or `name:version`; the version, once one has answered.
        question: what is asked.
        count: rows in all.
        step: rows of a request.
        space: of the data side.
        body: makes the body of some rows.
        media_type: of the answers.
        read: makes the result of an answer's content.
    """

    ref: str
    question: Question
    count: int
    step: int
    space: Space
    body: Callable[[slice], Body]
    media_type: str
    read: Callable[[bytes], _Piece]

    def __iter__(self) -> Iterator[Call[_Piece]]:
        """The requests; one that was answered must have been parsed before the next is taken."""
        # No rows are a request too: the service says what is wrong with that.
        for start in range(0, max(1, self.count), self.step):
            yield Call(
                "POST",
                f"{_path(self.ref)}/{self.question}",
                self._parse,
                params=_space(self.question, self.space),
                headers={"Accept": self.media_type},
                body=self.body(slice(start, start + self.step)),
            )

    def _parse(self, answer: Answer) -> _Piece:
        self.ref = answer.headers.get("x-model", self.ref)
        return self.read(answer.content)


def ask(
    question: Question,
    ref: str,
    rows: ArrayLike,
    *,
    space: Space,
    rows_per_request: int | None = None,
) -> RowCalls[Floats]:
    """A question about the rows of an array, which may lie in a file larger than the memory.

    Raises:
        ValueError: the rows are no table of numbers.
    """
    array = rows_of(rows)
    width = max(1, array.shape[1] * array.dtype.itemsize)
    return RowCalls(
        ref,
        question,
        count=len(array),
        step=rows_per_request or max(1, _REQUEST_BYTES // width),
        space=space,
        body=lambda part: npy_body(array[part]),
        media_type=NPY,
        read=array_of,
    )


def ask_table(
    question: Question, ref: str, table: "pa.Table", *, space: Space
) -> "RowCalls[pa.Table]":
    """A question about the rows of an Arrow table, whose columns are matched by name."""
    return RowCalls(
        ref,
        question,
        count=table.num_rows,
        step=max(1, _REQUEST_BYTES // (8 * max(1, table.num_columns))),
        space=space,
        body=lambda part: table_body(table.slice(part.start, part.stop - part.start)),
        media_type=ARROW,
        read=table_of,
    )


def ask_file(
    question: Question, ref: str, path: Path, *, media_type: str, space: Space
) -> Call[None]:
    """A question about the rows of a file, answered as a stream.

    Args:
        question: what is asked.
        ref: the model.
        path: of the file, whose name tells its format.
        media_type: of the answer.
        space: of the data side.

    Raises:
        FileFormatError: the name tells no format.
        OSError: there is no such file.
    """
    return Call(
        "POST",
        f"{_path(ref)}/{question}",
        nothing,
        params=_space(question, space),
        headers={"Accept": media_type},
        body=file_body(path),
        read_timeout_s=LONG_S,
    )


@dataclass(frozen=True)
class Drawing:
    """What samples are wanted.

    Args:
        n: how many.
        seed: the same seed gives the same rows; None: the service picks one.
        context: of a conditional model.
        space: of the rows.
    """

    n: int
    seed: int | None
    context: Context
    space: Space

    def call(self, ref: str, media_type: str, parse: Callable[[Answer], _Piece]) -> Call[_Piece]:
        """The request to a model, answered in a format."""
        body: dict[str, object] = {"n": self.n, "seed": self.seed}
        if self.context is not None:
            body["context"] = context_rows(self.context)
        return Call(
            "POST",
            f"{_path(ref)}/sample",
            parse,
            params={"space": self.space},
            headers={"Accept": media_type},
            body=json_body(body),
        )

    def array(self, ref: str) -> Call[Floats]:
        """Answered with one array."""
        return self.call(ref, NPY, lambda answer: array_of(answer.content))

    def table(self, ref: str) -> "Call[pa.Table]":
        """Answered with one Arrow table."""
        return self.call(ref, ARROW, lambda answer: table_of(answer.content))


def transformed(values: Floats) -> Transformed:
    """Rows and log determinants as they stand beside each other in an answer."""
    return Transformed(values[:, :-1], values[:, -1])


def scored(values: Floats) -> Scores:
    """Log densities and quantiles as they stand beside each other in an answer."""
    return Scores(values[:, 0], values[:, 1])


def context_rows(context: Context) -> object:
    """A context as the API takes it: an object, or a list of rows."""
    if isinstance(context, Mapping):
        return dict(context)
    if isinstance(context, Sequence) and context and isinstance(context[0], Mapping):
        return list(context)
    array: Any = np.atleast_1d(np.asarray(context, dtype=np.float64))
    if array.ndim > 2:
        raise ValueError(f"a context has rows of numbers; this one is {array.ndim}-D")
    return np.atleast_2d(array).tolist()


def _space(question: Question, space: Space) -> dict[str, str | int | None]:
    return {} if question == "score" else {"space": space}  # ranks belong to the data's own units


def _path(ref: str) -> str:
    return f"/v1/models/{quote(ref, safe=':@')}"
