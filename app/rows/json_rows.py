"""Rows of a JSON body, as an array."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from app.http.json_body import parse_json
from app.problems.fields import MAX_ERRORS, field_error, shown_names
from app.problems.problem import Problem
from app.rows.body import Incoming, in_thread_if_large
from app.rows.shape import Floats, RowsShape

_ROWS, _COLUMNS = "rows", "columns"
_SPACE = b" \t\r\n"
_HEAD = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"rows"[ \t\r\n]*:[ \t\r\n]*\[')
_TAIL = re.compile(rb"\][ \t\r\n]*\}[ \t\r\n]*")
_SLICE_BYTES = 64 * 1024  # so much takes less than a millisecond
_JSON_TYPES = {str: "a string", bool: "a boolean", list: "a list", dict: "an object"}


async def read_json(incoming: Incoming) -> AsyncGenerator[Floats, None]:
    """The rows of a JSON body.

    Raises:
        Problem: saying what is wrong, and where.
    """
    body = await incoming.whole()
    rows = await _decode_in_turns(body, incoming.shape)
    if rows is None:
        rows = await in_thread_if_large(decode_json, body, incoming.shape)
    yield rows


async def _decode_in_turns(body: bytes, shape: RowsShape) -> Floats | None:
    """The rows of a large document, a slice in each turn of the event loop.

    A thread would hold the interpreter's lock for as long as all of it takes, and the event loop
    would wait for that lock many times over.

    Returns:
        None for all that needs a closer look, wrong documents among them.
    """
    found: list[NDArray[np.float64]] = []
    count = 0
    for rows in _sliced_rows(body, shape):
        if rows is None or (count := count + len(rows)) > shape.max_rows:
            return None
        found.append(rows)
        await asyncio.sleep(0)
    return np.concatenate(found) if found else None


def _sliced_rows(body: bytes, shape: RowsShape) -> Iterator[NDArray[np.float64] | None]:
    """The rows of `{"rows": [[...], ...]}`, some at a time; None once it is not just that."""
    head, tail = _HEAD.match(body), _TAIL.fullmatch(body, max(body.rfind(b"]"), 0))
    if head is None or tail is None or not _holds_numbers_alone(body):
        return
    start, end = head.end(), tail.start()
    while True:
        bracket = body.find(b"]", min(start + _SLICE_BYTES, end), end)
        stop = end if bracket < 0 else bracket + 1
        yield _matrix(b"[%b]" % body[start:stop], shape)
        start = _skip_space(body, stop)
        if start >= end:
            return
        if body[start : start + 1] != b",":
            yield None
        start += 1


def _skip_space(body: bytes, start: int) -> int:
    while body[start : start + 1] in _SPACE:
        start += 1
    return start


def _matrix(text: bytes, shape: RowsShape) -> NDArray[np.float64] | None:
    try:
        rows = orjson.loads(text)
        return _flat(rows, shape) if rows else None
    except (orjson.JSONDecodeError, TypeError, ValueError):
        return None


def _flat(rows: list[Any], shape: RowsShape) -> NDArray[np.float64] | None:
    """Rows of numbers as an array; None if one has another width.

    Raises:
        TypeError, ValueError: they are not rows of numbers.
    """
    if set(map(len, rows)) != {shape.width}:
        return None
    flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * shape.width)
    return flat.reshape(len(rows), shape.width)


def decode_json(body: bytes, shape: RowsShape) -> Floats:
    """The rows of a JSON document, as an array of shape (rows, columns); null is not-a-number.

    Raises:
        Problem: saying what is wrong, and where.
    """
    rows = _plain_rows(body)
    if rows is not None:
        shape.check_count(len(rows))
        try:
            if (flat := _flat(rows, shape)) is not None:
                return flat
        except (TypeError, ValueError):
            pass  # not rows of numbers: the careful way below says where
    return _from_document(parse_json(body), shape)


def _plain_rows(body: bytes) -> list[Any] | None:
    """The value of `rows`, if the text alone rules out all that needs a closer look."""
    if not _holds_numbers_alone(body):
        return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    rows = document.get(_ROWS) if isinstance(document, dict) else None
    return rows if isinstance(rows, list) else None


def _holds_numbers_alone(body: bytes) -> bool:
    """Whether a document can have but one key, and numbers and lists.

    Two quotation marks are one key, so there is no second key, no string and no named column;
    without the letters t and l there is no true, false or null.
    """
    return body.count(b'"') == 2 and b"t" not in body and b"l" not in body


def _from_document(document: object, shape: RowsShape) -> Floats:
    rows, columns = _members(document)
    shape.check_count(len(rows))
    if isinstance(rows[0], dict):
        if columns is not None:
            raise Problem("batch-shape", "`columns` names the values of rows that are lists.")
        ordered = [_ordered(row, index, shape) for index, row in enumerate(rows)]
        return _numbers(ordered, keys=shape.columns)
    for index, row in enumerate(rows):
        if not isinstance(row, list):
            raise _misshapen(index, "is not a list of numbers")
        if len(row) != len(rows[0]):
            raise _misshapen(index, f"has {len(row)} values, row 0 has {len(rows[0])}")
    order = None if columns is None else shape.order_of(columns)
    shape.check_width(len(rows[0]))
    numbers = _numbers(rows, keys=range(shape.width))
    return numbers if order is None else numbers[:, order]


def _members(document: object) -> tuple[list[Any], list[str] | None]:
    if not isinstance(document, dict):
        raise Problem("batch-shape", "The body must be an object with the member `rows`.")
    unknown = [name for name in document if name not in (_ROWS, _COLUMNS)]
    if unknown:
        errors = [field_error("There is no such field.", name) for name in unknown[:MAX_ERRORS]]
        raise Problem(
            "unknown-field", "The body may have the members `rows` and `columns`.", errors=errors
        )
    rows, columns = document.get(_ROWS), document.get(_COLUMNS)
    if not isinstance(rows, list):
        raise Problem("batch-shape", "The body must have the member `rows`, a list of rows.")
    if columns is not None and not _is_list_of_names(columns):
        error = field_error("It must be a list of names.", _COLUMNS)
        raise Problem("batch-shape", "`columns` is not a list of names.", errors=[error])
    return rows, columns


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _ordered(row: object, index: int, shape: RowsShape) -> list[Any]:
    if not isinstance(row, dict):
        raise _misshapen(index, "is not an object keyed by column, as row 0 is")
    if row.keys() != set(shape.columns):
        missing = [name for name in shape.columns if name not in row]
        unknown = [name for name in row if name not in shape.columns]
        raise Problem(
            "columns-mismatch",
            f"Row {index} lacks {len(missing)} columns of the model and has {len(unknown)} others.",
            members={
                "row": index,
                "missing": missing[:MAX_ERRORS],
                "unknown": shown_names(unknown),
            },
        )
    return [row[name] for name in shape.columns]


def _misshapen(index: int, reason: str) -> Problem:
    error = field_error(f"The row {reason}.", _ROWS, index)
    return Problem("batch-shape", f"Row {index} {reason}.", errors=[error])


def _numbers(rows: list[list[Any]], *, keys: Sequence[str | int]) -> Floats:
    """The rows as an array; `keys` are what the caller names the values of a row by."""
    errors = []
    for index, row in enumerate(rows):
        errors += [
            field_error(f"Got {_JSON_TYPES[type(value)]}.", _ROWS, index, key)
            for key, value in zip(keys, row, strict=True)
            if type(value) in _JSON_TYPES
        ]
        if len(errors) >= MAX_ERRORS:
            break
    if errors:
        raise Problem("batch-value", "Every value must be a number.", errors=errors[:MAX_ERRORS])
    try:
        array = np.array(rows, dtype=np.float64)
    except OverflowError:
        array = None
    if array is None or np.isinf(array).any():
        raise Problem("value-nonfinite", "A number is too large for a 64-bit float.")
    return array
