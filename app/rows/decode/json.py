"""Rows of JSON documents and of NDJSON."""

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.http.json_body import parse_json
from app.limits import in_thread
from app.problems.fields import MAX_ERRORS, field_error, named, shown_names
from app.problems.problem import Problem
from app.rows.body import INLINE_BYTES, Decoded, RowsBody
from app.rows.cell_codes import SlowRowsError
from app.rows.decode.problems import as_problem
from app.rows.shape import LEAVE_OUT, Floats, RowsShape
from tabular.errors import COUNTING, TableError
from tabular.readers.json import (
    COLUMNS,
    ROWS,
    cell_rows,
    number_lines,
    number_rows,
    numbers_of_rows,
    parsed_lines,
    split_document,
)
from tabular.typed_rows import encode_rows

SAMPLE_MEMBERS = ("model", "seed", "row_errors")
"""Members of a response of samples beside its rows, which are left out, so that it can be scored as it is."""

_SPARSE_VALUES = 2**20
"""Values of the rows of a document, of more than this only one for each byte."""

QUICK_COLUMNS = 64
"""Columns with types of rows that are decoded on the event loop, where no text of them is new."""

_FEW_LISTS = 1_000  # which parsers find faults in quickly


async def read_json(source: RowsBody) -> Decoded:
    """Return the rows of a JSON document; off the event loop where that takes long.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    shape, body = source.shape, source.content
    numbers = await _numbers(source, number_rows)
    if numbers is not None:
        return Decoded(numbers)
    is_narrow = shape.types is None or len(shape.types.columns) <= QUICK_COLUMNS
    if is_narrow and len(body) <= INLINE_BYTES:
        with suppress(SlowRowsError):
            return Decoded(decode_document(body, replace(shape, quick=True)))
    return Decoded(await in_thread(decode_document, body, shape))


async def read_ndjson(source: RowsBody) -> Decoded:
    """Return the rows of NDJSON.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    numbers = await _numbers(source, number_lines)
    if numbers is not None:
        return Decoded(numbers)
    return Decoded(await in_thread(decode_lines, source.content, source.shape))


async def _numbers(
    source: RowsBody, read: Callable[[bytes, int], NDArray[np.float64] | None]
) -> NDArray[np.float64] | None:
    """Return the rows of a body of lists of numbers alone; None for what must be looked at more closely."""
    shape, body = source.shape, source.content
    if not shape.are_numbers:
        return None
    if len(body) <= INLINE_BYTES:
        values = read(body, shape.width)
    else:
        values = await in_thread(read, body, shape.width)
    if values is not None:
        shape.check_count(len(values))
    return values


