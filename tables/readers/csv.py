"""Reading CSV: the header by ourselves, the rows by Arrow's streaming reader."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
import pyarrow.csv as pa_csv  # type: ignore[import-untyped] # as above

from tables.cells import MISSING_SPELLINGS
from tables.dates import COMPACT
from tables.errors import TableError
from tables.formats import DELIMITERS, Delimiter, ParseOptions, TableWarning
from tables.numerals import parse_numbers
from tables.readers.arrow import columns_of
from tables.readers.text import TextFile, open_text
from tables.source import (
    CellSource,
    Columns,
    NotNumbersError,
    TableSource,
    check_columns,
    clean_names,
    default_names,
    gather,
    look_numeric,
    mend_names,
)

BLOCK_BYTES = 512 << 10
"""The unit of reading, and so the longest line that is accepted."""

_SNIFFED_BYTES = 64 << 10
_SNIFFED_ROWS = 200
_SEPARATOR_LINE = re.compile(rb'(?i)"?sep=([,;\t| ])"?(\r\n|\r|\n)')
_LINE_END = re.compile(rb"\r\n|\r|\n")
_EVEN, _SURELY_EVEN = 0.5, 0.99  # shares of rows with as many values as the first
_MOST_ABOVE, _FEWEST_BELOW = 20, 4
_CODE = r"^[+-]?0\d"
_OTHER_DELIMITERS = ";\t|,"
_CONVERSION = re.compile(
    r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error[^']*'(.*)'", re.DOTALL
)
_RAGGED = re.compile(r"CSV parse error: (?:Row #(\d+): )?Expected (\d+) columns, got (\d+)")
_UNCLOSED = "A quoted value is never closed."
_TOO_LONG = f"A line is longer than {BLOCK_BYTES >> 10} KiB."


@dataclass(frozen=True, kw_only=True)
class _FirstLine:
    """The first line that is not blank.

    Attributes:
        fields: Values of the line.
        skipped: Number of lines before it.
        delimiter: Separator of its values.
        above: Number of these lines that are not blank, such as comments.
    """

    fields: list[str]
    skipped: int
    delimiter: Delimiter
    above: int = 0


def open_csv(path: Path, options: ParseOptions) -> TableSource:
    """Open a CSV file of numbers.

    Raises:
        TableError: The file is empty, has a bad header or too many columns.
    """
    text = open_text(path, options.encoding or "utf-8")
    first = _read_first_line(text, options, sniff=False)
    check_columns(len(first.fields), options=options)
    warnings: list[TableWarning] = []
    if options.header:
        names = clean_names(first.fields)
        if look_numeric(names):
            warnings.append(_numeric_header())
    else:
        names = default_names(len(first.fields))
    rows = _Rows(text, options, names=names, first=first)
    return TableSource(
        names=names,
        dtypes=["float64"] * len(names),
        named=options.header,
        chunks=gather(rows.chunks()),
        warnings=warnings,
    )


def open_csv_cells(path: Path, options: ParseOptions) -> CellSource:
    """Open a CSV file of numbers, text or anything else.

    Raises:
        TableError: The file is empty, or has too many columns.
    """
    text = open_text(path, options.encoding)
    first = _read_first_line(text, options, sniff=options.delimiter is None)
    check_columns(len(first.fields), options=options)
    warnings = list(text.warnings)
    if first.above:
        warnings.append(_skipped(first.above))
    nameless: frozenset[int] = frozenset()
    names = default_names(len(first.fields))
    if options.header:
        names, nameless, renamed = mend_names(first.fields)
        warnings += renamed
        if look_numeric(names) or any(map(_is_fraction, first.fields)):
            warnings.append(_numeric_header())
    rows = _Rows(text, options, names=names, first=first)
    found = rows.text_columns()
    return CellSource(
        names=names,
        dtypes=["string" if place in found else "float64" for place in range(len(names))],
        named=options.header,
        nameless=nameless,
        text=found,
        read=rows.cells,
        warnings=warnings,
    )


class _Rows:
    """Rows of one CSV file, and the translation of Arrow's error messages."""

    def __init__(
        self, text: TextFile, options: ParseOptions, *, names: list[str], first: _FirstLine
    ) -> None:
        self.text = text
        self.options = options
        self.names = names
        self.first = first

    def chunks(self) -> Iterator[Columns]:
        """Yield all rows as numbers."""
        for batch in self._batches(frozenset()):
            yield columns_of(batch)

    def cells(self, text: frozenset[int]) -> Iterator[pa.RecordBatch]:
        """Yield all rows, some columns as text and the others as numbers."""
        last: pa.RecordBatch | None = None
        rows = 0
        try:
            for batch in self._batches(text):
                rows += batch.num_rows
                last = batch
                yield batch
        except _ConversionError as error:
            raise NotNumbersError(error.place) from None
        if last is not None and self.text.quotes % 2 and _spans_lines(last):
            raise TableError("dataset-parse", _UNCLOSED, row=rows)

    def text_columns(self) -> frozenset[int]:
        """Return the columns that hold more than numbers among the first rows."""
        every = frozenset(range(len(self.names)))
        batch = next(self._batches(every), None)
        if batch is None:
            return frozenset()
        missing = pa.array(_missing_values(self.options.na_values), pa.string())
        return frozenset(
            place for place, cells in enumerate(batch.columns) if not _are_numbers(cells, missing)
        )

    def _batches(self, text: frozenset[int]) -> Iterator[pa.RecordBatch]:
        self._check_last_line()
        try:
            with self.text.open() as file, self._reader(file, text) as reader:
                for batch in reader:
                    if batch.num_rows:
                        yield batch
        except MemoryError:
            raise
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise self._explain(str(error)) from None

    def _reader(self, file: pa.NativeFile, text: frozenset[int]) -> pa_csv.CSVStreamingReader:
        # Names of our own: Arrow tells column types by name, and a caller's name may be anything.
        kinds = {
            str(place): pa.string() if place in text else pa.float64()
            for place in range(len(self.names))
        }
        return pa_csv.open_csv(
            file,
            read_options=pa_csv.ReadOptions(
                use_threads=False,  # with threads its messages lose the row number
                block_size=BLOCK_BYTES,
                column_names=list(kinds),
                skip_rows=self.first.skipped + 1 if self.options.header else self.first.skipped,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self.first.delimiter,
                newlines_in_values=self.text.quotes > 0,
                # In a file of one column, a blank line is a missing value.
                ignore_empty_lines=len(self.names) > 1,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=kinds,
                null_values=_missing_values(self.options.na_values),
                strings_can_be_null=False,
            ),
        )

    def _explain(self, message: str) -> TableError:
        """Return the error for a message of Arrow, without the values that it quotes."""
        if match := _CONVERSION.match(message):
            return self._not_a_number(int(match[1]), self._row(match[2]))
        if "straddling object" in message or "out of sync" in message:
            return TableError("dataset-parse", _UNCLOSED if self.text.quotes % 2 else _TOO_LONG)
        if match := _RAGGED.match(message):
            row = self._row(match[1])
            return TableError(
                "dataset-parse",
                f"{_at(row)} has {match[3]} value(s) instead of {match[2]}.{self._delimiter_advice()}",
                row=row,
            )
        if "Could not skip" in message or "Empty CSV" in message:
            return TableError("dataset-empty", "The file has a header but no rows.")
        if "UTF8" in message:
            return TableError("dataset-encoding", "The file is not UTF-8.")
        return TableError("dataset-parse", "The file cannot be read as CSV.")

    def _not_a_number(self, column: int, row: int | None) -> TableError:
        name = self.names[column]
        advice = self._delimiter_advice()
        if row == 1 and not self.options.header:
            advice = " If the first line is a header, leave out header=false."
        return _ConversionError(
            f"Column {name!r}, {_at(row).lower()}: the value is not a number. Numbers are written"
            f" with a decimal point and without separators of thousands.{advice}",
            column=name,
            place=column,
            row=row,
        )

    def _row(self, physical: str | None) -> int | None:
        if physical is None:
            return None
        return int(physical) - int(self.options.header)

    def _delimiter_advice(self) -> str:
        if len(self.names) == 1 and any(c in self.names[0] for c in _OTHER_DELIMITERS):
            return " If the values are separated by another character, name it by delimiter=."
        return ""

    def _check_last_line(self) -> None:
        """Refuse an unclosed quote in the last line, which Arrow reads as if it were closed."""
        last = re.split(rb"[\r\n]", self.text.end(BLOCK_BYTES).rstrip(b"\r\n"))[-1]
        delimiter = re.escape(self.first.delimiter.encode())
        if self.text.quotes % 2 and re.search(rb'(^|%b) *"[^"]*$' % delimiter, last):
            raise TableError("dataset-parse", _UNCLOSED)


