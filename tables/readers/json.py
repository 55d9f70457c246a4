"""Reading one JSON document of rows in pieces, however long it is.

The document is ``{"rows": [...], "columns": [...]}`` (``columns`` may be left out or come first),
or the list of rows alone. A first pass finds where the rows begin and end, a second parses them:
rows are flat, so the end of a row can be told without parsing what is before it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tables.errors import JsonError, TableError
from tables.formats import ParseOptions
from tables.readers.table_json_rows import JsonRows, loads_rows, table_error
from tables.source import Columns, TableSource, gather
from tables.strict_json import parse_strict

BLOCK_BYTES = 512 << 10
"""The unit of reading."""

MAX_ROW_BYTES = 4 << 20
"""The longest row that is accepted, and the most that may stand around the rows."""

_SPACE = b" \t\r\n"
_KEY = re.compile(rb'[ \t\r\n]*("(?:[^"\\]|\\.)*+")[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_COMMA = re.compile(rb"[ \t\r\n]*,")
_LIST_OF_STRINGS = re.compile(rb'\[(?:[^"\[\]{}]|"(?:[^"\\]|\\.)*+")*+\]', re.DOTALL)
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_END_OF_LISTS = re.compile(rb"\][ \t\r\n]*\]")
_END_OF_OBJECTS = re.compile(rb"\}[ \t\r\n]*\]")
_FORM = 'The document must be {"rows": [...], "columns": [...]} or a list of rows.'
_FLAT = "Rows are all lists or all objects, and hold numbers alone."


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where the rows of a document are.

    Attributes:
        start: the first byte after the bracket that opens the list.
        stop: its closing bracket.
        objects: whether the rows are objects.
        columns: the names that the document gives.
    """

    start: int
    stop: int
    objects: bool
    columns: list[str] | None


