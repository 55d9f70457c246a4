"""Rows of a stored table as cells, in the types and texts of its columns, and as bare numbers."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from numpy.typing import NDArray

from tabular.alike_columns import AlikeColumns
from tabular.cells import encode_cells, level_text
from tabular.columns import UNSEEN, Column
from tabular.errors import TableError
from tabular.json.members import Members
from tabular.numbers import text_field

JsonCell = str | float | bool | None
"""Cell as JSON gives it."""

_Numbers = NDArray[np.floating[Any]]
_CELL_TYPES: frozenset[type] = frozenset({bool, int, float, str})
_REAL: frozenset[type] = frozenset({int, float})
ENCODED_ROWS = 4096
"""Rows of JSON that are encoded at a time."""

_DATE_BYTES = len("2024-02-29T12:00:00.000000Z")
_DATE_EXAMPLES = {True: "2024-02-29", False: "2024-02-29T12:00:00Z"}


class TypedRows:
    """Converter of the rows of one table.

    Args:
        columns: Types of the first columns of a row, and of columns that are ignored: these are not in
            the rows of numbers, and their cells are null.
        numbers: Names of the columns after them, which are written as the numbers that they are.

    Attributes:
        schema: Types of the cells.
        text_bytes: Most bytes of the texts of a row, about.
    """

    def __init__(self, columns: Sequence[Column], numbers: Sequence[str] = ()) -> None:
        self._ignored = [column.type == "ignored" for column in columns]
        self._columns = [column for column in columns if column.type != "ignored"]
        self._alike = AlikeColumns(self._columns)
        kinds = iter(self._alike.types)
        typed = [
            text_field(c, _kept_type(c) if ignored else next(kinds))
            for c, ignored in zip(columns, self._ignored, strict=True)
        ]
        self.schema = pa.schema([*typed, *(pa.field(name, pa.float64()) for name in numbers)])
        self.text_bytes = longest_texts(self._columns)

    def batch(self, rows: _Numbers) -> pa.RecordBatch:
        """Return rows of shape (n, columns) as cells."""
        width = len(self._columns)
        decoded = iter(self._alike.cells(rows))
        cells = [
            pa.nulls(len(rows), field.type) if ignored else next(decoded)
            for ignored, field in zip(self._ignored, self.schema, strict=False)
        ]
        plain = [pa.array(np.ascontiguousarray(column, np.float64)) for column in rows[:, width:].T]
        return pa.RecordBatch.from_arrays([*cells, *plain], schema=self.schema)

    @property
    def are_floats(self) -> bool:
        """True if all cells are numbers with decimals, and none is missing."""
        kinds = {field.type for field in self.schema}
        return kinds == {pa.float64()} and not any(column.missing for column in self._columns)

    @property
    def has_marks(self) -> bool:
        """True if numbers have another mark before decimals than a point where they are text."""
        return any(column.decimal != "." for column in self._columns)

    def numbers(self, rows: _Numbers) -> _Numbers:
        """Return rows of shape (n, columns) for a format that holds numbers alone: no texts or dates."""
        written = np.array(rows, np.float64)
        self._alike.write_values(rows, written)
        return written


def _kept_type(column: Column) -> pa.DataType:
    """Return the type of the cells of a column that is ignored: whole numbers that count rows, or text."""
    return pa.int64() if column.decimals == 0 else pa.string()


def longest_texts(columns: Iterable[Column]) -> int:
    """Return the most bytes of the texts of a row, about."""
    return sum(map(_text_bytes, columns))


def _text_bytes(column: Column) -> int:
    """Return the bytes of the longest text of a column, about: a level, a date, or a number in its format."""
    texts = (level.encode() for level in column.levels if isinstance(level, str))
    if column.type == "datetime" and column.datetime_format is None:
        return _DATE_BYTES
    return max(map(len, texts), default=0) + 4 * len(column.datetime_format or "")


def encode_rows(
    rows: Sequence[Sequence[JsonCell]], columns: Sequence[Column], *, before: int = 0
) -> NDArray[np.float64]:
    """Return rows of cells, as JSON gives them, as rows of numbers.

    Args:
        rows: Rows of as many cells as there are columns.
        columns: Types of the columns.
        before: Number of rows of the table before these.

    Raises:
        TableError: ``dataset-dtype``, naming the first bad column and its first bad row.
    """
    cells = zip(*rows, strict=True) if rows else iter([()] * len(columns))
    encoded = map(_encode_json, cells, columns)
    return _gathered(encoded, columns, rows=len(rows), before=before)


def encode_columns(
    cells: Iterable[pa.Array], columns: Sequence[Column], *, rows: int, before: int = 0
) -> NDArray[np.float64]:
    """Return columns of cells as rows of numbers.

    Args:
        cells: Cells of each column.
        columns: Types of the columns.
        rows: Number of rows.
        before: Number of rows of the table before these.

    Raises:
        TableError: ``dataset-dtype``, naming the first bad column and its first bad row.
    """
    return _gathered(map(encode_cells, cells, columns), columns, rows=rows, before=before)


def encode_members(
    members: Members, columns: Sequence[Column], *, before: int = 0
) -> Iterator[NDArray[np.float64]]:
    """Yield rows of objects that lack most members as rows of numbers, some at a time.

    Each column is encoded once for all rows: that takes some tenths of a millisecond, however few its cells are.

    Args:
        members: Cells of the rows.
        columns: Types of the columns.
        before: Number of rows of the table before these.

    Raises:
        TableError: ``dataset-dtype``, naming the first bad column of the first rows that have one, as if each
            step of the rows were encoded by itself.
    """
    faults: list[tuple[int, int, TableError]] = []
    found = [(np.empty(0, np.intp), 0, np.empty(0))]
    for place, (rows, cells) in sorted(members.cells.items()):
        whole, numbers = len(rows), None
        while numbers is None:
            try:
                numbers = _encode_json(cells[:whole], columns[place])
            except TableError as error:  # the rows before those of its step may have others
                row = 0 if error.row is None else rows[error.row - 1]
                begin = _first_encoded(row, members.step)
                own = TableError(error.slug, error.detail, row=row + 1)
                faults.append((begin, place, own))
                whole = bisect_left(rows, begin)
        found.append((np.array(rows[:whole], np.intp), place, numbers))
    at_row = np.concatenate([rows for rows, _, _ in found])
    at_place = np.repeat([place for _, place, _ in found], [len(rows) for rows, _, _ in found])
    order = np.argsort(at_row, kind="stable")
    at_row, at_place = at_row[order], at_place[order]
    encoded = np.concatenate([cells for _, _, cells in found])[order]
    fault = min(faults, key=itemgetter(0, 1), default=None)
    end = members.rows if fault is None else fault[0]
    for start in range(0, end, members.step):
        part = np.full((min(members.step, end - start), len(columns)), np.nan)
        first, last = np.searchsorted(at_row, [start, start + len(part)])
        part[at_row[first:last] - start, at_place[first:last]] = encoded[first:last]
        yield part
    if fault is not None:
        raise _with_remedy(fault[2], columns[fault[1]], before=before)


def _first_encoded(row: int, step: int) -> int:
    """Return the first of the rows that are encoded together with a row, where they do not lack most members."""
    return row // step * step + row % step // ENCODED_ROWS * ENCODED_ROWS


def _encode_json(values: Sequence[JsonCell], column: Column) -> NDArray[np.float64]:
    """Return the numbers of the cells of one column, as JSON gives them."""
    kinds = set(map(type, values))
    if not column.holds_values or column.writes_digits or not (kinds & _REAL and str in kinds):
        return encode_cells(json_cells(values), column)
    # A number of JSON is one whatever the marks of texts: 1.512 is no 1512 where points part thousands.
    are_numbers = [type(value) in _REAL for value in values]
    texts = [None if is_number else v for v, is_number in zip(values, are_numbers, strict=True)]
    parsed = encode_cells(json_cells(texts), column)
    plain = [v if is_number else None for v, is_number in zip(values, are_numbers, strict=True)]
    return np.where(are_numbers, encode_cells(json_cells(plain), column), parsed)


def _gathered(
    encoded: Iterator[NDArray[np.float64]], columns: Sequence[Column], *, rows: int, before: int
) -> NDArray[np.float64]:
    """Return the numbers of columns as rows; what is wrong with a column names its row in the table."""
    numbers = np.empty((rows, len(columns)))
    for place, column in enumerate(columns):
        try:
            numbers[:, place] = next(encoded)
        except TableError as error:
            raise _with_remedy(error, column, before=before) from None
    return numbers


def _with_remedy(error: TableError, column: Column, *, before: int) -> TableError:
    """Return the same error with the row in the whole table, and what to send instead."""
    row = None if error.row is None else error.row + before
    if not column.holds_values:
        wanted = "a single value"
    elif column.type != "datetime":
        wanted = "a number, such as 0.5"
    elif column.datetime_format is not None:
        wanted = f"a date in the format {column.datetime_format}"
    else:
        wanted = f"a date, such as {_DATE_EXAMPLES[column.date_only]}"
    where = "" if row is None else f", row {row}"
    return TableError(
        error.slug,
        f"Column {column.name!r}{where}: the value is not {wanted}. A cell without a value is empty or"
        " null.",
        column=column.name,
        row=row,
    )


def json_cells(values: Sequence[JsonCell]) -> pa.Array:
    """Return the cells of one column as JSON gives them: numbers, or else text.

    Raises:
        TableError: ``dataset-dtype`` for a list or an object, ``dataset-nonfinite`` for a number that is
            too large; it names the row.
    """
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds <= _CELL_TYPES:
        row = next(
            n for n, v in enumerate(values, 1) if v is not None and type(v) not in _CELL_TYPES
        )
        detail = "the value is a list or an object, not a single value."
        raise TableError("dataset-dtype", detail, row=row)
    if kinds <= {int, float}:
        try:
            return pa.array(np.array(values, np.float64), from_pandas=True)
        except OverflowError:
            raise TableError(
                "dataset-nonfinite", "A number is too large for a 64-bit float."
            ) from None
    return pa.array(
        [value if value is None else level_text(value) for value in values], pa.string()
    )


def check_codes(rows: _Numbers, columns: Sequence[Column], *, before: int = 0) -> None:
    """Refuse numbers that are no index of a level, in columns whose levels are texts or truth values.

    Args:
        rows: Rows of shape (n, columns).
        columns: Types of the columns.
        before: Number of rows of the table before these.

    Raises:
        TableError: ``dataset-dtype``, naming the first row and column.
    """
    for place, column in enumerate(columns):
        if column.holds_values:
            continue
        codes = rows[:, place]
        known = (codes == np.floor(codes)) & (codes >= UNSEEN) & (codes < column.level_count)
        wrong = np.flatnonzero(~(known | np.isnan(codes)))
        if wrong.size:
            row = before + int(wrong[0]) + 1
            raise TableError(
                "dataset-dtype",
                f"Column {column.name!r}, row {row}: the number is no index of a level. The column"
                f" holds {_kind(column)}: send those in another format, or the index of each among"
                f" `types[].levels` of the model, from 0 to {column.level_count - 1}.",
                column=column.name,
                row=row,
            )


def _kind(column: Column) -> str:
    return "true and false" if column.type == "boolean" else "texts"
