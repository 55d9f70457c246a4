"""Lists of numbers in a JSON document, read a slice at a time."""

import functools
import logging
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from types import ModuleType

import numpy as np
import orjson
from numpy.typing import NDArray

log = logging.getLogger(__name__)

_SLICE_VALUES = 32_768  # take half a millisecond
_SLICE_BYTES = 64 << 10  # so do these without compiled loops
_SPACES = re.compile(rb"[ \t\r\n]+")
_HEAD = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"rows"[ \t\r\n]*:[ \t\r\n]*\[')
_TAIL = re.compile(rb"\][ \t\r\n]*\}[ \t\r\n]*")


@functools.cache
def load_loops() -> ModuleType | None:
    """Return the compiled loops, or None, after a log message, if numba cannot provide them."""
    try:
        from tables.readers import number_loops  # noqa: PLC0415  importing it compiles
    except Exception as error:  # noqa: BLE001  numba raises many kinds; orjson does the same work
        log.warning("orjson reads numbers in the place of numba's loops: %r", error)
        return None
    return number_loops


def number_rows(text: bytes, *, width: int) -> Iterator[NDArray[np.float64] | None]:
    """Yield the rows of ``{"rows": [[...], ...]}`` some at a time, if they are lists of numbers.

    No slice takes long, so that an event loop can do this. What may be wrong, or needs a closer
    look, is not judged here.

    Args:
        text: A JSON document.
        width: Number of values of a row.

    Yields:
        Arrays of shape (rows, width), for `joined`; None, and then no more, where the document is not
        just that.
    """
    head, tail = _HEAD.match(text), _TAIL.fullmatch(text, max(text.rfind(b"]"), 0))
    if head is None or tail is None:
        yield None
        return
    at, end = head.end(), tail.start()
    loops, numbers = load_loops(), np.frombuffer(text, np.uint8)
    rows = np.count_nonzero(numbers[at:end] == ord("]"))
    if loops is not None and 0 < 2 * width * rows <= end - at:  # a value takes two bytes or more
        whole = np.empty((rows, width))
        size, done = max(_SLICE_VALUES // width, 1), 0
        while done < rows:
            values = whole[done : done + size]
            count, after = loops.read_rows(numbers, at, end, width, values.reshape(-1))
            if count < 0:
                break
            yield values[: count // width]
            done, at = done + count // width, after
        if at == end:
            return
    yield from _left_to_orjson(text, at, end, width)


def joined(slices: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return all rows of a document, from slices as `number_rows` yields them."""
    whole, count = slices[0].base, sum(map(len, slices))
    are_its_parts = whole is not None and all(rows.base is whole for rows in slices)
    if whole is not None and are_its_parts and whole.shape == (count, slices[0].shape[1]):
        return whole
    return np.concatenate(slices)


def _left_to_orjson(
    text: bytes, start: int, end: int, width: int
) -> Iterator[NDArray[np.float64] | None]:
    """Yield the rows from `start` on, which have numbers of many digits, or none at all."""
    if not _holds_numbers_alone(text):
        yield None
        return
    while True:
        bracket = text.find(b"]", min(start + _SLICE_BYTES, end), end)
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


def _holds_numbers_alone(text: bytes) -> bool:
    """Return whether a document can have but one key, and numbers and lists.

    Two quotation marks are one key, so there is no second key, no string and no named column;
    without the letters t and l there is no true, false or null.
    """
    return text.count(b'"') == 2 and b"t" not in text and b"l" not in text


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
