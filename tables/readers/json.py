"""JSON tables: a document, which is parsed whole, and NDJSON, a row a line, of any length.

Rows are lists, or objects keyed by column.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from numpy.typing import NDArray

from tables.errors import JsonError, TableError
from tables.formats import ParseOptions, TableWarning
from tables.slugs import Slug
from tables.source import (
    CellSource,
    Columns,
    NotNumbersError,
    TableSource,
    check_columns,
    clean_names,
    default_names,
    gather,
    mend_names,
    rows_per_chunk,
)
from tables.strict_json import MAX_NUMBER_DIGITS, check_numbers, parse_strict, without_strings

MAX_DOCUMENT_BYTES = 32 << 20
"""Largest document: its objects take up to thirty times as many bytes."""

BLOCK_BYTES = 512 << 10
"""Unit in which NDJSON is read."""

MAX_LINE_BYTES = 4 << 20
"""Longest line of NDJSON that is accepted."""

ROWS, COLUMNS = "rows", "columns"

_SLICE_BYTES = 64 << 10  # so much takes less than a millisecond
_SPACE = b" \t\r\n"
_SPACES = re.compile(rb"[ \t\r\n]+")
_HEAD = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"rows"[ \t\r\n]*:[ \t\r\n]*\[')
_TAIL = re.compile(rb"\][ \t\r\n]*\}[ \t\r\n]*")
_NUMBERS: Final = frozenset({int, float})
_NUMBERS_AND_NULL: Final = _NUMBERS | {type(None)}
_JSON_TYPES = {str: "a string", bool: "a boolean", list: "a list", dict: "an object"}
_NAMES = "`columns` must be a list of names."
_FORM = 'The document must be {"rows": [...], "columns": [...]} or a list of rows.'
# A table's words for what is wrong with JSON; other slugs are the same for both.
_SLUGS: dict[Slug, Slug] = {
    "body-empty": "dataset-empty",
    "validation": "column-name",
    "value-nonfinite": "dataset-nonfinite",
}


def open_json(path: Path, options: ParseOptions) -> TableSource:
    """Open a JSON document.

    Raises:
        TableError: The document is too large, is no strict JSON, has another form, or its first
            row is no row.
    """
    rows, names = _read_document(path)
    reader = JsonRows.of(rows[0], names=names, options=options)
    step = rows_per_chunk(len(reader.names))
    slices = (rows[start : start + step] for start in range(0, len(rows), step))
    return _source(reader, map(reader.columns, slices))


def open_ndjson(path: Path, options: ParseOptions) -> TableSource:
    """Open a file of JSON lines.

    Raises:
        TableError: The file is empty, or its first line is no row.
    """
    first = next((line for block in _blocks(path) for _, line in block), None)
    if first is None:
        raise TableError("dataset-empty", "The file has no rows.")
    reader = JsonRows.of(_parse_line(first, line=1, row=1), names=None, options=options)
    return _source(reader, gather(_read_blocks(path, reader)))


def open_json_cells(path: Path, options: ParseOptions) -> CellSource:
    """Open a JSON document of numbers, text, booleans and nulls.

    Raises:
        TableError: As `open_json`.
    """
    rows, names = _read_document(path)
    step = rows_per_chunk(len(rows[0]) if isinstance(rows[0], dict | list) and rows[0] else 1)
    slices = [rows[start : start + step] for start in range(0, len(rows), step)]
    return _cell_source(rows[0], names, options, lambda _: iter(slices), slices[0])


def open_ndjson_cells(path: Path, options: ParseOptions) -> CellSource:
    """Open a file of JSON lines of numbers, text, booleans and nulls.

    Raises:
        TableError: As `open_ndjson`.
    """
    lines = next((block for block in _blocks(path) if block), None)
    if lines is None:
        raise TableError("dataset-empty", "The file has no rows.")
    first = [_parse_line(line, line=number, row=row) for row, (number, line) in enumerate(lines, 1)]

    def parsed(reader: JsonRows) -> Iterator[list[Any]]:
        return (rows for rows in _parsed_blocks(path, reader))

    return _cell_source(first[0], None, options, parsed, first)


def split_document(document: object) -> tuple[list[Any], list[str] | None]:
    """Return the rows of a parsed document, and the names of their columns if it gives any.

    Raises:
        TableError: ``dataset-shape`` for another form, ``dataset-empty`` where there are no rows.
    """
    rows, names = document, None
    if isinstance(document, dict):
        if not document.keys() <= {ROWS, COLUMNS}:
            raise TableError("dataset-shape", _FORM)
        rows, names = document.get(ROWS), document.get(COLUMNS)
        if names is not None and not _are_names(names):
            raise TableError("dataset-shape", _NAMES)
    if not isinstance(rows, list):
        raise TableError("dataset-shape", _FORM)
    if not rows:
        raise TableError("dataset-empty", "The document has no rows.")
    return rows, names


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


class JsonRows:
    """Converter of parsed rows of one table to numbers.

    Attributes:
        names: Names of the columns.
        keys: Keys of the columns in rows that are objects; None: rows are lists.
        named: True where the table gives the names itself.
        rows: Number of rows converted so far.
    """

    def __init__(
        self, names: Sequence[str], *, keys: Sequence[str] | None, named: bool = True
    ) -> None:
        """Take the form of the rows.

        Args:
            names: Names of the columns.
            keys: Keys of the columns in rows that are objects; None: rows are lists.
            named: True where the table gives the names itself.
        """
        self.names = list(names)
        self.named = named
        self.rows = 0
        self.keys = keys

    @classmethod
    def of(
        cls,
        first: object,
        *,
        names: list[str] | None,
        options: ParseOptions,
        clean: Callable[[list[str]], list[str]] = clean_names,
    ) -> "JsonRows":
        """Return the converter for rows that are all as the first one, which is not converted yet.

        Args:
            first: First row of the table.
            names: Names of the columns, if the table gives them.
            options: Bounds of the table's size.
            clean: Function that checks or mends the names.

        Raises:
            TableError: The first is no row, or the names are bad.
        """
        if not isinstance(first, dict | list):
            raise _misshapen(1, "is neither a list nor an object")
        check_columns(len(first), options=options)
        keys = list(first) if isinstance(first, dict) else None
        given = names if keys is None else keys
        if given is None:
            return cls(default_names(len(first)), keys=None, named=False)
        if len(given) != len(first):
            raise TableError(
                "dataset-shape", f"There are {len(given)} names, but row 1 has {len(first)} values."
            )
        return cls(clean(given), keys=keys)

    def values(self, rows: list[Any]) -> NDArray[np.float64]:
        """Return parsed rows as an array of shape (rows, columns), nulls as not-a-number.

        Args:
            rows: At least one row; those that follow the rows converted before.

        Raises:
            TableError: Naming the row, and the column where it can.
        """
        lists = self.lists(rows)
        if not set(map(type, chain.from_iterable(lists))) <= _NUMBERS_AND_NULL:
            raise self._not_a_number(lists)
        width = len(self.names)
        try:
            flat = np.fromiter(chain.from_iterable(lists), np.float64, len(lists) * width)
        except OverflowError:
            raise _too_large() from None
        self.rows += len(rows)
        return flat.reshape(len(lists), width)

    def lists(self, rows: list[Any]) -> list[list[Any]]:
        """Return parsed rows as one list of cells each, in the order of the columns.

        Raises:
            TableError: Naming the row that is no such list or object.
        """
        return self._lists(rows) if self.keys is None else self._ordered(rows, self.keys)

    def cells(self, rows: list[Any], text: frozenset[int]) -> pa.RecordBatch:
        """Return parsed rows as columns of numbers, booleans or text.

        Args:
            rows: At least one row; those that follow the rows converted before.
            text: Positions of the columns that hold more than numbers.

        Raises:
            NotNumbersError: Another column holds more than numbers.
            TableError: Naming the row, and the column where it can.
        """
        lists = self.lists(rows)
        columns = [
            self._cells(place, list(map(itemgetter(place), lists)), text=place in text)
            for place in range(len(self.names))
        ]
        self.rows += len(rows)
        return pa.record_batch(columns, names=[str(place) for place in range(len(columns))])

    def _cells(self, place: int, values: list[Any], *, text: bool) -> pa.Array:
        kinds = set(map(type, values))
        if kinds & {list, dict}:
            row = next(row for row, value in enumerate(values) if type(value) in {list, dict})
            name = self.names[place]
            raise TableError(
                "dataset-dtype",
                f"Column {name!r}, row {self.rows + row + 1}: the value is"
                f" {_JSON_TYPES[type(values[row])]}, not a single value.",
                column=name,
                row=self.rows + row + 1,
            )
        if kinds <= _NUMBERS_AND_NULL and not text:
            try:
                return pa.array(values, pa.float64())
            except (OverflowError, pa.ArrowInvalid):  # whole numbers that are not exact
                return pa.array([None if v is None else _as_float(v) for v in values], pa.float64())
        if not text:
            raise NotNumbersError(place)
        if kinds <= {bool, type(None)}:
            return pa.array(values, pa.bool_())
        return pa.array([_as_text(value) for value in values], pa.string())

    def columns(self, rows: list[Any]) -> Columns:
        """Return what `values` does, column by column."""
        return np.ascontiguousarray(self.values(rows).T)

    def text_columns(self, rows: list[Any]) -> frozenset[int]:
        """Return the columns that hold more than numbers in some rows."""
        lists = self.lists(rows)
        return frozenset(
            place
            for place in range(len(self.names))
            if not set(map(type, map(itemgetter(place), lists))) <= _NUMBERS_AND_NULL
        )

    def _lists(self, rows: list[Any]) -> list[list[Any]]:
        width = len(self.names)
        for index, row in enumerate(rows, self.rows + 1):
            if type(row) is not list:
                raise _misshapen(index, "is not a list of numbers")
            if len(row) != width:
                raise _misshapen(index, f"has {len(row)} value(s) instead of {width}")
        return rows

    def _ordered(self, rows: list[Any], keys: Sequence[str]) -> list[Any]:
        get = itemgetter(*keys) if len(keys) > 1 else lambda row: (row[keys[0]],)
        ordered = []
        for index, row in enumerate(rows, self.rows + 1):
            if type(row) is not dict:
                raise _misshapen(index, "is not an object keyed by column")
            try:
                ordered.append(get(row))
            except KeyError:
                raise self._missing(row, index, keys) from None
            if len(row) != len(keys):
                raise _misshapen(index, f"has {len(row)} members; row 1 has {len(keys)}")
        return ordered

    def _missing(self, row: dict[str, Any], index: int, keys: Sequence[str]) -> TableError:
        name = next(name for key, name in zip(keys, self.names, strict=True) if key not in row)
        return TableError(
            "dataset-shape", f"Row {index} lacks the column {name!r}.", column=name, row=index
        )

    def _not_a_number(self, lists: list[list[Any]]) -> TableError:
        row, column, value = next(
            (row, column, value)
            for row, values in enumerate(lists, self.rows + 1)
            for column, value in enumerate(values)
            if type(value) not in _NUMBERS_AND_NULL
        )
        name = self.names[column]
        return TableError(
            "dataset-dtype",
            f"Column {name!r}, row {row}: the value is {_JSON_TYPES[type(value)]}, not a number.",
            column=name,
            row=row,
        )


def _read_document(path: Path) -> tuple[list[Any], list[str] | None]:
    """Return the rows of a document, and the names of their columns if it gives any."""
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise TableError(
            "dataset-too-large",
            f"A JSON document may have {MAX_DOCUMENT_BYTES >> 20} MiB. Send larger tables as NDJSON,"
            " a row a line, or in another format.",
        )
    try:
        document = parse_strict(path.read_bytes())
    except JsonError as error:
        raise _table_error(error) from None
    if isinstance(document, dict) and document.get(COLUMNS, ()) is None:
        raise TableError("dataset-shape", _NAMES)  # null stands for no names in scores alone
    return split_document(document)


def _cell_source(
    first: object,
    names: list[str] | None,
    options: ParseOptions,
    parsed: Callable[[JsonRows], Iterator[list[Any]]],
    sample: list[Any],
) -> CellSource:
    """Return the source of rows that are all as the first one.

    Args:
        first: First row.
        names: Names of the columns, if the table gives them.
        options: Bounds of the table's size.
        parsed: Function that yields all rows, some at a time.
        sample: First rows, which tell the columns of text.
    """
    nameless: frozenset[int] = frozenset()
    warnings: list[TableWarning] = []

    def mend(raw: list[str]) -> list[str]:
        nonlocal nameless, warnings
        mended, nameless, warnings = mend_names(raw)
        return mended

    template = JsonRows.of(first, names=names, options=options, clean=mend)

    def fresh() -> JsonRows:
        return JsonRows(template.names, keys=template.keys, named=template.named)

    def read(text: frozenset[int]) -> Iterator[pa.RecordBatch]:
        reader = fresh()
        return (reader.cells(rows, text) for rows in parsed(reader))

    text = fresh().text_columns(sample)
    return CellSource(
        names=template.names,
        dtypes=["string" if place in text else "float64" for place in range(len(template.names))],
        named=template.named,
        nameless=nameless,
        text=text,
        read=read,
        warnings=warnings,
    )


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise _too_large() from None


def _as_text(value: str | float | bool | None) -> str | None:  # noqa: FBT001 - a value of JSON
    if value is None or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _source(reader: JsonRows, chunks: Iterator[Columns]) -> TableSource:
    return TableSource(
        names=reader.names,
        dtypes=["float64"] * len(reader.names),
        named=reader.named,
        chunks=chunks,
        warnings=[],
    )


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


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


_Block = list[tuple[int, bytes]]
"""Lines that are not blank, with their numbers."""


def _read_blocks(path: Path, reader: JsonRows) -> Iterator[Columns]:
    return map(reader.columns, _parsed_blocks(path, reader))


def _parsed_blocks(path: Path, reader: JsonRows) -> Iterator[list[Any]]:
    """Yield the rows of a file some at a time; the reader counts those that came before."""
    for block in _blocks(path):
        if not block:
            continue
        parsed = [
            _parse_line(line, line=number, row=reader.rows + index)
            for index, (number, line) in enumerate(block, 1)
        ]
        yield parsed
        # Once they are known to have the right keys.
        try:
            _check_text(b"\n".join(line for _, line in block), parsed)
        except JsonError as error:
            raise _table_error(error, f"Lines {block[0][0]} to {block[-1][0]}: ") from None


def _parse_line(text: bytes, *, line: int, row: int) -> Any:  # noqa: ANN401  JSON is anything
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return parse_strict(text)  # which says what is wrong
        except JsonError as error:
            raise _table_error(error, f"Line {line}: ", row=row) from None


def _check_text(text: bytes, rows: list[Any]) -> None:
    """Find what rows that are right by themselves do not show: endless numbers, and keys twice."""
    # Numbers that are far too long are rare: a look at the text's longest run costs little.
    if len(text) > MAX_NUMBER_DIGITS:
        longest = max(map(len, text.replace(b"\n", b",").split(b",")))
        if longest > MAX_NUMBER_DIGITS:
            check_numbers(without_strings(text))
    # Each pair has a colon; a name may have some too. More pairs than keys: one came twice.
    pairs = sum(map(len, rows)) if isinstance(rows[0], dict) else 0
    if pairs and text.count(b":") != pairs and without_strings(text).count(b":") != pairs:
        raise JsonError("json-duplicate-key", "An object names the same key twice.")


def _blocks(path: Path) -> Iterator[_Block]:
    """Yield the lines of a file in groups."""
    number = 0
    rest = b""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if len(rest) > MAX_LINE_BYTES:
                raise _too_long(number + len(lines) + 1)
            yield _numbered(lines, number)
            number += len(lines)
    yield _numbered([rest], number)


def _numbered(lines: list[bytes], number: int) -> _Block:
    return [(n, line) for n, line in enumerate(lines, number + 1) if line.strip(_SPACE)]


def _table_error(error: JsonError, where: str = "", *, row: int | None = None) -> TableError:
    """Return the error of a table for one of JSON."""
    return TableError(_SLUGS.get(error.slug, error.slug), where + error.detail, row=row)


def _misshapen(row: int, reason: str) -> TableError:
    return TableError("dataset-shape", f"Row {row} {reason}.", row=row)


def _too_large() -> TableError:
    return TableError("dataset-nonfinite", "A number is too large for a 64-bit float.")


def _too_long(line: int) -> TableError:
    return TableError("dataset-parse", f"Line {line} is longer than {MAX_LINE_BYTES >> 20} MiB.")
