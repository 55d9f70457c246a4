"""Storing of an opened table: types of its columns, its numbers in one file, its text beside them."""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
from numpy.typing import NDArray

from tabular.cells import try_encode
from tabular.columns import MAX_LIST_BYTES, Column, ColumnType, list_bytes
from tabular.errors import TableError
from tabular.formats import ColumnSummary, ParseOptions, TableFormat, TableSummary, TableWarning
from tabular.ingest.numbers import about_spikes, number_column
from tabular.ingest.observed import MIN_SPREAD, SHORT_FLOATS, ObservedColumns
from tabular.ingest.profiles import TextProfile
from tabular.ingest.screen import RowScreen
from tabular.ingest.sentinels import about_sentinels
from tabular.ingest.types import (
    Decision,
    decide_types,
    ignored_warning,
    refuse_faults,
    text_profiles,
    wanted_types,
)
from tabular.ingest.warnings import COUNTED_ROWS, Warnings, limit_warnings, warning
from tabular.kept_cells import CellsWriter
from tabular.open import open_source
from tabular.readers.npy import RowWriter
from tabular.source import Columns, Source, check_written, rows_per_chunk

MIN_ROWS = 2
"""The fewest rows of a table: one row has no spread."""

_MAX_NAMED = 3
_ID_NAME = re.compile(r"(?i)(.*[ _.-])?(id|uuid|guid|index|row_?(id|num|number))|.*[a-z]I[dD]")


@dataclass(frozen=True, kw_only=True)
class StoredTable:
    """Table that was stored.

    Attributes:
        rows: Number of stored rows.
        rows_dropped: Number of rows dropped for a missing value.
        dtype: Type of the numbers.
        columns: Columns in order, those included that are ignored.
        warnings: Warnings about the data.
        cells: True if cells are kept unchanged beside the numbers.
        text_bytes: Size of these cells, unpacked.
    """

    rows: int
    rows_dropped: int
    dtype: Literal["float32", "float64"]
    columns: list[ColumnSummary]
    warnings: list[TableWarning]
    cells: bool
    text_bytes: int


def cells_path(destination: Path) -> Path:
    """Return the file beside a table that keeps its cells as they came."""
    return destination.with_suffix(".parquet")


def delete_table(destination: Path) -> None:
    """Delete a table and the cells beside it, as far as they are there."""
    destination.unlink(missing_ok=True)
    cells_path(destination).unlink(missing_ok=True)


def parse_table(
    source: Path,
    destination: Path,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions | None = None,
) -> TableSummary:
    """Check a file and store it as a row-major npy file, with its cells beside it. Call it in a process of the pool.

    Args:
        source: File as uploaded.
        destination: File to write; it is deleted after an error.
        format: Format that the client declared.
        options: Options of reading, and bounds of the size.

    Raises:
        TableError: The file cannot be stored; see ``docs/datasets.md``.
        OSError: The disk is full or failed.
    """
    chosen = options or ParseOptions()
    try:
        stored = store_table(open_source(source, format, chosen), destination, options=chosen)
    except BaseException:
        delete_table(destination)
        raise
    return TableSummary(
        **vars(stored),
        source_sha256=sha256_of(source),
        source_bytes=source.stat().st_size,
        sha256=sha256_of(destination),
        bytes=destination.stat().st_size,
    )


