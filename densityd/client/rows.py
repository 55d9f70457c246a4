"""Calls of a model about rows: from arrays, frames and files, in requests of bounded size."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypeAlias, TypedDict, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from densityd.client.call import LONG_S, Body, Call, Response, encode_json
from densityd.client.errors import RowsWarning
from densityd.client.wire.arrays import check_rows, encode_array, encode_table
from densityd.client.wire.files import read_file
from densityd.client.wire.frames import Rows, to_table
from densityd.client.wire.parts import cut_file

Operation = Literal["log_prob", "score", "evidence", "inverse", "forward", "impute", "expect"]
Space = Literal["data", "model"]
"""Space of rows: the units of the data, or those of the flow after preprocessing."""

Extra = Literal["error", "ignore"]
"""Treatment of columns that the model does not have."""


class SpaceOption(TypedDict, total=False):
    """Option of calls about rows: `space` is that of the rows, `"data"` if it is left out."""

    space: Space


class ExtraOption(TypedDict, total=False):
    """Option of calls about rows: `extra` says what becomes of columns that the model does not have."""

    extra: Extra | None


class RowOptions(SpaceOption, ExtraOption, total=False):
    """Options of calls about rows."""


class LogProbOptions(RowOptions, total=False):
    """Options of `log_prob`: with `columns` or `given`, of the density of these columns given those."""

    columns: Sequence[str]
    given: Sequence[str]


class ImputeOptions(TypedDict, total=False):
    """Options of `impute`.

    `given` names the columns that the rows have, by default all. A gap gets the `mean` or the `median` of a
    number and the likeliest category, or a `draw` of all gaps of a row together. `level` adds the ends of
    intervals of this probability as columns `low.NAME` and `high.NAME`.
    """

    given: Sequence[str]
    fill: Literal["mean", "median", "draw"]
    level: float
    seed: int


class ExpectOptions(TypedDict, total=False):
    """Options of `expect`.

    `given` names the columns that are known, by default all others; `quantiles` the shares of quantiles of a
    column of numbers; `low` and `high` bounds, between which it lies with the `probability` of the result.
    """

    given: Sequence[str]
    quantiles: Sequence[float]
    low: float
    high: float


Given = Mapping[str, object] | None
"""Known cells by column, each a value, `{"in": [values]}` or `{"between": [low, high]}`."""


class EvidenceOptions(ExtraOption, total=False):
    """Options of `evidence`: samples of the posterior of each row, 100 by default, and their seed, 0 by default."""

    samples: int
    seed: int


Target: TypeAlias = Path | BinaryIO
"""File of a result: the suffix of a path is its format, an open file gets CSV. A path has all or none."""

Context = ArrayLike | Mapping[str, object] | Sequence[Mapping[str, object]] | None
"""Context of a conditional model: one row for all samples or one for each."""

_REQUEST_BYTES = 2 << 20  # few enough for a slow flow to respond before the timeout
_UNSEEN = re.compile(r'([0-9]+)(?:;rows="([0-9 ]*)")?')
_NAMED_ROWS = 20
_Chunk = TypeVar("_Chunk")


@dataclass(frozen=True)
class RowQuery(Generic[_Chunk]):
    """A request about rows, without the rows.

    Args:
        ref: `name`, `name@alias` or `name:version`.
        params: Parameters of the query; those that are None are left out.
        read: Makes the result from the content of a response.
    """

    operation: Operation
    ref: str
    params: Mapping[str, Any]
    media_type: str
    read: Callable[[bytes], _Chunk]


@dataclass
class RowCalls(Generic[_Chunk]):
    """One request about many rows: calls of bounded size, to be sent in order.

    All go to the version that responded to the first, even if an alias moves meanwhile.

    Args:
        query: Request without the rows.
        rows: Frame, list of records, or array, which may be memory-mapped; or the path of a file.
        most: Most rows of a call; None for about two megabytes, and half a million rows of a file.
        start: Number of the rows before the next call, which whoever sends the calls counts.

    Raises:
        ValueError: The rows are no table.
        OSError: There is no such file.
    """

    query: RowQuery[_Chunk]
    rows: Rows | Path
    most: int | None = None
    start: int = 0
    _unseen: int = 0
    _unseen_rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ref = self.query.ref

    def __iter__(self) -> Iterator[Call[_Chunk]]:
        """Yield the calls; each must have been parsed before the next is taken."""
        for body in _bodies(self.rows, self.most):
            yield Call(
                "POST",
                _path(self._ref, self.query.operation),
                self._parse,
                params=self.query.params,
                headers={"Accept": self.query.media_type},
                body=body,
                read_timeout_s=LONG_S if isinstance(self.rows, Path) else None,
            )

    @property
    def warnings(self) -> list[str]:
        """Sentences about all rows so far."""
        return unseen_levels(self._unseen, self._unseen_rows)

    def _parse(self, response: Response) -> _Chunk:
        self._ref = response.headers.get("x-model", self._ref)
        count, rows = _read_unseen(response.headers)
        self._unseen += count
        self._unseen_rows += [self.start + row for row in rows]
        return self.query.read(response.content)


def tell(sentences: Sequence[str]) -> None:
    """Warn of what the service says about rows, once a sentence."""
    for sentence in sentences:
        warnings.warn(sentence, RowsWarning, stacklevel=3)


def unseen_levels(count: int, rows: Sequence[int]) -> list[str]:
    """Return a sentence about cells of which training never saw the level; none if there are none."""
    if not count:
        return []
    cells = "1 cell has" if count == 1 else f"{count} cells have"
    first = ", ".join(map(str, rows[:_NAMED_ROWS]))
    place = f", first in rows {first}" if rows else ""
    return [f"{cells} a level that training never saw{place}: such a row is unlikely."]


def sample_call(  # noqa: PLR0913 - those of a sampling
    ref: str,
    n: int,
    media_type: str,
    read: Callable[[bytes], _Chunk],
    *,
    seed: int | None,
    context: Context,
    given: Given,
    space: Space,
) -> Call[_Chunk]:
    """Return the call that draws rows."""
    body: dict[str, object] = {"n": n, "seed": seed}
    if context is not None:
        body["context"] = encode_context(context)
    if given is not None:
        body["given"] = dict(given)
    return Call(
        "POST",
        _path(ref, "sample"),
        lambda response: read(response.content),
        params={"space": space},
        headers={"Accept": media_type},
        body=encode_json(body),
    )


def encode_rows(rows: Rows | Path) -> Body:
    """Return rows as the body of one request: a file as it is, columns with names as Arrow, else npy.

    Raises:
        ValueError: The rows are no table.
        FileFormatError: The suffix of the file's name is of no known format.
        OSError: There is no such file.
    """
    if isinstance(rows, Path):
        return read_file(rows)
    table = to_table(rows)
    return encode_array(check_rows(rows)) if table is None else encode_table(table)


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


def _bodies(rows: Rows | Path, most: int | None) -> Iterator[Body]:
    if isinstance(rows, Path):
        yield from cut_file(rows, most)
        return
    table: Any = to_table(rows)
    whole = check_rows(rows) if table is None else table
    count = len(whole)
    step = most or max(1, _REQUEST_BYTES * count // max(1, whole.nbytes))
    # An empty table is sent too, for the service's error.
    for start in range(0, max(1, count), step):
        if table is None:
            yield encode_array(whole[start : start + step])
        else:
            yield encode_table(table.slice(start, step))


def _read_unseen(headers: Mapping[str, str]) -> tuple[int, list[int]]:
    found = _UNSEEN.fullmatch(headers.get("x-row-warnings", ""))
    return (
        (0, [])
        if found is None
        else (int(found[1]), [int(row) for row in (found[2] or "").split()])
    )


def _path(ref: str, operation: str) -> str:
    return f"/v1/models/{quote(ref, safe=':@')}/{operation}"
