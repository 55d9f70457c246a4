"""Rows of a stored table as cells, in the types and texts of its columns, and as bare numbers."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from numpy.typing import NDArray

from tabular.cells import decode_cells, encode_cells, level_cells, level_text
from tabular.columns import UNSEEN, Column
from tabular.errors import TableError
from tabular.numbers import text_field

JsonCell = str | int | float | bool | None
"""Cell as JSON gives it."""

_Numbers = NDArray[np.floating[Any]]
_CELL_TYPES: frozenset[type] = frozenset({bool, int, float, str})
_REAL: frozenset[type] = frozenset({int, float})
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
        # Of thousands of columns, whose levels are looked up for each few rows.
        self._levels = [None if c.holds_values else level_cells(c) for c in self._columns]
        kinds = (cells.type for cells in self._decoded(np.empty((0, len(self._columns)))))
        typed = [
            text_field(c, _kept_type(c) if ignored else next(kinds))
            for c, ignored in zip(columns, self._ignored, strict=True)
        ]
        self.schema = pa.schema([*typed, *(pa.field(name, pa.float64()) for name in numbers)])
        self.text_bytes = sum(map(_text_bytes, self._columns))

    def batch(self, rows: _Numbers) -> pa.RecordBatch:
        """Return rows of shape (n, columns) as cells."""
        width = len(self._columns)
        decoded = self._decoded(rows)
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
        for place, column in enumerate(self._columns):
            if column.holds_values and column.type != "datetime":
                cells = decode_cells(rows[:, place], column)
                written[:, place] = cells.to_numpy(zero_copy_only=False)
        return written

    def _decoded(self, rows: _Numbers) -> Iterator[pa.Array]:
        for place, (column, levels) in enumerate(zip(self._columns, self._levels, strict=True)):
            yield decode_cells(rows[:, place], column, levels=levels)


def _kept_type(column: Column) -> pa.DataType:
    """Return the type of the cells of a column that is ignored: whole numbers that count rows, or text."""
    return pa.int64() if column.decimals == 0 else pa.string()


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

    Raises:
        TableError: ``dataset-dtype``, naming the first bad column and its first bad row.
    """
    return _gathered(map(encode_cells, cells, columns), columns, rows=rows, before=before)


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
        TableError: ``dataset-dtype`` for a list or an object; it names the row.
    """
    kinds = {type(value) for value in values} - {type(None)}
    if not kinds <= _CELL_TYPES:
        row = next(
            n for n, v in enumerate(values, 1) if v is not None and type(v) not in _CELL_TYPES
        )
        detail = "the value is a list or an object, not a single value."
        raise TableError("dataset-dtype", detail, row=row)
    if kinds <= {int, float}:
        return pa.array(np.array(values, np.float64), from_pandas=True)
    return pa.array(
        [value if value is None else level_text(value) for value in values], pa.string()
    )


def check_codes(rows: _Numbers, columns: Sequence[Column], *, before: int = 0) -> None:
    """Refuse numbers that are no index of a level, in columns whose levels are texts or truth values.

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
                f" holds {'true and false' if column.type == 'boolean' else 'texts'}: send those in another format, or the index of each among"
                f" `types[].levels` of the model, from 0 to {column.level_count - 1}.",
                column=column.name,
                row=row,
            )