def decode_document(body: bytes, shape: RowsShape) -> Floats:
    """Return the rows of a JSON document of any form, null as not-a-number.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    # A row of n values takes 2n + 1 bytes or more, so that no table of this size has more lists.
    most = max(_FEW_LISTS, len(body) // (2 * shape.width + 1))
    document = parse_json(body, max_lists=most)
    if isinstance(document, dict):
        document = {name: value for name, value in document.items() if name not in SAMPLE_MEMBERS}
        _check_members(document)
    root = (ROWS,) if isinstance(document, dict) else ()
    with as_problem():
        rows, names = split_document(document)
    if isinstance(rows[0], dict) and names is not None:
        raise Problem("batch-shape", "`columns` names the values of rows that are lists.")
    reader = _Rows(rows[0], names, shape, size=len(body), root=root)
    values = reader.values(rows)
    reader.check_all()
    return values


def decode_lines(body: bytes, shape: RowsShape) -> Floats:
    """Return the rows of NDJSON, null as not-a-number.

    Raises:
        Problem: As `decode_document`.
    """
    parts: list[NDArray[np.float64]] = []
    reader: _Rows | None = None
    with as_problem():
        for rows in parsed_lines(io.BytesIO(body)):
            if rows:
                reader = reader or _Rows(rows[0], None, shape, size=len(body))
                parts.append(reader.values(rows))
    if reader is None:
        raise Problem("batch-empty", "There are no rows; send at least one.")
    reader.check_all()
    return np.concatenate(parts)


class _Rows:
    """Converter of parsed rows to numbers, some at a time.

    Args:
        first: First row, like which all are.
        names: Names of the values of rows that are lists, if the body gives them.
        shape: Shape that the rows must have.
        size: Bytes of the body.
        root: Place of the rows in the body.
    """

    def __init__(
        self,
        first: object,
        names: list[str] | None,
        shape: RowsShape,
        *,
        size: int,
        root: Sequence[str] = (),
    ) -> None:
        self._shape, self._size, self._root = shape, size, root
        self._count = 0
        self._keys = None if isinstance(first, list) else _Keys(shape)
        self._order: Sequence[int] | None = None
        if isinstance(first, list):
            names = shape.names_of(len(first)) if names is None else names
            self._order = None if names is None else shape.order_of(names)
            if not (names and shape.ignores_extra):
                shape.check_width(len(first))
        self._names = names or list(shape.columns)

    def values(self, rows: list[Any]) -> NDArray[np.float64]:
        """Return the next rows as numbers of the columns of the shape, in their order."""
        before, self._count = self._count, self._count + len(rows)
        shape = self._shape
        shape.check_count(self._count)
        if self._keys is not None and isinstance(rows[0], dict):
            self._keys.check(rows, before=before, size=self._size)
        listed = self._keys is None
        with as_problem(root=self._root, places=self._names if listed else ()):
            cells = cell_rows(rows, self._names, listed=listed, before=before)
            if self._order is not None:
                cells = [[row[place] for place in self._order] for row in cells]
            return _values(cells, shape, before=before)

    def check_all(self) -> None:
        """Refuse objects of which none has one of the columns."""
        if self._keys is not None:
            self._keys.check_all()


def _values(
    cells: Sequence[Sequence[Any]], shape: RowsShape, *, before: int
) -> NDArray[np.float64]:
    """Return rows of cells, in the order of the columns of a shape, as numbers."""
    if shape.types is None:
        return numbers_of_rows(cells, shape.columns, before=before)
    try:
        return shape.types.codes.rows(cells, quick=shape.quick)
    except TableError:
        if not before:
            raise
        return encode_rows(cells, shape.types.columns, before=before)


def _check_members(document: dict[str, Any]) -> None:
    unknown = [name for name in document if name not in (ROWS, COLUMNS)]
    if unknown:
        errors = [field_error("There is no such field.", name) for name in unknown[:MAX_ERRORS]]
        raise Problem(
            "unknown-field", "The body may have the members `rows` and `columns`.", errors=errors
        )


class _Keys:
    """Check of the members of objects: none but columns, and each column in some row; else it is a gap.

    Args:
        shape: Shape that the rows must have.
    """

    def __init__(self, shape: RowsShape) -> None:
        self._shape = shape
        self._known = set(shape.columns)
        self._found: set[str] = set()
        self._first: list[str] = []

    def check(self, rows: list[Any], *, before: int, size: int) -> None:
        """Refuse members that are no columns.

        Args:
            rows: Rows of a body.
            before: Number of rows before these.
            size: Bytes of the body.

        Raises:
            Problem: `columns-mismatch`, or `limit-rows` for rows that hold next to nothing: each value
                takes memory, also one that the row lacks.
        """
        shape = self._shape
        most = max(_SPARSE_VALUES, size) // max(shape.width, 1)
        if before + len(rows) > most:
            raise Problem(
                "limit-rows",
                f"There are more than {most} rows, most of whose members are left out. Send fewer at a time.",
                members={"limit": most, "got": before + len(rows)},
            )
        for index, row in enumerate(rows, before):
            if not isinstance(row, dict):
                continue
            self._first = self._first or list(row)
            self._found |= self._known & row.keys()
            if not (shape.ignores_extra or row.keys() <= self._known):
                unknown = [name for name in row if name not in self._known]
                raise _mismatch(index, [n for n in shape.columns if n not in row], unknown)

    def check_all(self) -> None:
        """Refuse columns that no row has."""
        missing = [name for name in self._shape.columns if name not in self._found]
        if missing:
            raise _mismatch(0, missing, [name for name in self._first if name not in self._known])


def _mismatch(row: int, missing: list[str], unknown: list[str]) -> Problem:
    return Problem(
        "columns-mismatch",
        f"The columns of row {row + 1} are not those of the model."
        f" {named({'Missing': missing, 'Unknown': unknown})}{'' if missing else LEAVE_OUT}{COUNTING}",
        members={
            "row": row + 1,
            "missing": missing[:MAX_ERRORS],
            "unknown": shown_names(unknown),
        },
    )
