"""Rows of numbers in JSON, NDJSON and CSV, read a slice at a time."""

import functools
import logging
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from types import ModuleType

import numpy as np
import orjson
from numpy.typing import NDArray

from tabular.source import look_numeric

log = logging.getLogger(__name__)

_SLICE_VALUES = 32_768  # take half a millisecond
_SLICE_BYTES = 64 << 10  # of a slice that no compiled loop reads
_NUMBER_BYTES = 64  # most of a number, on average of a row, of which such a slice has one more
_COUNTED_BYTES = 64 << 10  # compared at once, so that the mask stays in the cache
_LONGEST_BLANK, _LONGEST_ROW = 64, 64 << 10
_COMMA, _LINE_END = b",\n"
_BLANKS = b" \t\r\n"
_MARK = b"\xef\xbb\xbf"
_LONGEST_HEADER = 64 << 10
_NAME = re.compile(r"""[^\W\d][^,;|"'#\t\r]*""")  # which is neither a value nor holds a separator
_SPACES = re.compile(rb"[ \t\r\n]+")
# Blanks are never given back: there may be megabytes of them.
_HEAD = re.compile(rb'[ \t\r\n]*+(\{[ \t\r\n]*+"rows"[ \t\r\n]*+:[ \t\r\n]*+)?\[')
_TAIL = re.compile(rb"\][ \t\r\n]*+(\}[ \t\r\n]*+)?")


@functools.cache
def load_loops() -> ModuleType | None:
    """Return the compiled loops, or None, after a log message, if numba cannot provide them."""
    try:
        # One file, long as it is: numba's cache notices changes of the file of a loop alone.
        from tabular.readers import number_loops  # noqa: PLC0415  importing it compiles
    except Exception as error:  # noqa: BLE001  numba raises many kinds; orjson does the same work
        log.warning("orjson reads numbers in the place of numba's loops: %r", error)
        return None
    return number_loops


def number_rows(text: bytes, columns: Sequence[str]) -> Iterator[NDArray[np.float64] | None]:
    """Yield the rows of ``{"rows": [...]}`` or ``[...]``, if they are lists or objects of numbers.

    No slice takes long, so that an event loop can do this. What may be wrong, or needs a closer
    look, is not judged here.

    Args:
        text: A JSON document.
        columns: Names of the columns, which are the keys of rows that are objects.

    Yields:
        Arrays of shape (rows, columns), with not-a-number for null; None, and then no
        more, where the document is not just that.
    """
    head, tail = _HEAD.match(text), _TAIL.fullmatch(text, max(text.rfind(b"]"), 0))
    if head is None or tail is None or bool(head[1]) != bool(tail[1]):
        yield None
        return
    start, end = head.end(), tail.start()
    form = _Form.of(text, start, columns)
    at = yield from form.read(text, start, end, between=_COMMA)
    if at == end > start:
        return
    if form.keys:
        yield None
    else:
        yield from _left_to_orjson(text, at, end, len(columns), quotes=2 if head[1] else 0)


def number_lines(text: bytes, columns: Sequence[str]) -> Iterator[NDArray[np.float64] | None]:
    """Yield the rows of NDJSON, as `number_rows` does those of a document."""
    end = len(text.rstrip(_BLANKS))
    form = _Form.of(text, 0, columns)
    if text[end - 1 : end] != form.close:  # which no loop passes
        yield None
        return
    count = 0
    rows = form.read(text, 0, end, between=_LINE_END)
    while (values := next(rows, None)) is not None:
        count += len(values)
        yield values
    if count == 0 or count != 1 + text.count(b"\n", 0, end):  # a row of two lines, or none on one
        yield None


