"""Reading CSV: the layout by ourselves, the rows by Arrow's streaming reader."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
import pyarrow.csv as pa_csv  # type: ignore[import-untyped] # as above

from tabular.calendar.formats import COMPACT, COMPACT_MONTHS, FEWEST_MONTHS
from tabular.errors import TableError
from tabular.formats import ParseOptions, TableWarning
from tabular.notations.words import MISSING_SPELLINGS
from tabular.numerals import are_versions, parse_numbers
from tabular.readers.arrow import columns_of
from tabular.readers.layout import BLOCK_BYTES, Layout, find_layout
from tabular.readers.section import (
    LONGEST_LINE_BYTES,
    Section,
    comments_warning,
    parts,
    repeated_warning,
    rules_warning,
)
from tabular.readers.text import TextFile, open_text
from tabular.readers.uneven import UnevenError, UnevenRows
from tabular.source import (
    CellSource,
    Choose,
    Columns,
    NotNumbersError,
    TableSource,
    check_columns,
    default_names,
    gather,
    look_numeric,
    mend_names,
)

LARGEST_BLOCK_BYTES = LONGEST_LINE_BYTES
"""Unit of reading of a file with a line longer than a block, and so the longest line that is accepted."""

_PART_BYTES = 128 << 10  # of a file of which little may be in memory
_CODE = r"^[+-]?0\d"
_MOST_VERSIONS = 20
_LOOKED_THROUGH_BYTES = 4 << 20  # for the line of a fault
_OTHER_DELIMITERS = ";\t|,"
_CONVERSION = re.compile(
    r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error[^']*'(.*)'", re.DOTALL
)
_UNCLOSED = "A quoted value is never closed."
_QUOTES = "The quotes of a row do not match."
_TOO_LONG = f"A line is longer than {LARGEST_BLOCK_BYTES >> 20} MiB."


def open_csv(path: Path, options: ParseOptions) -> TableSource:
    """Open a CSV file of numbers.

    Raises:
        TableError: The file is empty, or has too many columns.
    """
    rows, names, _, warnings = _opened(path, options)
    return TableSource(
        names=names,
        dtypes=["float64"] * len(names),
        named=rows.layout.header,
        chunks=gather(rows.chunks()),
        warnings=warnings,
    )


def open_csv_cells(
    path: Path, options: ParseOptions, *, choose: Choose | None = None
) -> CellSource:
    """Open a CSV file of numbers, text or anything else.

    Args:
        path: File to read.
        options: Options of reading, and bounds of the size.
        choose: Function that finds the columns that are wanted; None: all are.

    Raises:
        TableError: The file is empty, or has too many columns.
    """
    rows, names, nameless, warnings = _opened(path, options)
    every = range(len(names))
    found = rows.text_columns(every if choose is None else choose(names, rows.layout.header))
    return CellSource(
        names=names,
        dtypes=["string" if place in found else "float64" for place in every],
        named=rows.layout.header,
        nameless=nameless,
        text=found,
        read=rows.cells,
        warnings=warnings,
        untyped=True,
    )


def _opened(
    path: Path, options: ParseOptions
) -> tuple["_Rows", list[str], frozenset[int], list[TableWarning]]:
    """Return the rows of a file, their names, the places of those without one, and warnings."""
    text = open_text(path, options.encoding, options.marks)
    layout = find_layout(text, options)
    check_columns(len(layout.fields), options=options)
    warnings = [*text.warnings, *layout.warnings]
    nameless: frozenset[int] = frozenset()
    names = default_names(len(layout.fields))
    if layout.header:
        names, nameless, renamed = mend_names(layout.fields)
        warnings += renamed
        if look_numeric(names) or any(map(_is_fraction, layout.fields)):
            warnings.append(_numeric_header())
    return (
        _Rows(text, options, names=names, layout=layout, warnings=warnings),
        names,
        nameless,
        warnings,
    )


class _Rows:
    """Rows of one CSV file, and the translation of Arrow's error messages."""

    def __init__(
        self,
        text: TextFile,
        options: ParseOptions,
        *,
        names: list[str],
        layout: Layout,
        warnings: list[TableWarning],
    ) -> None:
        self.text = text
        self.options = options
        self.names = names
        self.layout = layout
        self.warnings = warnings

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
            raise self._unclosed(row=rows)

    def text_columns(self, among: Iterable[int]) -> frozenset[int]:
        """Return which of some columns hold more than numbers among the first rows."""
        every = frozenset(range(len(self.names)))
        batch = next(self._batches(every, part=BLOCK_BYTES), None)
        if batch is None:
            return frozenset()
        missing = pa.array(_missing_values(self.options.na_values), pa.string())
        return frozenset(place for place in among if not _are_numbers(batch.column(place), missing))

    def _batches(
        self, text: frozenset[int], *, part: int = _PART_BYTES
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows; where a line is longer than a block, the rest in larger blocks."""
        self._check_last_line()
        done = 0
        for block in (BLOCK_BYTES, LARGEST_BLOCK_BYTES):
            skipped = done
            try:
                for batch in chain.from_iterable(
                    self._batches_of(layout, text, block) for layout in self._layouts(part)
                ):
                    rest = batch.slice(min(skipped, batch.num_rows))
                    skipped -= batch.num_rows - rest.num_rows
                    done += rest.num_rows
                    if rest.num_rows:
                        yield rest
            except _TooLongError:
                if block == LARGEST_BLOCK_BYTES:
                    raise
            else:
                return

    def _layouts(self, size: int) -> Iterator[Layout]:
        """Yield the parts that are read one after the other, since Arrow reads 32 blocks ahead of its rows."""
        if self.options.reads_ahead:
            yield self.layout
        else:
            yield from parts(self.text, self.layout, size)

    def _batches_of(
        self, layout: Layout, text: frozenset[int], block: int
    ) -> Iterator[pa.RecordBatch]:
        uneven = UnevenRows(len(self.names), layout, missing=self._missing)
        try:
            section = Section(self.text, layout)
            file = pa.PythonFile(section, mode="r")
            with file, self._reader(file, text, block, uneven) as reader:
                try:
                    for batch in reader:
                        yield from filter(len, uneven.restored(batch))
                    yield from filter(len, uneven.rest(reader.schema))
                finally:
                    # An error of the file refers to this frame, and the thread of Arrow that has read it may be
                    # the last to drop it: the reader would wait in that thread for the end of its own work.
                    del reader
        except MemoryError:
            raise
        except UnevenError as error:
            raise self._uneven(error) from None
        except (pa.ArrowException, UnicodeDecodeError) as error:
            if uneven.error is not None:
                raise self._uneven(uneven.error) from None
            raise self._explain(str(error)) from None
        found = [
            uneven.warning(),
            repeated_warning(section.repeated) if section.repeated else None,
            comments_warning(section.comments) if section.comments else None,
            rules_warning(section.rules) if section.rules else None,
        ]
        self.warnings += [w for w in found if w is not None and w not in self.warnings]

    def _reader(
        self, file: pa.NativeFile, text: frozenset[int], block: int, uneven: UnevenRows
    ) -> pa_csv.CSVStreamingReader:
        # Names of our own: Arrow tells column types by name, and a caller's name may be anything.
        kinds = {
            str(place): pa.string() if place in text else pa.float64()
            for place in range(len(self.names))
        }
        return pa_csv.open_csv(
            file,
            read_options=pa_csv.ReadOptions(
                use_threads=False,  # with threads its messages lose the row number
                block_size=block,
                column_names=list(kinds),
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self.layout.delimiter,
                quote_char=self.layout.quote,
                newlines_in_values=self.text.quotes > 0 or self.layout.quote != '"',
                # In a file of one column, a blank line is a missing value.
                ignore_empty_lines=len(self.names) > 1,
                invalid_row_handler=uneven.note,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=kinds,
                null_values=self._missing,
                strings_can_be_null=False,
            ),
        )

    @cached_property
    def _missing(self) -> list[str]:
        return _missing_values(self.options.na_values)

    def _uneven(self, error: UnevenError) -> TableError:
        if error.cells is None:
            return (
                self._unclosed() if self.text.quotes % 2 else TableError("dataset-parse", _QUOTES)
            )
        if error.place is not None:
            return self._not_a_number(error.place, error.row)
        return TableError(
            "dataset-parse",
            f"Row {error.row} has {error.cells} value{'s' * (error.cells != 1)}"
            f" instead of {len(self.names)}."
            f"{self._delimiter_advice()}",
            row=error.row,
        )

    def _explain(self, message: str) -> TableError:
        """Return the error for a message of Arrow, without the values that it quotes."""
        if match := _CONVERSION.match(message):
            return self._not_a_number(int(match[1]), self._row(match[2]))
        if "straddling object" in message or "out of sync" in message:
            return _TooLongError(
                "dataset-parse", self._unclosed().detail if self.text.quotes % 2 else _TOO_LONG
            )
        if "Could not skip" in message or "Empty CSV" in message:
            return TableError(
                "dataset-empty",
                "The file has a header but no rows; if its first line is one, state header=false, or text/csv; header=absent.",
            )
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
        return int(physical)

    def _delimiter_advice(self) -> str:
        if len(self.names) == 1 and any(c in self.names[0] for c in _OTHER_DELIMITERS):
            return " If the values are separated by another character, name it by delimiter=."
        return ""

    def _check_last_line(self) -> None:
        """Refuse an unclosed quote in the last line, which Arrow reads as if it were closed."""
        if self.layout.stop is not None or not self.text.quotes % 2:
            return
        last = re.split(rb"[\r\n]", self.text.end(BLOCK_BYTES).rstrip(b"\r\n"))[-1]
        before, quote, _ = last.rpartition(b'"')
        delimiter, bare = self.layout.delimiter.encode(), before.rstrip(b" ")
        if quote and (not bare or before.endswith(delimiter) or bare.endswith(delimiter)):
            raise self._unclosed()

    def _unclosed(self, row: int | None = None) -> TableError:
        """Return the error about a quote that is never closed; of a small file, with the line where it begins."""
        advice = "Double a quote that is part of a value."
        if self.text.size > _LOOKED_THROUGH_BYTES:
            return TableError("dataset-parse", f"{_UNCLOSED} {advice}", row=row)
        before = line = 0
        with self.text.open() as file, io.TextIOWrapper(file, "utf-8", "replace") as lines:
            reader = csv.reader(lines, delimiter=self.layout.delimiter, quotechar=self.layout.quote)
            try:
                for _ in reader:
                    before, line = line, reader.line_num
            except csv.Error:  # the rest is longer than a value may be
                before = line
        detail = (
            f"{_UNCLOSED} It begins in line {before + 1}: double a quote that is part of a value."
        )
        return TableError("dataset-parse", detail, row=row)


class _TooLongError(TableError):
    """Line that is longer than a block."""


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
    if pc.any(pc.match_substring_regex(known, r"\.\d+0$")).as_py():
        texts = known.unique()
        if len(texts) <= _MOST_VERSIONS and are_versions(texts.to_pylist()):
            return False
    if pc.all(pc.match_substring_regex(known, f"^{COMPACT_MONTHS.pattern}$")).as_py():
        return len(known.unique()) < FEWEST_MONTHS
    return not pc.all(pc.match_substring_regex(known, f"^{COMPACT.pattern}$")).as_py()


def _spans_lines(batch: pa.RecordBatch) -> bool:
    """Return whether a cell of the last row spans lines, as one that is never closed does."""
    last = batch.slice(batch.num_rows - 1)
    return any("\n" in str(cells[0].as_py()) for cells in last.columns)


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


def _numeric_header() -> TableWarning:
    return {
        "code": "numeric_header",
        "column": None,
        "detail": "Names of columns are numbers. If the first line is data, it was taken for a"
        " header and is not in the table: upload the file again with header=false.",
    }
