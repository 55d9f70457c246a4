"""How a CSV file is written: its encoding, its separator, the lines above its header, and whether it has one."""

import codecs
import csv
import io
import os
import re
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO

from tabular.errors import TableError
from tabular.formats import ParseOptions, TableWarning, remedy, warning
from tabular.source import default_names

if TYPE_CHECKING:
    from _csv import Reader

_SNIFFED_BYTES = 256 << 10
_SNIFFED_LINES = 200
_MAX_CELL_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20
_SEPARATORS = ("\t", ";", "|", ",", " ")  # the first of those that split the lines as evenly
_FEWEST_BELOW = 5
_VALUE = re.compile(r"[+-]?[.,]?\d.*|nan|na|null|", re.IGNORECASE | re.DOTALL)
_WHOLE = re.compile(r"\d+")
_DECIMALS = re.compile(r"[+-]?\d*[.,]\d+")


class TextFile:
    """Text of a file in UTF-8: the file itself, or a copy of one in another encoding.

    Attributes:
        warnings: Warning about the encoding, where it was not told and is not UTF-8.

    Raises:
        TableError: The file is of another encoding than it says or the options tell.
    """

    def __init__(self, path: Path, options: ParseOptions) -> None:
        self.warnings: list[TableWarning] = []
        self._path = path
        self._copy: BinaryIO | None = None  # of no name, which goes with this object
        encoding = options.encoding or _marked_encoding(path)
        self.encoding = encoding or "utf-8"
        if encoding in {None, "utf-8"}:
            line = _first_bad_line(path)
            if line is None:
                return
            if encoding is not None:
                raise TableError("dataset-encoding", "The file is not UTF-8.")
            detail = (
                f"The file is not UTF-8, as line {line} shows, and is read as cp1252, of Windows in Western"
                " Europe. If its letters look wrong, upload it again and state encoding=."
            )
            self.encoding = "cp1252"
            choose = remedy("encoding", None, "Choose the encoding")
            self.warnings.append(warning("encoding", None, detail, choose))
        self._copy = TemporaryFile(dir=path.parent)  # noqa: SIM115 - it stays open
        weakref.finalize(self, self._copy.close)
        _copy_as_utf8(path, self.encoding, self._copy)

    def open(self, start: int = 0) -> BinaryIO:
        """Open the text at a byte, of which a mark of UTF-8 is none."""
        file = (
            self._path.open("rb")
            if self._copy is None
            else os.fdopen(os.dup(self._copy.fileno()), "rb")
        )
        file.seek(0)
        mark = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
        file.seek(mark + start)
        return file


def _marked_encoding(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(4096)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if start.count(0) > len(start) // 4:
        raise TableError(
            "dataset-encoding",
            "The file has many zero bytes, as UTF-16 has, but no byte order mark: state encoding=utf-16.",
        )
    return None


def _first_bad_line(path: Path) -> int | None:
    """Return the number of the first line that is not UTF-8; None if all are."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, chunk = 1, b"-"
    with path.open("rb") as file:
        while chunk:
            chunk = file.read(_CHUNK_BYTES)
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                return line + error.object[: error.start].count(b"\n")
    return None


def _copy_as_utf8(path: Path, encoding: str, copy: BinaryIO) -> None:
    try:
        with path.open(encoding=encoding, newline="") as text:
            while chunk := text.read(_CHUNK_BYTES):
                copy.write(chunk.encode())
    except UnicodeError:
        raise TableError(
            "dataset-encoding", f"The file is neither UTF-8 nor {encoding}: state its encoding=."
        ) from None
    copy.flush()


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How the rows of a CSV file are written.

    Attributes:
        names: Names of the columns as the file has them, or `x1` to `xD`.
        named: True where the file gives the names.
        start: Byte of the text at which the first row begins.
        warnings: Warnings about the lines above the rows.
    """

    delimiter: str
    names: list[str]
    named: bool
    start: int
    line: int
    warnings: list[TableWarning] = field(default_factory=list)


def find_dialect(text: TextFile, options: ParseOptions) -> Dialect:
    """Look at the first lines of a file.

    Raises:
        TableError: The file has no rows, or a quotation mark in its first line is never closed.
    """
    with text.open() as file:
        sniffed = file.read(_SNIFFED_BYTES)
        is_whole = not file.read(1)
    lines = list(io.StringIO(sniffed.decode(errors="ignore"), newline=""))
    if not is_whole and len(lines) > 1:
        lines.pop()
    delimiter, width, skipped = _split(lines[:_SNIFFED_LINES], options.delimiter)
    reader = rows_of(lines[skipped:], delimiter)
    first, first_line = next(((row, reader.line_num) for row in reader if row), ([], 0))
    if not first:
        raise TableError("dataset-empty", "The file is empty.")
    below = [row for row, _ in zip(filter(None, reader), range(_SNIFFED_LINES), strict=False)]
    warnings = [lines_above(skipped, "Line")] if skipped else []
    named, doubt = _is_header(first, below, told=options.header)
    if doubt:
        label = "Take the first line for a row" if named else "Take the first line for names"
        other = remedy("header", not named, label)
        warnings.append(warning("numeric_header", None, doubt, other))
    names = first if named else default_names(max(len(first), width))
    if named and len(first) < width and below:
        # R leaves out the name of its row names; others end each row with a separator.
        names = [*first, ""] if below[0][-1:] == [""] else ["", *first]
    above = lines[: skipped + (first_line if named else 0)]
    return Dialect(
        delimiter=delimiter,
        names=names,
        named=named,
        start=sum(len(line.encode()) for line in above),
        line=len(above) + 1,
        warnings=warnings,
    )


def rows_of(lines: Iterable[str], delimiter: str, *, strict: bool = False) -> "Reader":
    """Return the reader of lines.

    Args:
        strict: True to refuse text behind a closing quote, and a quote without an end.
    """
    csv.field_size_limit(_MAX_CELL_BYTES)
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=strict)