class _ConversionError(TableError):
    """Cell that is not a number, in a column of numbers."""

    def __init__(self, detail: str, *, column: str, place: int, row: int | None) -> None:
        super().__init__("dataset-dtype", detail, column=column, row=row)
        self.place = place


def _are_numbers(cells: pa.Array, missing: pa.Array) -> bool:
    """Return whether all cells are numbers or missing, and neither codes with leading zeros nor dates."""
    known = pc.utf8_trim_whitespace(cells.filter(pc.invert(pc.is_in(cells, value_set=missing))))
    known = known.filter(pc.not_equal(known, ""))
    if not len(known):
        return True
    if np.isnan(parse_numbers(known)).any():
        return False
    if pc.any(pc.match_substring_regex(known, _CODE)).as_py():
        return False
    return not pc.all(pc.match_substring_regex(known, f"^{COMPACT.pattern}$")).as_py()


def _spans_lines(batch: pa.RecordBatch) -> bool:
    """Return whether a cell of the last row spans lines, as one that is never closed does."""
    last = batch.slice(batch.num_rows - 1)
    return any("\n" in str(cells[0].as_py()) for cells in last.columns)


def _read_first_line(text: TextFile, options: ParseOptions, *, sniff: bool) -> _FirstLine:
    start, whole = text.start(BLOCK_BYTES)
    delimiter = options.delimiter
    skipped = 0
    if sniff and (said := _SEPARATOR_LINE.match(start)):
        delimiter = DELIMITERS[[mark.encode() for mark in DELIMITERS].index(said[1])]
        start = start[said.end() :]
        skipped = 1
    content = start.lstrip(b"\r\n")
    if not content.strip():
        raise TableError("dataset-empty", "The file is empty.")
    above = 0
    skipped += len(_LINE_END.findall(start[: len(start) - len(content)]))
    if sniff and delimiter is None and options.header:
        above = _lines_above(content[:_SNIFFED_BYTES])
        ends = [0, *(end.end() for end in _LINE_END.finditer(content[:_SNIFFED_BYTES]))]
        rest = content[ends[above] :].lstrip(b"\r\n")
        skipped += len(_LINE_END.findall(content[: len(content) - len(rest)]))
        content = rest
    if delimiter is None:
        delimiter = _sniffed(content[:_SNIFFED_BYTES]) if sniff else ","
    line = re.split(rb"[\r\n]", content, maxsplit=1)[0]
    if len(line) == len(content) and not whole:
        check_columns(line.count(delimiter.encode()) + 1, options=options)
        raise TableError("dataset-parse", _TOO_LONG)
    fields = _split(line, options, delimiter=delimiter)
    if sniff and options.header:
        fields = _with_nameless(fields, _split_rows(_first_lines(content), delimiter))
    return _FirstLine(fields=fields, skipped=skipped, delimiter=delimiter, above=above)