def open_json(path: Path, options: ParseOptions) -> TableSource:
    """Open a JSON document.

    Raises:
        TableError: the document has another form, or its first row is no row.
    """
    layout = _locate(path)
    first = next(_pieces(path, layout), None)
    if first is None:
        raise TableError("dataset-empty", "The document has no rows.")
    parsed = _parse(first)
    rows = JsonRows(parsed[0], names=layout.columns, options=options)
    return TableSource(
        names=rows.names,
        dtypes=["float64"] * len(rows.names),
        named=rows.named,
        chunks=gather(_chunks(path, layout, rows)),
        warnings=[],
    )


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Whole rows with the commas between them, and the line that they begin in."""

    text: bytes
    line: int


def _chunks(path: Path, layout: _Layout, rows: JsonRows) -> Iterator[Columns]:
    for piece in _pieces(path, layout):
        parsed = _parse(piece)
        try:
            yield rows.columns(parsed, piece.text)
        except JsonError as error:
            raise _error(error, piece) from None


def _parse(piece: _Piece) -> list[Any]:
    try:
        parsed = loads_rows(b"[%b]" % piece.text)
    except JsonError as error:
        raise _error(error, piece) from None
    if not isinstance(parsed, list) or not parsed:
        raise TableError("json-syntax", f"From line {piece.line} on: there is a comma too many.")
    return parsed


def _error(error: JsonError, piece: _Piece) -> TableError:
    return table_error(error, where=f"Of what begins in line {piece.line}")


def _locate(path: Path) -> _Layout:
    with path.open("rb") as file:
        head = file.read(MAX_ROW_BYTES)
        if not head.strip(_SPACE):
            raise TableError("dataset-empty", "The document is empty.")
        start, columns, alone = _read_head(head)
        kind = head[start:].lstrip(_SPACE)[:1]
        objects = kind == b"{"
        if kind == b"]":
            raise TableError("dataset-empty", "The document has no rows.")
        if kind not in (b"[", b"{"):
            raise _refused(head, "Row 1 is neither a list nor an object.")
        stop = _find_end(file, start, objects=objects)
        if stop is None:
            raise _refused(head, f"The list of rows has no end. {_FLAT}")
        file.seek(stop + 1)
        tail = file.read(MAX_ROW_BYTES + 1)
    if alone and not tail.strip(_SPACE):
        return _Layout(start=start, stop=stop, objects=objects, columns=None)
    names, ended = _read_tail(tail, columns=columns)
    if alone or not ended:
        raise _refused(head, f"What follows the rows is not as it should be. {_FORM} {_FLAT}")
    return _Layout(start=start, stop=stop, objects=objects, columns=names)


def _read_head(head: bytes) -> tuple[int, list[str] | None, bool]:
    """Where the rows begin, the names if they come first, and whether the list stands alone."""
    opening = len(head) - len(head.lstrip(_SPACE))
    if head[opening : opening + 1] == b"[":
        return opening + 1, None, True
    if head[opening : opening + 1] != b"{":
        raise _refused(head, _FORM)
    place = opening + 1
    columns = None
    while True:
        match = _KEY.match(head, place)
        if match is None:
            raise _refused(head, _FORM)
        place = match.end()
        key = _loads(match[1])
        if key == "rows" and head[place : place + 1] == b"[":
            return place + 1, columns, False
        if key != "columns" or columns is not None:
            raise _refused(head, _FORM)
        columns, place = _read_names(head, place)
        comma = _COMMA.match(head, place)
        if comma is None:
            raise _refused(head, _FORM)
        place = comma.end()


def _read_names(text: bytes, place: int) -> tuple[list[str], int]:
    match = _LIST_OF_STRINGS.match(text, place)
    names = None if match is None else _loads(match[0])
    if match is None or not isinstance(names, list):
        raise TableError("dataset-shape", "`columns` must be a list of names.")
    if not all(isinstance(name, str) for name in names):
        raise TableError("dataset-shape", "`columns` must be a list of names.")
    return names, match.end()


def _read_tail(tail: bytes, *, columns: list[str] | None) -> tuple[list[str] | None, bool]:
    """The names, which may come after the rows, and whether the document ends as it should."""
    place = 0
    comma = _COMMA.match(tail)
    key = None if comma is None else _KEY.match(tail, comma.end())
    if columns is None and key is not None and _loads(key[1]) == "columns":
        columns, place = _read_names(tail, key.end())
    return columns, len(tail) <= MAX_ROW_BYTES and tail[place:].strip(_SPACE) == b"}"


def _find_end(file: BinaryIO, start: int, *, objects: bool) -> int | None:
    """The place of the bracket that closes the list of rows."""
    file.seek(start)
    place, rest = start, b""
    while block := file.read(BLOCK_BYTES):
        text = rest + block
        found = _end_of_rows(text, objects=objects)
        if found is not None:
            return place + found
        keep = _row_end(text, objects=objects)
        # The closing bracket may be in the next block: its row's end stays.
        keep = max(0, keep - 1)
        rest = text[keep:]
        place += keep
        if len(rest) > MAX_ROW_BYTES:
            raise _too_long()
    return None


def _end_of_rows(text: bytes, *, objects: bool) -> int | None:
    if not objects:
        match = _END_OF_LISTS.search(text)
        return None if match is None else match.end() - 1
    plain = _unescaped(text)
    quotes = at = 0
    for match in _END_OF_OBJECTS.finditer(plain):
        quotes += plain.count(b'"', at, match.start())
        at = match.start()
        if quotes % 2 == 0:  # outside of any string
            return match.end() - 1
    return None


def _row_end(text: bytes, *, objects: bool) -> int:
    """The place after the last row that ends in `text`, which begins outside of strings."""
    if not objects:
        return text.rfind(b"]") + 1
    plain = _unescaped(text)
    stop = len(plain)
    inside = plain.count(b'"') % 2 == 1
    while True:
        if inside:
            stop = plain.rfind(b'"', 0, stop)
            inside = False
        found = plain.rfind(b"}", 0, stop)
        if found < 0:
            return 0
        if plain.count(b'"', found, stop) % 2 == 0:
            return found + 1
        stop, inside = found, True


def _unescaped(text: bytes) -> bytes:
    """The text, as long as before, without escaped quotation marks."""
    return _ESCAPE.sub(b"__", text) if b"\\" in text else text


def _pieces(path: Path, layout: _Layout) -> Iterator[_Piece]:
    """The rows of the document, a block at a time."""
    left = layout.stop - layout.start
    with path.open("rb") as file:
        line = 1 + file.read(layout.start).count(b"\n")
        rest = b""
        first = True
        while left > 0 or rest.strip(_SPACE):
            block = file.read(min(BLOCK_BYTES, left))
            left -= len(block)
            text = rest + block
            if left == 0 and not text.strip(_SPACE):
                return
            stop = _row_end(text, objects=layout.objects) if left > 0 else len(text)
            if stop == 0:
                if len(text) > MAX_ROW_BYTES:
                    raise _too_long()
                rest = text
                continue
            yield _Piece(text=_without_comma(text[:stop], first=first, line=line), line=line)
            line += text.count(b"\n", 0, stop)
            first = False
            rest = text[stop:]


def _without_comma(text: bytes, *, first: bool, line: int) -> bytes:
    """The rows without the comma that parts them from those before."""
    if first:
        return text
    bare = text.lstrip(_SPACE)
    if not bare.startswith(b","):
        raise TableError("json-syntax", f"In line {line} or after it, a comma is missing.")
    return bare[1:]


def _loads(text: bytes) -> Any:  # noqa: ANN401  JSON is anything
    try:
        return parse_strict(text)
    except JsonError as error:
        raise table_error(error, where="At the names") from None


def _refused(head: bytes, detail: str) -> TableError:
    """What is wrong with a document that does not even begin as one of rows."""
    if len(head) < MAX_ROW_BYTES:
        try:
            parse_strict(head)
        except JsonError as error:
            return table_error(error, where="The document")
    elif head.startswith(b"\xef\xbb\xbf"):
        return TableError("json-encoding", "The document must have no byte order mark.")
    return TableError("dataset-shape", detail)


def _too_long() -> TableError:
    return TableError("dataset-parse", f"A row is longer than {MAX_ROW_BYTES >> 20} MiB.")
