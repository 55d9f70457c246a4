"""Tables in JSON: a document, or NDJSON with a row a line. Rows are lists, or objects keyed by column."""

from collections.abc import Callable, Container, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import simdjson
from numpy.typing import NDArray

from tabular.cells import as_text
from tabular.errors import JsonError, TableError
from tabular.formats import ParseOptions
from tabular.json_text import parse_json
from tabular.source import NESTED, Source, check_columns, default_names, mend_names
from tabular.typed_rows import json_cells

MAX_DOCUMENT_BYTES = 32 << 20
"""Largest document: its objects take up to thirty times as many bytes."""

MAX_LINE_BYTES = 4 << 20
"""Longest line of NDJSON that is accepted."""

ROWS, COLUMNS = "rows", "columns"

_BLOCK_BYTES = 1 << 20
_STEP_ROWS = 4096
_SHOWN = 64
_FORM = 'The document must be {"rows": [...], "columns": [...]} or a list of rows.'
_KINDS = {str: "a string", bool: "a boolean", list: "a list", dict: "an object"}
_NUMBERS: frozenset[type] = frozenset({int, float, type(None)})


def number_rows(text: bytes, width: int) -> NDArray[np.float64] | None:
    """Return the rows of a document of lists of numbers, as an array of shape (rows, width).

    Args:
        text: ``{"rows": [...]}`` or ``[...]``.
        width: Number of values of each row.

    Returns:
        None for anything else, such as nulls, texts or rows of other widths.
    """
    try:
        found = simdjson.Parser().parse(text)
        rows = found[ROWS] if isinstance(found, simdjson.Object) and len(found) == 1 else found
        if not isinstance(rows, simdjson.Array):
            return None
        lists: Any = rows  # or numbers, which have no length
        if set(map(len, lists)) != {width}:
            return None
        values = np.frombuffer(rows.as_buffer(of_type="d"))
        # A list within a row is flattened: then there are more brackets than rows.
        brackets = np.count_nonzero(np.frombuffer(text, np.uint8) == ord("["))
        if values.size != len(rows) * width or brackets != len(rows) + 1:
            return None
        return values.reshape(-1, width)
    except (ValueError, TypeError, KeyError, RuntimeError):
        return None


def number_lines(text: bytes, width: int) -> NDArray[np.float64] | None:
    """Return the rows of NDJSON of lists of numbers, as `number_rows` does."""
    lines = text.strip().splitlines()
    if not all(line.startswith(b"[") and line.endswith(b"]") for line in lines):
        return None
    values = number_rows(b"[%b]" % b",".join(lines), width)
    return values if values is not None and len(values) == len(lines) else None


def open_json(path: Path, options: ParseOptions) -> Source:
    """Open a JSON document.

    Raises:
        TableError: The document is too large, is no JSON, or has another form.
    """
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise TableError(
            "dataset-too-large",
            f"A JSON document may have {MAX_DOCUMENT_BYTES >> 20} MiB. Send larger tables as NDJSON,"
            " a row a line, or in another format.",
        )
    try:
        rows, names = split_document(parse_json(path.read_bytes()))
    except JsonError as error:
        raise TableError(error.slug, error.detail) from None
    return _source(lambda: iter([rows]), names, options)


def open_ndjson(path: Path, options: ParseOptions) -> Source:
    """Open a file of JSON lines.

    Raises:
        TableError: The file is empty, or a line is no JSON.
    """

    def read() -> Iterator[list[Any]]:
        with path.open("rb") as file:
            yield from parsed_lines(file)

    return _source(read, None, options)


def parsed_lines(file: BinaryIO) -> Iterator[list[Any]]:
    """Yield the rows of JSON lines, some at a time.

    Raises:
        TableError: A line is no JSON, or too long.
    """
    line = row = 0
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        if len(rest) > MAX_LINE_BYTES:
            text = f"Line {line + len(lines) + 1} is longer than {MAX_LINE_BYTES >> 20} MiB."
            raise TableError("dataset-parse", text)
        rows = list(_parsed(lines, line, row))
        line, row = line + len(lines), row + len(rows)
        yield rows
    yield list(_parsed([rest], line, row))


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
            raise TableError("dataset-shape", "`columns` must be a list of names.")
    if not isinstance(rows, list):
        raise TableError("dataset-shape", _FORM)
    if not rows:
        raise TableError("dataset-empty", "The document has no rows.")
    return rows, names


def cell_rows(
    rows: Sequence[Any], keys: Sequence[str], *, listed: bool, before: int = 0
) -> list[Sequence[Any]]:
    """Return parsed rows as one list of cells each, in the order of the columns; what objects lack is null.

    Raises:
        TableError: Naming the row that is no such list or object.
    """
    width = len(keys)
    get: Callable[[Any], Sequence[Any]] = (
        itemgetter(*keys) if width > 1 else lambda row: (row[keys[0]],)
    )
    found: list[Sequence[Any]] = []
    for number, row in enumerate(rows, before + 1):
        if listed:
            if type(row) is not list:
                raise _misshapen(number, "is not a list of values")
            if len(row) != width:
                values = "1 value" if len(row) == 1 else f"{len(row)} values"
                raise _misshapen(number, f"has {values} instead of {width}")
            found.append(row)
            continue
        if type(row) is not dict:
            raise _misshapen(number, "is not an object keyed by column")
        try:
            found.append(get(row))
        except KeyError:
            found.append([row.get(key) for key in keys])
    return found


