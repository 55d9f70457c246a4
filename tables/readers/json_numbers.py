"""Lists of numbers in a JSON document, read a slice at a time."""

import re
from collections.abc import Iterator
from itertools import chain

import numpy as np
import orjson
from numpy.typing import NDArray

_SLICE_BYTES = 64 << 10  # so much takes less than a millisecond
_SPACES = re.compile(rb"[ \t\r\n]+")
_HEAD = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"rows"[ \t\r\n]*:[ \t\r\n]*\[')
_TAIL = re.compile(rb"\][ \t\r\n]*\}[ \t\r\n]*")


def number_rows(text: bytes, *, width: int) -> Iterator[NDArray[np.float64] | None]:
    """Yield the rows of ``{"rows": [[...], ...]}`` some at a time, if they are lists of numbers.

    No slice keeps the interpreter's lock for long, so that an event loop can do this. What may be
    wrong, or needs a closer look, is not judged here.

    Args:
        text: A JSON document.
        width: Number of values of a row.

    Yields:
        Arrays of shape (rows, width); None, and then no more, where the document is not just that.
    """
    head, tail = _HEAD.match(text), _TAIL.fullmatch(text, max(text.rfind(b"]"), 0))
    if head is None or tail is None or not _holds_numbers_alone(text):
        yield None
        return
    start, end = head.end(), tail.start()
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
