"""Rows on the wire: JSON and npy bodies to arrays, and arrays to the members of an answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from app.json_body import parse_json
from app.negotiation import RowFormat
from app.npy import decode_npy
from app.problems import FieldError, Problem

Floats = NDArray[np.float32] | NDArray[np.float64]

_ROWS = "rows"
_MAX_ERRORS = 20
_MAX_NAME = 128
_JSON_TYPES = {str: "a string", bool: "a boolean", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class RowsShape:
    """What rows must look like.

    Args:
        columns: names of the columns, in the order of the model.
        max_rows: the largest batch.
        named: whether JSON rows may be objects keyed by column.
    """

    columns: Sequence[str]
    max_rows: int
    named: bool = True

    @property
    def dim(self) -> int:
        """Values a row."""
        return len(self.columns)

    def check_count(self, count: int) -> None:
        """Refuse an empty batch, and one of more rows than a request may have.

        Raises:
            Problem: `batch-empty` or `limit-rows`.
        """
        if count == 0:
            raise Problem("batch-empty", "There are no rows; send at least one.")
        if count > self.max_rows:
            raise Problem(
                "limit-rows",
                f"There are {count} rows; one request may have {self.max_rows}.",
                members={"limit": self.max_rows, "got": count},
            )

    def check_width(self, width: int) -> None:
        """Refuse rows of another width than the model's.

        Raises:
            Problem: `dimension-mismatch`.
        """
        if width != self.dim:
            raise Problem(
                "dimension-mismatch",
                f"The rows have {width} values; the model has {self.dim} columns.",
                members={"expected": self.dim, "got": width},
            )


def decode_rows(body: bytes, row_format: RowFormat, shape: RowsShape) -> Floats:
    """The rows of a request body, as an array of shape (rows, columns).

    Raises:
        Problem: saying what is wrong, and where.
    """
    if row_format is RowFormat.NPY:
        return _from_npy(body, shape)
    rows = _plain_rows(body)
    if rows is not None:
        shape.check_count(len(rows))
        try:
            if set(map(len, rows)) == {shape.dim}:
                flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * shape.dim)
                return flat.reshape(len(rows), shape.dim)
        except (TypeError, ValueError):
            pass  # not rows of numbers: the careful way below says where
    return _from_document(parse_json(body), shape)


def _from_npy(body: bytes, shape: RowsShape) -> Floats:
    array = decode_npy(body)
    if array.ndim != 2:
        raise Problem(
            "batch-shape", f"The array has {array.ndim} dimensions; it must have 2: rows, columns."
        )
    shape.check_count(array.shape[0])
    shape.check_width(array.shape[1])
    single = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    # No copy for what is a float32 or float64 of this machine already.
    return np.asarray(array, np.float32) if single else np.asarray(array, np.float64)


def _plain_rows(body: bytes) -> list[Any] | None:
    """The value of `rows`, if the text alone rules out all that needs a closer look.

    Two quotation marks are one key, so there is no second key, no string and no named column;
    without the letters t and l there is no true, false or null, so every value is a number or
    a list.
    """
    if body.count(b'"') != 2 or b"t" in body or b"l" in body:
        return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    rows = document.get(_ROWS) if isinstance(document, dict) else None
    return rows if isinstance(rows, list) else None


def _from_document(document: object, shape: RowsShape) -> Floats:
    rows = _rows_member(document)
    shape.check_count(len(rows))
    if shape.named and isinstance(rows[0], dict):
        ordered = [_ordered(row, index, shape) for index, row in enumerate(rows)]
        return _numbers(ordered, keys=shape.columns)
    for index, row in enumerate(rows):
        if not isinstance(row, list):
            raise _misshapen(index, "is not a list of numbers")
        if len(row) != len(rows[0]):
            raise _misshapen(index, f"has {len(row)} values, row 0 has {len(rows[0])}")
    shape.check_width(len(rows[0]))
    return _numbers(rows, keys=range(shape.dim))


def _rows_member(document: object) -> list[Any]:
    if not isinstance(document, dict):
        raise Problem("batch-shape", "The body must be an object with the member `rows`.")
    unknown = [name for name in document if name != _ROWS]
    if unknown:
        errors = [
            FieldError("There is no such field.", pointer=pointer(name))
            for name in unknown[:_MAX_ERRORS]
        ]
        raise Problem("unknown-field", "The body may have the member `rows` alone.", errors=errors)
    rows = document.get(_ROWS)
    if not isinstance(rows, list):
        raise Problem("batch-shape", "The body must have the member `rows`, a list of rows.")
    return rows


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
                "missing": missing[:_MAX_ERRORS],
                "unknown": [_shown(name) for name in unknown[:_MAX_ERRORS]],
            },
        )
    return [row[name] for name in shape.columns]


def _misshapen(index: int, reason: str) -> Problem:
    return Problem(
        "batch-shape",
        f"Row {index} {reason}.",
        errors=[FieldError(f"The row {reason}.", pointer=pointer(_ROWS, index))],
    )


def _numbers(rows: list[list[Any]], *, keys: Sequence[str | int]) -> Floats:
    """The rows as an array; `keys` are what the caller names the values of a row by."""
    errors: list[FieldError] = []
    for index, row in enumerate(rows):
        errors += [
            FieldError(f"Got {_json_type(value)}.", pointer=pointer(_ROWS, index, key))
            for key, value in zip(keys, row, strict=True)
            if type(value) is not float and type(value) is not int
        ]
        if len(errors) >= _MAX_ERRORS:
            break
    if errors:
        raise Problem("batch-value", "Every value must be a number.", errors=errors[:_MAX_ERRORS])
    try:
        array = np.array(rows, dtype=np.float64)
    except OverflowError:
        array = None
    if array is None or not np.isfinite(array).all():
        raise Problem("value-nonfinite", "A number is too large for a 64-bit float.")
    return array


def _json_type(value: object) -> str:
    return _JSON_TYPES.get(type(value), "null")


def pointer(*path: str | int) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + _shown(part).replace("~", "~0").replace("/", "~1") for part in path)


def _shown(name: str | int) -> str:
    """A caller's name, short and encodable: it may be megabytes long or half a surrogate pair."""
    return str(name)[:_MAX_NAME].encode(errors="replace").decode()


def row_errors(rows: Floats, *results: Floats) -> list[dict[str, Any]]:
    """Why rows have null in an answer: one entry a row whose results are not all finite.

    Args:
        rows: what the caller sent.
        results: what was computed, one entry or one row for each of `rows`.
    """
    finite = np.ones(len(rows), dtype=np.bool_)
    for result in results:
        finite &= np.isfinite(result.reshape(len(rows), -1)).all(axis=1)
    return [_row_error(int(index), rows[index]) for index in np.flatnonzero(~finite)]


def _row_error(index: int, row: Floats) -> dict[str, Any]:
    if not np.isfinite(row).all():
        return {
            "row": index,
            "code": "non_finite_input",
            "detail": "The row holds NaN or an infinity.",
        }
    return {
        "row": index,
        "code": "non_finite",
        "detail": "The result is not finite: the row is too far from the data of the model.",
    }