def numbers_of_rows(
    rows: Sequence[Sequence[Any]], names: Sequence[str], *, before: int = 0
) -> NDArray[np.float64]:
    """Return rows of numbers and nulls as an array of shape (rows, columns), nulls as not-a-number.

    Raises:
        TableError: ``dataset-dtype``, naming the first row and column of another value.
    """
    for number, row in enumerate(rows, before + 1):
        if set(map(type, row)) <= _NUMBERS:
            continue
        place = next(at for at, value in enumerate(row) if type(value) not in _NUMBERS)
        raise TableError(
            "dataset-dtype",
            f"Column {names[place]!r}, row {number}: the value is {_KINDS[type(row[place])]}, not a number.",
            column=names[place],
            row=number,
        )
    return np.array(rows, np.float64).reshape(len(rows), len(names))


def _parsed(lines: Sequence[bytes], line: int, row: int) -> Iterator[Any]:
    for number, text in enumerate(lines, line + 1):
        if not text.strip():
            continue
        row += 1
        try:
            yield orjson.loads(text)
        except orjson.JSONDecodeError:
            try:
                yield parse_json(text)  # which says what is wrong
            except JsonError as error:
                raise TableError(error.slug, f"Line {number}: {error.detail}", row=row) from None


def _source(
    read: Callable[[], Iterator[list[Any]]], names: list[str] | None, options: ParseOptions
) -> Source:
    """Return the source of rows, of which all are looked at once for their members and the kinds of their cells."""
    keys, listed = _keys(read, options)
    names = names if listed else None
    check_columns(len(keys), options=options)
    if names is not None and len(names) != len(keys):
        text = f"There are {len(names)} names, but row 1 has {len(keys)} values."
        raise TableError("dataset-shape", text)
    mended, nameless, warnings = mend_names(names or keys)

    def lists() -> Iterator[list[Sequence[Any]]]:
        before = 0
        for rows in read():
            yield cell_rows(rows, keys, listed=listed, before=before)
            before += len(rows)

    kinds = _kinds(lists(), len(keys))
    types = [_type_of(found) for found in kinds]
    nested = {place: NESTED for place, found in enumerate(kinds) if found & {list, dict}}

    def batches() -> Iterator[pa.RecordBatch]:
        for rows in lists():
            for start in range(0, len(rows), _STEP_ROWS):
                yield _batch(rows[start : start + _STEP_ROWS], types, nested)

    return Source(
        names=mended,
        dtypes=["float64" if kind == pa.float64() else "string" for kind in types],
        types=types,
        named=not listed or names is not None,
        nameless=nameless,
        batches=batches,
        warnings=warnings,
        unread=nested,
    )


def _batch(
    rows: Sequence[Sequence[Any]], types: Sequence[pa.DataType], nested: Container[int]
) -> pa.RecordBatch:
    columns = [
        pa.nulls(len(rows), pa.string())
        if at in nested
        else _cells([row[at] for row in rows], kind)
        for at, kind in enumerate(types)
    ]
    return pa.record_batch(columns, names=[str(at) for at in range(len(types))])


def _keys(read: Callable[[], Iterator[list[Any]]], options: ParseOptions) -> tuple[list[str], bool]:
    """Return the keys of all columns, and whether rows are lists; members of objects come in their order."""
    first = next((row for rows in read() for row in rows), None)
    if first is None:
        raise TableError("dataset-empty", "The file has no rows.")
    if isinstance(first, list):
        return default_names(len(first)), True
    if not isinstance(first, dict):
        raise _misshapen(1, "is neither a list nor an object")
    found: dict[str, None] = {}
    for row in (row for rows in read() for row in rows):
        if isinstance(row, dict) and not row.keys() <= found.keys():
            found.update(dict.fromkeys(row))
            check_columns(len(found), options=options)
    return list(found), False


def _kinds(parts: Iterator[list[Sequence[Any]]], width: int) -> list[set[type]]:
    kinds: list[set[type]] = [set() for _ in range(width)]
    for rows in parts:
        for place, found in enumerate(kinds):
            found.update(map(type, map(itemgetter(place), rows)))
    return kinds


def _type_of(kinds: set[type]) -> pa.DataType:
    if kinds <= _NUMBERS and kinds != {type(None)}:
        return pa.float64()
    return pa.bool_() if kinds <= {bool, type(None)} and bool in kinds else pa.string()


def _cells(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind == pa.bool_():
        return pa.array(values, kind)
    cells = json_cells(values)
    return cells if cells.type == kind else as_text(cells)


def _about_members(document: dict[str, Any]) -> str:
    """Return the sentence that says where the rows of a document of another form seem to be."""
    lists = [name for name, value in document.items() if isinstance(value, list) and value]
    for name in lists:
        if name != COLUMNS and isinstance(document[name][0], dict | list):
            return f" Its rows seem to be in {name[:_SHOWN]!r}: send that list alone."
    if len(lists) == len(document) and document:
        return " Its members seem to be columns: send a list of rows, or Arrow or Parquet."
    return ""


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _misshapen(row: int, reason: str) -> TableError:
    return TableError("dataset-shape", f"Row {row} {reason}.", row=row)