def _first_lines(content: bytes) -> list[str]:
    """Return the first lines of a file, blank ones included."""
    start = content[:_SNIFFED_BYTES]
    lines = re.split(r"\r\n|\r|\n", start.decode(errors="replace"))
    if len(start) == _SNIFFED_BYTES:
        lines = lines[:-1]
    return [line + "\n" for line in lines[: _SNIFFED_ROWS + 1]]


def _sniffed(content: bytes) -> Delimiter:
    """Return the separator that splits the first rows into equally many values."""
    return _best_delimiter(_first_lines(content))[0]


def _best_delimiter(lines: list[str]) -> tuple[Delimiter, tuple[float, int]]:
    """Return the separator that splits lines into equally many values, and how well it does."""
    lines = [line for line in lines if line.strip("\n")]
    found: Delimiter = ","
    best = (0.0, 1)
    for delimiter in DELIMITERS:
        score = _evenness(lines, delimiter)
        if score > best:
            found, best = delimiter, score
    return found, best


def _lines_above(content: bytes) -> int:
    """Return the number of lines above a header: comments, or a title and the like."""
    lines = _first_lines(content)
    comments = next((n for n, line in enumerate(lines) if not line.startswith("#")), 0)
    if comments:
        below = lines[comments:]
        delimiter, (_, width) = _best_delimiter(below)
        last = _split_rows([lines[comments - 1]], delimiter)
        return comments - (width > 1 and len(last[0]) == width)
    if _best_delimiter(lines)[1][0] >= _EVEN or _lacks_a_name(lines):
        return 0
    for above in range(1, min(_MOST_ABOVE, len(lines) - _FEWEST_BELOW) + 1):
        if lines[above].strip() and _best_delimiter(lines[above:])[1][0] >= _SURELY_EVEN:
            return above
    return 0


