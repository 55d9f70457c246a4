"""JSON tables: a document, which is parsed whole, and NDJSON, a row a line, of any length.

Rows are lists, or objects keyed by column.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from tabular.errors import JsonError, TableError
from tabular.formats import ParseOptions, TableWarning
from tabular.json.members import Members
from tabular.json.parts import PART_BYTES
from tabular.json.strict import MAX_NUMBER_DIGITS, check_numbers, parse_strict, without_strings
from tabular.readers.json_rows import JsonRows
from tabular.source import (
    NESTED,
    CellSource,
    Columns,
    TableSource,
    check_columns,
    gather,
    mend_names,
    rows_per_chunk,
)

MAX_DOCUMENT_BYTES = 32 << 20
"""Largest document: its objects take up to thirty times as many bytes."""

BLOCK_BYTES = 512 << 10
"""Unit in which NDJSON is read."""

MAX_LINE_BYTES = 4 << 20
"""Longest line of NDJSON that is accepted."""

ROWS, COLUMNS = "rows", "columns"

_SPACE = b" \t\r\n"
_NAMES = "`columns` must be a list of names."
_SHOWN = 64
_FORM = 'The document must be {"rows": [...], "columns": [...]} or a list of rows.'


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
    reader.has_gaps = True
    return _source(reader, _read_blocks(path, reader))


def open_json_cells(path: Path, options: ParseOptions) -> CellSource:
    """Open a JSON document of numbers, text, booleans and nulls.

    Raises:
        TableError: As `open_json`.
    """
    rows, names = _read_document(path)
    step = rows_per_chunk(len(rows[0]) if isinstance(rows[0], dict | list) and rows[0] else 1)
    slices = [rows[start : start + step] for start in range(0, len(rows), step)]
    return _cell_source(
        _whole_row(rows, options), names, options, lambda _: iter(slices), slices[0]
    )


def open_ndjson_cells(path: Path, options: ParseOptions, *, whole: Any = None) -> CellSource:  # noqa: ANN401  JSON is anything
    """Open a file of JSON lines of numbers, text, booleans and nulls.

    Args:
        path: File to read.
        options: Bounds of the table's size.
        whole: First row, with the members of all; None to read the file for it.

    Raises:
        TableError: As `open_ndjson`.
    """
    lines = next((block for block in _blocks(path) if block), None)
    if lines is None:
        raise TableError("dataset-empty", "The file has no rows.")
    first = list(_parsed_lines(lines, before=0))
    if whole is None:
        for some in whole_rows(path, options):
            whole = some

    return _cell_source(whole, None, options, partial(_parsed_blocks, path), first)


def whole_rows(path: Path, options: ParseOptions) -> Iterator[Any]:
    """Yield the first row of JSON lines after each part of the file; of objects, one that has the members so far.

    Before the first row that is None, as parts of blank lines are.

    Raises:
        TableError: A line is no strict JSON, or there are too many members.
    """
    whole: Any = None
    rows = 0
    for block in _blocks(path):
        parsed = _parsed_lines(block, before=rows)
        rows += len(block)
        if block:
            whole = _whole_row(chain([whole], parsed) if rows > len(block) else parsed, options)
        yield whole
        if rows and not isinstance(whole, dict):
            return


def _whole_row(rows: Iterable[Any], options: ParseOptions) -> Any:  # noqa: ANN401  JSON is anything
    """Return the first row; of objects, one that has the members of all rows."""
    coming = iter(rows)
    first = next(coming)
    if not isinstance(first, dict):
        return first
    whole = dict(first)
    for row in coming:
        if isinstance(row, dict) and not row.keys() <= whole.keys():
            whole |= row
            check_columns(len(whole), options=options)
    return whole


def split_document(document: object) -> tuple[list[Any], list[str] | None]:
    """Return the rows of a parsed document, and the names of their columns if it gives any.

    Raises:
        TableError: ``dataset-shape`` for another form, ``dataset-empty`` where there are no rows.
    """
    rows, names = document, None
    if isinstance(document, dict):
        if not document.keys() <= {ROWS, COLUMNS}:
            raise TableError("dataset-shape", f"{_FORM}{_about_members(document)}")
        rows, names = document.get(ROWS), document.get(COLUMNS)
        if names is not None and not _are_names(names):
            raise TableError("dataset-shape", _NAMES)
    if not isinstance(rows, list):
        raise TableError("dataset-shape", _FORM)
    if not rows:
        raise TableError("dataset-empty", "The document has no rows.")
    return rows, names


def _about_members(document: dict[str, Any]) -> str:
    """Return the sentence that says where the rows of a document of another form seem to be."""
    lists = [name for name, value in document.items() if isinstance(value, list) and value]
    for name in lists:
        if name != COLUMNS and isinstance(document[name][0], dict | list):
            return f" Its rows seem to be in {name[:_SHOWN]!r}: send that list alone."
    if len(lists) == len(document) and document:
        return " Its members seem to be columns: send a list of rows, or Arrow or Parquet."
    return ""


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
        first: First row; of objects, one that has the members of all.
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
    template.has_gaps = True
    text, nested = template.look_at(sample)

    def fresh() -> JsonRows:
        return JsonRows(template.names, keys=template.keys, named=template.named, nested=nested)

    def read(text: frozenset[int]) -> Iterator[pa.RecordBatch]:
        reader = fresh()
        return (
            reader.cells(some, text) for rows in parsed(reader) for some in _steps(rows, reader)
        )

    def lists(places: Sequence[int]) -> Iterator[list[list[Any]] | Members]:
        reader = fresh()
        for rows in parsed(reader):
            if reader.are_sparse(rows):
                yield from _sparse_parts(rows, reader, places)
                continue
            for some in _steps(rows, reader) if rows else [rows]:
                yield [[row[at] for at in places] for row in reader.lists(some)]
                reader.rows += len(some)

    return CellSource(
        names=template.names,
        dtypes=["string" if place in text else "float64" for place in range(len(template.names))],
        named=template.named,
        nameless=nameless,
        text=text,
        read=read,
        warnings=warnings,
        unread=dict.fromkeys(sorted(nested), NESTED),
        lists=lists,
    )


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


_Block = list[tuple[int, bytes]]
"""Lines that are not blank, with their numbers."""


def _read_blocks(path: Path, reader: JsonRows) -> Iterator[Columns]:
    """Yield the rows of a file as numbers; none after blank lines, so that nobody waits for their end."""
    nothing = np.empty((len(reader.names), 0))

    def chunks() -> Iterator[Columns]:
        for rows in _parsed_blocks(path, reader):
            if not rows:
                yield nothing
            yield from map(reader.columns, _steps(rows, reader))

    return gather(chunks(), pauses=True)


def _steps(rows: list[Any], reader: JsonRows) -> Iterator[list[Any]]:
    """Yield rows some at a time: an object may have far fewer members than there are columns."""
    step = rows_per_chunk(len(reader.names))
    return (rows[start : start + step] for start in range(0, len(rows), step))


def _sparse_parts(rows: list[Any], reader: JsonRows, places: Sequence[int]) -> Iterator[Members]:
    """Yield the cells of rows that lack most members; before a row that is none, those of the steps before its own."""
    try:
        yield reader.members(rows, places)
    except TableError as error:
        step = rows_per_chunk(len(reader.names))
        before = 0 if error.row is None else (error.row - 1 - reader.rows) // step * step
        if before:
            yield reader.members(rows[:before], places)
        raise
    reader.rows += len(rows)


def _parsed_blocks(path: Path, reader: JsonRows) -> Iterator[list[Any]]:
    """Yield the rows of a file some at a time, none after blank lines; the reader counts those that came before."""
    for block in _blocks(path):
        if not block:
            yield []
            continue
        parsed = list(_parsed_lines(block, before=reader.rows))
        yield parsed
        # Once they are known to have the right keys.
        try:
            _check_text(b"\n".join(line for _, line in block), parsed)
        except JsonError as error:
            raise _table_error(error, f"Lines {block[0][0]} to {block[-1][0]}: ") from None


def _parsed_lines(block: _Block, *, before: int) -> Iterator[Any]:
    """Yield the values of lines.

    Args:
        block: Lines of a file, with their numbers.
        before: Number of rows before them.
    """
    size = sum(len(line) for _, line in block)
    step = max(PART_BYTES * len(block) // (size + 1), 1)
    for start in range(0, len(block), step):
        some = block[start : start + step]
        together = _parsed_together([line for _, line in some])
        if together is not None:
            yield from together
            continue
        for row, (number, line) in enumerate(some, before + start + 1):
            yield _parse_line(line, line=number, row=row)


def _parsed_together(lines: list[bytes]) -> list[Any] | None:
    """Return the values of lines, which are parsed in a fraction of the time together; None if one is no value.

    Between them stands a text that nobody knows: where all of them are items of the list, each line is one.
    """
    mark = secrets.token_hex(8)
    try:
        items = orjson.loads(b"[%b]" % (b',"%b",' % mark.encode()).join(lines))
    except orjson.JSONDecodeError:
        return None
    marks = len(lines) - 1
    if len(items) != len(lines) + marks or items[1::2].count(mark) != marks:
        return None
    values: list[Any] = items[::2]
    return values


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
    if pairs and text.count(b":") != pairs and without_strings(text).count(b":") != _pairs(rows):
        raise JsonError("json-duplicate-key", "An object names the same key twice.")


def _pairs(rows: list[Any]) -> int:
    """Return the number of pairs of all objects, also of those inside others."""
    count, waiting = 0, list(rows)
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            count += len(value)
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return count


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
    return TableError(error.slug, where + error.detail, row=row)


def _too_long(line: int) -> TableError:
    return TableError("dataset-parse", f"Line {line} is longer than {MAX_LINE_BYTES >> 20} MiB.")
