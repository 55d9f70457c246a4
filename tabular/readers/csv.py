"""CSV files as columns of text: Arrow reads the rows, and Python those of a file with short ones."""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.csv as pa_csv  # type: ignore[import-untyped] # as above

from tabular.errors import TableError
from tabular.formats import ParseOptions, TableWarning, remedy, warning
from tabular.readers.dialect import Dialect, TextFile, find_dialect, rows_of
from tabular.source import Source, check_columns, mend_names

_BLOCK_BYTES = 1 << 20
_BATCH_ROWS = 8192
_VALUE_START = tuple("+-.,0123456789")
_SHOWN = 3


def open_csv(path: Path, options: ParseOptions) -> Source:
    """Open a CSV file, all of whose columns are text.

    Raises:
        TableError: The file is empty, has no known encoding, or too many columns; its rows raise one that names
            the line of what cannot be read.
    """
    text = TextFile(path, options)
    dialect = find_dialect(text, options)
    check_columns(len(dialect.names), options=options)
    names, nameless, renamed = mend_names(dialect.names)
    warnings = [*text.warnings, *dialect.warnings, *renamed]

    def batches() -> Iterator[pa.RecordBatch]:
        found: list[TableWarning] = []
        rows = 0
        for batch in _without_empty_end(_batches(text, dialect, found), found):
            yield batch
            rows += batch.num_rows
        if not rows:
            raise TableError(
                "dataset-empty",
                "The file has a header but no rows. If its first line is one, state header=false.",
            )
        warnings.extend(warning for warning in found if warning not in warnings)

    return Source(
        names=names,
        dtypes=["string"] * len(names),
        types=[pa.string()] * len(names),
        named=dialect.named,
        nameless=nameless,
        batches=batches,
        warnings=warnings,
        untyped=True,
        semicolons=dialect.delimiter == ";",
        found={
            "header": dialect.named,
            "delimiter": dialect.delimiter,
            "encoding": text.encoding,
        },
    )


def _batches(
    text: TextFile, dialect: Dialect, found: list[TableWarning]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows; from the first one that Arrow refuses on, those that Python reads."""
    done = 0
    if dialect.delimiter != " ":  # of which several may stand between two values
        try:
            for batch in _by_arrow(text, dialect):
                yield batch
                done += batch.num_rows
        except pa.ArrowInvalid:
            pass  # a row is short, long, or has a quote that Arrow does not expect
        else:
            return
    yield from _by_python(text, dialect, found, done=done)


def _by_arrow(text: TextFile, dialect: Dialect) -> Iterator[pa.RecordBatch]:
    names = [str(place) for place in range(len(dialect.names))]
    with text.open(dialect.start) as file:
        if not file.read(1):
            return
        file.seek(-1, io.SEEK_CUR)
        reader = pa_csv.open_csv(
            file,
            pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=_BLOCK_BYTES),
            pa_csv.ParseOptions(
                delimiter=dialect.delimiter,
                newlines_in_values=True,
                ignore_empty_lines=len(names) > 1,  # in one column they are gaps
            ),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
        yield from reader


def _by_python(
    text: TextFile, dialect: Dialect, found: list[TableWarning], *, done: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows after those that are done."""
    width = len(dialect.names)
    rows = islice(_whole_rows(text, dialect, found), done, None)
    while some := list(islice(rows, _BATCH_ROWS)):
        columns = [pa.array([row[place] for row in some], pa.string()) for place in range(width)]
        yield pa.record_batch(columns, names=[str(place) for place in range(width)])


def _whole_rows(text: TextFile, dialect: Dialect, found: list[TableWarning]) -> Iterator[list[str]]:
    """Yield rows, of which short ones lack their last cells; lines of one text at the end are none."""
    width = len(dialect.names)
    short: list[int] = []
    remarks: list[tuple[int, list[str]]] = []
    for line, row in _numbered_rows(text, dialect):
        if len(row) > width and any(map(str.strip, row[width:])):
            raise TableError(
                "dataset-parse",
                f"Line {line} has {len(row)} values instead of {width}. Put quotes around values that hold the"
                " separator, or state delimiter=.",
            )
        if len(row) < width:
            remarks.append((line, row))
            if _is_remark(row):
                continue
        else:
            remarks.append((0, row))
        for place, one in remarks:
            short += [place] if place else []
            yield one[:width] + [""] * (width - len(one))
        remarks = []
    found += _about_lines(short, [line for line, _ in remarks])


def _numbered_rows(text: TextFile, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield rows with the numbers of their last lines."""
    one_column = len(dialect.names) == 1
    with io.TextIOWrapper(text.open(dialect.start), "utf-8", newline="") as lines:
        reader = rows_of(lines, dialect.delimiter, strict=True)
        while True:
            try:
                row = next(reader, None)
            except csv.Error:
                line = dialect.line + reader.line_num - 1
                raise TableError(
                    "dataset-parse",
                    f"Line {line}: the quotes of a row do not match, or a quoted value is never closed.",
                ) from None
            if row is None:
                return
            if row or one_column:
                yield dialect.line + reader.line_num - 1, row or [""]


def _is_remark(row: Sequence[str]) -> bool:
    """Return whether a line is one text alone, which is no number."""
    first, *rest = (cell.strip() for cell in row)
    return bool(first) and not any(rest) and not first.startswith(_VALUE_START)


def _without_empty_end(
    batches: Iterator[pa.RecordBatch], found: list[TableWarning]
) -> Iterator[pa.RecordBatch]:
    """Yield batches without the rows at the end that have nothing in any cell, as spreadsheets leave some."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        full = _rows_to_last_text(batch)
        if full:
            yield from held
            held = []
            yield batch.slice(0, full)
        if full < batch.num_rows:
            held.append(batch.slice(full))
    empty = sum(batch.num_rows for batch in held)
    if empty and held[0].num_columns > 1:
        rows = "1 row" if empty == 1 else f"{empty} rows"
        found.append(warning("skipped", None, f"{rows} at the end without any value are left out."))


def _rows_to_last_text(batch: pa.RecordBatch) -> int:
    """Return the number of rows up to the last one that has some text."""
    rows = batch.num_rows
    while rows and not any(column[rows - 1].as_py().strip() for column in batch.columns):
        rows -= 1
    return int(rows)


def _about_lines(short: Sequence[int], remarks: Sequence[int]) -> Iterator[TableWarning]:
    if short:
        rows = "1 row has" if len(short) == 1 else f"{len(short)} rows have"
        yield warning(
            "uneven",
            None,
            f"{rows} fewer values than there are columns, in {_lines(short)}: the missing ones are gaps.",
            remedy("delimiter", None, "Choose the separator"),
        )
    if remarks:
        lines = "1 line" if len(remarks) == 1 else f"{len(remarks)} lines"
        yield warning(
            "skipped",
            None,
            f"{lines} at the end of the file, {_lines(remarks)}, hold one text alone and are left out.",
        )


def _lines(numbers: Sequence[int]) -> str:
    named = ", ".join(map(str, numbers[:_SHOWN]))
    more = " and others" if len(numbers) > _SHOWN else ""
    return f"{'line' if len(numbers) == 1 else 'lines'} {named}{more}"
