"""Reading CSV: the header by ourselves, the rows by Arrow's streaming reader."""

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.csv as pa_csv  # type: ignore[import-untyped] # as above

from tables.cells import MISSING_SPELLINGS
from tables.errors import TableError
from tables.formats import ParseOptions, TableWarning
from tables.readers.arrow import columns_of
from tables.source import (
    Columns,
    TableSource,
    check_columns,
    clean_names,
    default_names,
    gather,
    look_numeric,
)

BLOCK_BYTES = 512 << 10
"""The unit of reading, and so the longest line that is accepted."""

_BOM = b"\xef\xbb\xbf"
_OTHER_DELIMITERS = ";\t|,"
_CONVERSION = re.compile(
    r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error[^']*'(.*)'", re.DOTALL
)
_RAGGED = re.compile(r"CSV parse error: (?:Row #(\d+): )?Expected (\d+) columns, got (\d+)")
_UNCLOSED = "A quoted value is never closed or spans several lines; values are numbers on one line."
_TOO_LONG = f"A line is longer than {BLOCK_BYTES >> 10} KiB."


@dataclass(frozen=True, kw_only=True)
class _FirstLine:
    """The first line that is not blank.

    Attributes:
        fields: Values of the line.
        blank_lines: Number of blank lines before it.
    """

    fields: list[str]
    blank_lines: int


def open_csv(path: Path, options: ParseOptions) -> TableSource:
    """Open a CSV file.

    Raises:
        TableError: The file is empty, has a bad header or too many columns.
    """
    first = _read_first_line(path, options)
    check_columns(len(first.fields), options=options)
    warnings: list[TableWarning] = []
    if options.header:
        names = clean_names(first.fields)
        if look_numeric(names):
            warnings.append(_numeric_header())
    else:
        names = default_names(len(first.fields))
    chunks = gather(_Rows(path, options, names=names, blank_lines=first.blank_lines).chunks())
    return TableSource(
        names=names,
        dtypes=["float64"] * len(names),
        named=options.header,
        chunks=chunks,
        warnings=warnings,
    )


class _Rows:
    """Rows of one CSV file, and the translation of Arrow's error messages."""

    def __init__(
        self, path: Path, options: ParseOptions, *, names: list[str], blank_lines: int
    ) -> None:
        self.path = path
        self.options = options
        self.names = names
        self.blank_lines = blank_lines

    def chunks(self) -> Iterator[Columns]:
        _check_last_line(self.path)
        try:
            # By descriptor: by name, Arrow would guess a compression from the file's extension.
            with pa.OSFile(os.fspath(self.path)) as file, self._reader(file) as reader:
                for batch in reader:
                    yield columns_of(batch)
        except MemoryError:
            raise
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise self._explain(str(error)) from None

    def _reader(self, file: pa.NativeFile) -> pa_csv.CSVStreamingReader:
        # Names of our own: Arrow tells column types by name, and a caller's name may be anything.
        placeholders = [str(i) for i in range(len(self.names))]
        return pa_csv.open_csv(
            file,
            read_options=pa_csv.ReadOptions(
                use_threads=False,  # with threads its messages lose the row number
                block_size=BLOCK_BYTES,
                column_names=placeholders,
                skip_rows=self.blank_lines + 1 if self.options.header else 0,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self.options.delimiter,
                # In a file of one column, a blank line is a missing value.
                ignore_empty_lines=len(self.names) > 1,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(placeholders, pa.float64()),
                null_values=_missing_values(),
                strings_can_be_null=True,
            ),
        )

    def _explain(self, message: str) -> TableError:
        """Return the error for a message of Arrow, without the values that it quotes."""
        if match := _CONVERSION.match(message):
            return self._not_a_number(int(match[1]), self._row(match[2]), value=match[3])
        if match := _RAGGED.match(message):
            row = self._row(match[1])
            return TableError(
                "dataset-parse",
                f"{_at(row)} has {match[3]} value(s) instead of {match[2]}.{self._delimiter_advice()}",
                row=row,
            )
        if "straddling object" in message:
            return TableError("dataset-parse", _TOO_LONG)
        if "out of sync" in message:
            return TableError("dataset-parse", _UNCLOSED)
        if "Could not skip" in message or "Empty CSV" in message:
            return TableError("dataset-empty", "The file has a header but no rows.")
        return TableError("dataset-parse", "The file cannot be read as CSV.")

    def _not_a_number(self, column: int, row: int | None, *, value: str) -> TableError:
        name = self.names[column]
        if "\n" in value or "\r" in value:
            return TableError("dataset-parse", _UNCLOSED, column=name, row=row)
        advice = self._delimiter_advice()
        if row == 1 and not self.options.header:
            advice = " If the first line is a header, leave out header=false."
        return TableError(
            "dataset-dtype",
            f"Column {name!r}, {_at(row).lower()}: the value is not a number. Numbers are written"
            f" with a decimal point and without separators of thousands.{advice}",
            column=name,
            row=row,
        )

    def _row(self, physical: str | None) -> int | None:
        return None if physical is None else int(physical) - int(self.options.header)

    def _delimiter_advice(self) -> str:
        if len(self.names) == 1 and any(c in self.names[0] for c in _OTHER_DELIMITERS):
            return " If the values are separated by another character, name it by delimiter=."
        return ""


def _read_first_line(path: Path, options: ParseOptions) -> _FirstLine:
    with path.open("rb") as file:
        start = file.read(BLOCK_BYTES)
        whole = not file.read(1)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TableError("dataset-encoding", "The file is UTF-16; CSV must be UTF-8.")
    text = start.removeprefix(_BOM)
    content = text.lstrip(b"\r\n")
    if not content.strip():
        raise TableError("dataset-empty", "The file is empty.")
    line = re.split(rb"[\r\n]", content, maxsplit=1)[0]
    if len(line) == len(content) and not whole:
        check_columns(line.count(options.delimiter.encode()) + 1, options=options)
        raise TableError("dataset-parse", _TOO_LONG)
    blank = text[: len(text) - len(content)]
    return _FirstLine(
        fields=_split(line, options), blank_lines=len(re.findall(rb"\r\n|\r|\n", blank))
    )


def _split(line: bytes, options: ParseOptions) -> list[str]:
    if options.header and b"\x00" in line:
        raise TableError(
            "dataset-encoding", "The header holds NUL bytes; CSV must be UTF-8, not UTF-16."
        )
    try:
        # A line of data is only counted here: its values are judged with those of its column.
        decoded = line.decode(errors="strict" if options.header else "replace")
        reader = csv.reader(
            [decoded], delimiter=options.delimiter, strict=True, skipinitialspace=True
        )
        return next(reader)
    except UnicodeDecodeError:
        raise TableError("dataset-encoding", "The header is not UTF-8.") from None
    except csv.Error:
        raise TableError("dataset-parse", "The quotes of the first line do not match.") from None


def _check_last_line(path: Path) -> None:
    """Refuse an unclosed quote at the end, which Arrow reads as if it were closed."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - BLOCK_BYTES))
        end = file.read()
    last = re.split(rb"[\r\n]", end.rstrip(b"\r\n"))[-1]
    if last.count(b'"') % 2:
        raise TableError("dataset-parse", _UNCLOSED)


def _missing_values() -> list[str]:
    # Arrow trims white space around numbers, but not around these; one space after a comma is
    # common.
    return [space + spelling for spelling in MISSING_SPELLINGS for space in ("", " ")]


def _at(row: int | None) -> str:
    return "A row" if row is None else f"Row {row}"


def _numeric_header() -> TableWarning:
    return {
        "code": "numeric_header",
        "column": None,
        "detail": "All column names are numbers. If the first line is data, it was taken for a"
        " header and is not in the table: upload the file again with header=false.",
    }