def _lacks_a_name(lines: list[str]) -> bool:
    """Return whether all rows have one value more than the header, by some separator."""
    lines = [line for line in lines if line.strip()]
    return any(
        len(rows) > 1 and len(rows[0]) > 1 and {len(row) for row in rows[1:]} == {len(rows[0]) + 1}
        for rows in (_split_rows(lines, delimiter) for delimiter in DELIMITERS)
    )


def _with_nameless(fields: list[str], rows: list[list[str]]) -> list[str]:
    """Return the names of a header, with an empty one where all rows have one value more.

    It is that of the first column, of row names as R writes them; or of a last one without a value,
    where rows end with a separator.
    """
    below = [row for row in rows[1:] if row]
    if len(fields) < 2 or {len(row) for row in below} != {len(fields) + 1}:
        return fields
    return ["", *fields] if any(row[-1].strip() for row in below) else [*fields, ""]


def _split_rows(lines: list[str], delimiter: Delimiter) -> list[list[str]]:
    try:
        return list(csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != " "))
    except csv.Error:
        return []


def _evenness(lines: list[str], delimiter: Delimiter) -> tuple[float, int]:
    """Return the share of rows with as many values as the first, and this number, if it is above one.

    A header may lack one name.
    """
    rows = _split_rows(lines, delimiter)
    width = len(rows[0]) if rows else 0
    if width < 2:
        return (0.0, 0)
    if len(rows) > 1 and {len(row) for row in rows[1:]} == {width + 1}:
        rows, width = rows[1:], width + 1
    share = sum(len(row) == width for row in rows) / len(rows)
    if delimiter == " " and not (share == 1.0 and _some_numeric(rows[1:])):
        return (0.0, 0)  # words have spaces, too
    return (share, width)


def _some_numeric(rows: list[list[str]]) -> bool:
    """Return whether some column holds numbers alone, after the first row."""
    return bool(rows) and any(look_numeric(list(column)) for column in zip(*rows, strict=True))


def _split(line: bytes, options: ParseOptions, *, delimiter: Delimiter) -> list[str]:
    if options.header and b"\x00" in line:
        raise TableError(
            "dataset-encoding", "The header holds NUL bytes; CSV must be UTF-8, not UTF-16."
        )
    # A line of data is only counted here: its values are judged with those of its column.
    decoded = line.decode(errors="strict" if options.header else "replace")
    try:
        return next(csv.reader([decoded], delimiter=delimiter, strict=True, skipinitialspace=True))
    except csv.Error:
        raise TableError("dataset-parse", "The quotes of the first line do not match.") from None


def _missing_values(more: Sequence[str] = ()) -> list[str]:
    # Arrow trims white space around numbers, but not around these; one space after a comma is
    # common.
    names = (*MISSING_SPELLINGS, *more)
    return [space + spelling for spelling in names for space in ("", " ")]


def _at(row: int | None) -> str:
    return "A row" if row is None else f"Row {row}"


def _is_fraction(name: str) -> bool:
    """Return whether a name is a number with decimals, as hardly any name is."""
    return re.fullmatch(r"\s*[+-]?\d+\.\d+\s*", name) is not None


def _skipped(lines: int) -> TableWarning:
    text = "The first line is" if lines == 1 else f"The first {lines} lines are"
    return {
        "code": "skipped",
        "column": None,
        "detail": f"{text} above the header, and not in the table. If the table begins there, state"
        " delimiter=.",
    }


def _numeric_header() -> TableWarning:
    return {
        "code": "numeric_header",
        "column": None,
        "detail": "Names of columns are numbers. If the first line is data, it was taken for a"
        " header and is not in the table: upload the file again with header=false.",
    }