def _split(lines: Sequence[str], delimiter: str | None) -> tuple[str, int, int]:
    """Return the separator, the usual number of values, and the number of lines above the first row that has it."""
    best, mark, width = (0.0, False), delimiter or ",", 1
    for one in [delimiter] if delimiter else _SEPARATORS:
        rows = [row for row in rows_of(lines, one) if row]
        widths = Counter(map(len, rows))
        usual, count = max(widths.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        # The wrong one leaves quotes within values; blanks are between words, too.
        clean = not any('"' in cell for row in rows for cell in row)
        score = (count / max(1, len(rows)), clean)
        if usual > 1 and score > best and (one != " " or score == (1.0, True)):
            best, mark, width = score, one, usual
    return mark, width, 0 if width == 1 else _lines_above(lines, mark, width)


def _lines_above(lines: Sequence[str], mark: str, width: int) -> int:
    """Return the number of lines above the first row of about the usual number of values."""
    reader, skipped, longer = rows_of(lines, mark), 0, None
    for row in reader:
        if len(row) >= width - 1 and sum(map(bool, row)) > int(width > 2):
            if longer is not None:
                # The longer one is a header whose last columns are empty in all rows, or a line above it.
                is_names = not any(map(_VALUE.fullmatch, map(str.strip, row)))
                return skipped if is_names else longer
            if len(row) <= width:
                return skipped
            longer = skipped
        skipped = reader.line_num
    return longer or 0


def _is_header(
    first: list[str], below: list[list[str]], *, told: bool | None
) -> tuple[bool, str | None]:
    """Return whether a line names the columns, and what is to be said where that may be wrong."""
    if told is not None:
        return told, None
    if not all(map(_VALUE.fullmatch, map(str.strip, first))):
        if _recurs(first, below):
            return False, _TAKEN_FOR_ROW
        if any(_DECIMALS.fullmatch(name.strip()) for name in first):
            return True, (
                "Some names of columns are numbers. If the first line is a row, upload the file again and"
                " state header=false."
            )
        return True, None
    if _are_unlike(first, below):
        return True, (
            "The first line holds whole numbers above numbers with decimals, and is read as names. If it is a"
            " row, upload the file again and state header=false."
        )
    return False, _TAKEN_FOR_ROW


_TAKEN_FOR_ROW = (
    "The first line looks like the rows below it, and is read as one: the columns are named x1, x2 and so on."
    " If it names the columns, upload the file again and state header=true."
)


def _recurs(first: list[str], below: list[list[str]]) -> bool:
    """Return whether all texts of a line come again in their columns, in lines that are not the same."""
    others = [row for row in below if row != first]
    columns = [{row[at] for row in others if at < len(row)} for at in range(len(first))]
    texts = [at for at, cell in enumerate(first) if not _VALUE.fullmatch(cell.strip())]
    return all(first[at] in columns[at] for at in texts)


def _are_unlike(first: list[str], below: list[list[str]]) -> bool:
    """Return whether a line of whole numbers stands above numbers with decimals alone."""
    cells = [cell.strip() for cell in first]
    if len(below) < _FEWEST_BELOW or len(set(cells)) < len(cells):
        return False
    return all(map(_WHOLE.fullmatch, cells)) and all(
        _DECIMALS.fullmatch(cell.strip()) for row in below for cell in row
    )


def lines_above(lines: int, what: str) -> TableWarning:
    """Return the warning about lines, or rows of a sheet, above a table."""
    text = f"{what} 1 stands" if lines == 1 else f"{what}s 1 to {lines} stand"
    left = "is left out" if lines == 1 else f"are left out: {lines} in all"
    return warning("skipped", None, f"{text} above the table, and {left}.")