def sha256_of(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def store_table(table: Source, destination: Path, *, options: ParseOptions) -> StoredTable:
    """Store the numbers of a table as a row-major npy file, and beside it its cells as they came.

    A table of floats alone, all of them modelled, is its own cells.

    Args:
        table: Opened table.
        destination: npy file to write.
        options: Types of columns, and policies.

    Raises:
        TableError: The table cannot be stored; see ``docs/datasets.md``.
    """
    if all(map(pa.types.is_floating, table.types)):
        stored = _stored(table, destination, None, options)
        if all(column.column.type != "ignored" for column in stored.columns):
            return stored
    return _stored(table, destination, cells_path(destination), options)


def _stored(
    table: Source, destination: Path, beside: Path | None, options: ParseOptions
) -> StoredTable:
    wanted = wanted_types(table, options)
    profiles = text_profiles(table, wanted, options)
    text_bytes = 0
    if beside is not None:
        with CellsWriter(beside, table.types) as cells:
            for batch in table.batches():
                _look_at(batch, profiles)
                cells.write(batch)
                check_written(beside, options)
        text_bytes = cells.text_bytes
    elif profiles:
        for batch in table.batches():
            _look_at(batch, profiles)
    decisions = decide_types(table, profiles, wanted, options)
    return _Store(table, decisions, wanted, options).run(destination, beside, text_bytes)


def _look_at(batch: pa.RecordBatch, profiles: Mapping[int, TextProfile]) -> None:
    for at, profile in profiles.items():
        profile.update(batch.column(at))


def _refuse_long_lists(columns: Collection[Column]) -> None:
    """Refuse levels of megabytes: whoever looks at the table, or uses a model of it, reads them."""
    most = max(columns, key=lambda column: list_bytes([column]))
    total = list_bytes(columns)
    if total > MAX_LIST_BYTES:
        raise TableError(
            "limit-metadata",
            f"The levels of all columns take {total / 2**20:.1f} MiB, and may take"
            f" {MAX_LIST_BYTES / 2**20:.0f}. Lower `max_levels`, or give the type `ignored` to columns"
            " with many levels.",
            column=most.name,
        )


class _Store:
    """Storing of one table whose columns of text have types."""

    def __init__(
        self,
        table: Source,
        decisions: dict[int, Decision],
        wanted: dict[int, ColumnType],
        options: ParseOptions,
    ) -> None:
        self.table = table
        self.decisions = decisions
        self.wanted = wanted
        self.options = options
        self.na_values = na_values = tuple(options.na_values)
        self.columns = {
            at: decisions[at].column
            if at in decisions
            else Column(name=name, type=wanted.get(at, "number"), na_values=na_values)
            for at, name in enumerate(table.names)
        }
        _refuse_long_lists(self.columns.values())
        self.kept = [at for at, column in self.columns.items() if column.type != "ignored"]
        names = [table.names[at] for at in self.kept]
        self.observed = ObservedColumns(
            [self.columns[at] for at in self.kept], [self._dtype_of(at) for at in self.kept]
        )
        self.screen = RowScreen(names, missing=options.missing)
        self.warnings: list[TableWarning] = []
        self.dtype: Literal["float32", "float64"] = "float64"
        if {table.dtypes[at] for at in self.kept} <= SHORT_FLOATS:
            self.dtype = "float32"

    def _dtype_of(self, at: int) -> str:
        """Return the type of a column in its file; text of numbers is as good as 64-bit floats."""
        is_number = self.columns[at].type in {"number", "integer"}
        return "float64" if self.table.untyped and is_number else self.table.dtypes[at]

    def run(self, destination: Path, beside: Path | None, text_bytes: int) -> StoredTable:
        """Read all rows, and write their numbers.

        Args:
            destination: npy file to write.
            beside: File of the cells, which are read from it; None: they are read from the table.
            text_bytes: Size of its texts, unpacked.
        """
        if not self.kept:
            raise self._nothing_left()
        with RowWriter(destination, len(self.kept), dtype=self.dtype) as writer:
            if beside is None:
                self._write(writer, destination, self.table.batches(), None)
            else:
                self._write_beside(writer, destination, beside)
            self.screen.check()
            self._check_row_count()
            summaries = self._summaries()
            ignored = {at for at, summary in summaries.items() if summary.column.type == "ignored"}
            keep = np.array([at in summaries and at not in ignored for at in self.kept])
            if not keep.any():
                raise self._nothing_left()
            if not keep.all():
                writer.keep_columns(keep)
            writer.finish()
        return StoredTable(
            rows=writer.rows,
            rows_dropped=self.screen.rows_dropped,
            dtype=self.dtype,
            columns=[summaries[at] for at in sorted(summaries)],
            warnings=limit_warnings(
                [*self.table.warnings, *self.warnings, *self._about_columns(summaries)]
            ),
            cells=beside is not None,
            text_bytes=text_bytes,
        )

    def _write_beside(self, writer: RowWriter, destination: Path, beside: Path) -> None:
        """Write the numbers of the cells beside a table; where rows are dropped, these have none there, too."""
        batches = pq.ParquetFile(beside).iter_batches(
            rows_per_chunk(len(self.columns)), use_threads=False
        )
        if self.options.missing != "drop":
            self._write(writer, destination, batches, None)
            return
        left = beside.with_suffix(".left")
        try:
            with CellsWriter(left, self.table.types) as cells:
                self._write(writer, destination, batches, cells)
            left.replace(beside)
        finally:
            left.unlink(missing_ok=True)

    def _write(
        self,
        writer: RowWriter,
        destination: Path,
        batches: Iterator[pa.RecordBatch],
        cells: CellsWriter | None,
    ) -> None:
        """Write the numbers of all rows, and the cells of those that are not dropped."""
        for batch in batches:
            values, numbers = self.screen.apply(self._matrix(batch))
            if not numbers.size:
                continue
            self.observed.update(values, numbers)
            writer.write(values)
            if cells is not None:
                first = self.screen.rows_read - batch.num_rows + 1
                cells.write(batch.take(pa.array(numbers - first)))
            check_written(destination, self.options)

    def _matrix(self, batch: pa.RecordBatch) -> Columns:
        """Return the numbers of the columns that are kept."""
        values = np.empty((len(self.kept), batch.num_rows))
        for place, at in enumerate(self.kept):
            values[place] = try_encode(batch.column(at), self.columns[at])[0]
        return values

    def _has_id_name(self, at: int) -> bool:
        return at in self.table.nameless or _ID_NAME.fullmatch(self.table.names[at]) is not None

    def _check_row_count(self) -> None:
        screen = self.screen
        rows = screen.rows_read - screen.rows_dropped
        if screen.rows_read == 0:
            raise TableError("dataset-empty", "The table has no rows.")
        dropped = " ".join(one["detail"] for one in screen.warnings())
        if rows == 0:
            raise TableError("dataset-empty", f"No row is left. {dropped}")
        if rows < MIN_ROWS:
            raise TableError(
                "dataset-too-small", f"The table has 1 row; it needs {MIN_ROWS}. {dropped}".strip()
            )

    def _nothing_left(self) -> TableError:
        reasons = [
            (decision.column.name, f"The column is not modelled: {decision.reason}")
            for _, decision in sorted(self.decisions.items())
        ]
        remedy = "State the types of some by types=."
        if len(reasons) == 1 and any(mark in reasons[0][0] for mark in ",;\t|"):
            remedy = (
                "It has one column: leave out the quotes around whole lines, or state delimiter=."
            )
        detail = f"The table has no column that can be modelled. {remedy}"
        return TableError("dataset-shape", detail, errors=reasons)

    def _summaries(self) -> dict[int, ColumnSummary]:
        """Return the columns that are kept or ignored, by position, and note what is left out."""
        self.observed.finish()
        constant = self.observed.constant
        self._refuse_constants(constant)
        self._refuse_fractions()
        summaries = {
            at: ColumnSummary(
                column=decision.column,
                reason=decision.reason,
                dtype=self.table.dtypes[at],
                missing_count=decision.missing_count,
            )
            for at, decision in self.decisions.items()
            if decision.column.type == "ignored"
        }
        left = int((self.observed.statistics.counts > 0).sum())
        for place, at in enumerate(self.kept):
            if constant[place] and self.options.constant == "drop":
                continue
            column, reason = self._typed(place, alone=left < 2)
            self.warnings.extend(about_sentinels(self.observed.sample[place], column))
            summaries[at] = self.observed.summary(place, column, reason)
        return summaries

    def _refuse_constants(self, constant: NDArray[np.bool_]) -> None:
        """Refuse or warn of constant columns, as the caller wants it."""
        policy = self.options.constant
        found = [self.screen.names[place] for place in np.flatnonzero(constant)]
        if found and (policy == "error" or (policy == "drop" and constant.all())):
            raise _constant_error(found, every=bool(constant.all()))
        words = {
            "drop": "was left out",
            "keep": "is modelled as one value: any other is nearly impossible",
        }
        for name in found:
            detail = f"The column is constant, and {words[policy]}."
            self.warnings.append(warning("constant", name, detail))

    def _refuse_fractions(self) -> None:
        """Refuse columns that the caller wants as whole numbers, and that hold others."""
        bad = [
            self.columns[at]
            for place, at in enumerate(self.kept)
            if self.wanted.get(at) == "integer" and not self.observed.statistics.whole[place]
        ]
        fault = "It holds numbers that are not whole."
        refuse_faults(
            [Decision(column=replace(c, type="integer"), reason="", fault=fault) for c in bad]
        )

    def _typed(self, place: int, *, alone: bool) -> tuple[Column, str]:
        """Return the type of a column that is kept, and the reason."""
        at, observed = self.kept[place], self.observed
        empty = not observed.sample[place].size
        decision = self.decisions.get(at)
        column = replace(self.columns[at], missing=bool(observed.missing[place]))
        if decision is not None and (column.is_discrete or empty):
            return column, decision.reason
        ignored = self._reason_to_ignore(place, alone=alone)
        if ignored is not None:
            self.warnings.append(ignored_warning(column.name, ignored))
            whole = None if empty or not observed.statistics.whole[place] else 0
            gone = Column(name=column.name, type="ignored", missing=column.missing, decimals=whole)
            return gone, ignored
        typed, reason = number_column(
            column, observed.numbers(place, continuous=self.wanted.get(at) == "number")
        )
        if at in self.wanted:
            return replace(typed, type=self.wanted[at]), "The caller says so."
        is_plain = decision is None or (
            self.table.untyped and column.type == "number" and column.na_values == self.na_values
        )
        is_plain &= (column.decimal, column.thousands, column.unit) == (".", "", "")
        if decision is not None and not (is_plain or typed.is_discrete):
            reason = f"{decision.reason}{about_spikes(typed)}"
        return typed, reason

    def _reason_to_ignore(self, place: int, *, alone: bool) -> str | None:
        """Return why a column of numbers is not modelled, if it is not."""
        at, statistics = self.kept[place], self.observed.statistics
        if not self.observed.sample[place].size:
            return "Every cell is missing."
        if self.observed.distinct[place] != 1 and not self.observed.std[place] > MIN_SPREAD:
            return f"It varies by less than {MIN_SPREAD:g}."
        if alone or at in self.wanted or not self.table.named:
            return None
        column = self.columns[at]
        if column.type == "datetime" or column.unit or column.thousands:
            return None
        if not statistics.whole[place] or statistics.rows < COUNTED_ROWS:
            return None
        return self._row_number_reason(place)

    def _row_number_reason(self, place: int) -> str | None:
        """Return why a column of numbers only numbers the rows, if it does."""
        at, statistics = self.kept[place], self.observed.statistics
        if statistics.consecutive[place] and statistics.low.value[place] in {0.0, 1.0}:
            return "It counts the rows."
        if at in self.table.nameless and statistics.increasing[place]:
            return "It has no name and goes up with each row, as row numbers do."
        known = self.observed.sample[place]
        distinct = np.unique(known).size == known.size and not statistics.missing[place]
        if self._has_id_name(at) and distinct:
            some = " that were compared" if known.size < statistics.rows else ""
            return f"Its name is that of an id, and all its cells{some} are distinct."
        return None

    def _about_columns(self, summaries: dict[int, ColumnSummary]) -> Iterator[TableWarning]:
        """Yield the warnings about columns that are modelled, and about rows that were dropped."""
        yield from self.screen.warnings()
        for decision in self.decisions.values():
            yield from decision.warnings
        typed = [summaries[at].column if at in summaries else None for at in self.kept]
        modelled = [p for p, c in enumerate(typed) if c is not None and c.type != "ignored"]
        scaled = [
            p
            for p, c in enumerate(typed)
            if c is not None and c.type in {"number", "integer"} and not c.levels
        ]
        rounded = [
            p
            for p, c in enumerate(typed)
            if c is not None and c.levels and c.holds_values and c.type != "datetime"
        ]
        about = Warnings(
            self.observed.statistics,
            names=self.screen.names,
            dtypes=[self._dtype_of(at) for at in self.kept],
        )
        plain = [p for p in scaled if (c := typed[p]) is not None and c.transform == "none"]
        yield from about.about(
            np.array(modelled, np.intp), scaled=np.array(scaled, np.intp), plain=set(plain)
        )
        yield from about.about_rounding(rounded)


def _constant_error(found: list[str], *, every: bool) -> TableError:
    named = ", ".join(repr(name) for name in found[:_MAX_NAMED])
    more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    if every:
        text = "Every column is constant: all rows are the same."
    else:
        text = (
            f"Constant, or varying by less than {MIN_SPREAD:g}: {named}{more}. With constant=drop"
            " such columns are left out, with constant=keep they are modelled as one value."
        )
    return TableError(
        "dataset-constant-column",
        text,
        column=found[0],
        errors=[(name, "The column is constant.") for name in found],
    )