def csv_rows(text: bytes, columns: Sequence[str]) -> Iterator[NDArray[np.float64] | None]:
    """Yield the rows of CSV some at a time, if they are numbers below the names of the columns.

    No slice takes long. What may be wrong, or is written in another way, is not judged here.

    Args:
        text: Text of CSV.
        columns: Names of the columns, which the header may have in any order.

    Yields:
        Arrays of shape (rows, columns); None, and then no more, where the text is not
        just that.
    """
    loops, (names, start), width = load_loops(), _header(text), len(columns)
    rows = text.count(b"\n", start)
    # A single column has no separators, which says how the others are meant.
    if loops is None or sorted(names) != sorted(columns) or width < 2 or start == len(text):
        yield None
        return
    if not text.endswith(b"\n"):  # which no loop passes
        text, rows = text + b"\n", rows + 1
    end, numbers = len(text), np.frombuffer(text, np.uint8)
    if 2 * width * rows > end - start:  # a value takes two bytes or more
        yield None
        return
    order = None if names == list(columns) else [names.index(name) for name in columns]
    whole = np.empty((rows, width))
    size = max(_SLICE_VALUES // width, 1)
    for done in range(0, rows, size):
        values = whole[done : done + size]
        count, start = loops.read_lines(numbers, start, end, width, values.reshape(-1))
        if count != values.size:
            yield None
            return
        yield values if order is None else values[:, order]


@dataclass(frozen=True)
class _Form:
    """Form of the rows of a document.

    Args:
        width: Number of values of a row; 0 for rows of another form, which are not read.
        keys: Quoted keys of rows that are objects, in the order of the rows; none where they are lists.
        order: Places of the columns among the keys; None where they are the same.
    """

    width: int
    keys: Sequence[bytes] = ()
    order: Sequence[int] | None = None

    @classmethod
    def of(cls, text: bytes, start: int, columns: Sequence[str]) -> "_Form":
        """Return the form of the row that begins at a place of a text."""
        first = text.find(b"{", start, start + _LONGEST_BLANK)
        if first < 0 or text[start:first].strip(_BLANKS):
            return cls(len(columns))
        stop = text.find(b"}", first, first + _LONGEST_ROW) + 1
        try:
            names = list(orjson.loads(text[first:stop]))
        except orjson.JSONDecodeError:
            names = []
        if set(names) != set(columns):
            return cls(0)
        order = None if names == list(columns) else [names.index(name) for name in columns]
        return cls(len(columns), [orjson.dumps(name) for name in names], order)

    @property
    def close(self) -> bytes:
        """Last byte of a row."""
        return b"}" if self.keys else b"]"

    def read(
        self, text: bytes, at: int, end: int, *, between: int
    ) -> Generator[NDArray[np.float64], None, int]:
        """Yield rows as long as they have this form; return where they end."""
        loops, numbers, width = load_loops(), np.frombuffer(text, np.uint8), self.width
        if loops is None or width == 0:
            return at
        rows = _count(numbers[at:end], self.close[0]) + (between == _LINE_END)
        if not 0 < 2 * width * rows <= end - at + 1:  # a value takes two bytes or more
            return at
        keys = np.frombuffer(b"".join(self.keys), np.uint8)
        places = np.cumsum([0, *map(len, self.keys)]) if self.keys else np.empty(0, np.int64)
        whole = np.empty((rows, width))
        size, done = max(_SLICE_VALUES // width, 1), 0
        while done < rows and at < end:
            values = whole[done : done + size]
            count, after = loops.read_rows(
                numbers, at, end, width, keys, places, between, values.reshape(-1)
            )
            if count < 0:
                return at
            read = values[: count // width]
            yield read if self.order is None else read[:, self.order]
            done, at = done + count // width, after
        return at


def _count(text: NDArray[np.uint8], byte: int) -> int:
    """Return how often a byte occurs, without an array of the size of the text."""
    starts = range(0, len(text), _COUNTED_BYTES)
    return sum(int(np.count_nonzero(text[at : at + _COUNTED_BYTES] == byte)) for at in starts)


def _left_to_orjson(
    text: bytes, start: int, end: int, width: int, *, quotes: int
) -> Iterator[NDArray[np.float64] | None]:
    """Yield the rows from `start` on, which have numbers of many digits, or none at all."""
    if not _holds_numbers_alone(text, quotes):
        yield None
        return
    while True:
        least, most = start + _SLICE_BYTES, start + _SLICE_BYTES + width * _NUMBER_BYTES
        bracket = text.find(b"]", min(least, end), min(most, end))
        if bracket < 0 and most < end:  # no row is that long
            yield None
            return
        stop = end if bracket < 0 else bracket + 1
        rows = _matrix(b"[%b]" % text[start:stop], width)
        yield rows
        spaces = _SPACES.match(text, stop)
        start = stop if spaces is None else spaces.end()
        if rows is None or start >= end:
            return
        if text[start : start + 1] != b",":
            yield None
            return
        start += 1


def _holds_numbers_alone(text: bytes, quotes: int) -> bool:
    """Return whether a document can have but one key or none, and numbers and lists.

    Two quotation marks are one key, so there is no second key, no string and no named column;
    without the letters t and l there is no true, false or null.
    """
    return text.count(b'"') == quotes and b"t" not in text and b"l" not in text


def _matrix(text: bytes, width: int) -> NDArray[np.float64] | None:
    """Return a list of rows as an array; None if it is not one of rows of numbers."""
    try:
        rows = orjson.loads(text)
        if set(map(len, rows)) != {width}:
            return None
        flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width)
    except (orjson.JSONDecodeError, TypeError, ValueError):
        return None
    return flat.reshape(len(rows), width)


def _header(text: bytes) -> tuple[list[str], int]:
    """Return the names in the first line, which are none of a kind to look at, and where it ends."""
    start = len(_MARK) if text.startswith(_MARK) else 0
    end = text.find(b"\n", start, start + _LONGEST_HEADER)
    try:
        names = text[start : max(end, 0)].rstrip(b"\r").decode().split(",")
    except UnicodeDecodeError:
        names = []
    are_plain = all(map(_NAME.fullmatch, names)) and not look_numeric(names)
    return (names if are_plain else []), end + 1
