"""Storing of an opened table: types of its columns, its numbers in one file, its text beside them."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from numpy.typing import NDArray

from tables.cells import try_encode
from tables.columns import MAX_LIST_BYTES, Column, ColumnType, list_bytes
from tables.errors import TableError
from tables.formats import ColumnSummary, ParseOptions, TableWarning
from tables.ingest.column_types import Decision, ignored_warning
from tables.ingest.decisions import decide_types, refuse_faults, wanted_types
from tables.ingest.kept_cells import cells_writer, taken_cells
from tables.ingest.number_formats import plain_formats
from tables.ingest.numbers import (
    Numbers,
    Sample,
    common_step,
    number_column,
    quantiles,
)
from tables.ingest.screen import RowScreen
from tables.ingest.sentinels import about_sentinels
from tables.ingest.statistics import RunningStatistics
from tables.ingest.warnings import COUNTED_ROWS, Warnings, limit_warnings, warning
from tables.numerals import MAX_DECIMALS, fitting, round_to
from tables.readers.arrow import columns_of
from tables.readers.npy import RowWriter
from tables.source import CellSource, Columns, NotNumbersError

MIN_ROWS = 2
"""The fewest rows of a table: one row has no spread."""

MIN_SPREAD = 1e-37
"""A column whose standard deviation is not above this is constant: float32 cannot scale it."""

_MAX_RESTARTS = 4
_MAX_NAMED = 3
_ID_NAME = re.compile(
    r"(?i)(.*[ _.-])?(id|uuid|guid|index|idx|row(_?(id|num|number|names?))?|unnamed: 0)|.*[a-z]I[dD]"
)
_SHORT_FLOATS = {"float16", "float32"}


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


def store_table(
    table: CellSource, destination: Path, beside: Path, *, options: ParseOptions
) -> StoredTable:
    """Store the numbers of a table as a row-major npy file, and the cells that are no numbers beside it.

    Args:
        table: Opened table.
        destination: npy file to write.
        beside: Parquet file to write, of the columns that are ignored or came as text.
        options: Types of columns, and policies.

    Raises:
        TableError: The table cannot be stored; see ``docs/datasets.md``.
    """
    wanted = wanted_types(table, options)
    text = {at for at, kind in wanted.items() if kind not in {"number", "integer"}}
    text |= table.text
    for restart in range(_MAX_RESTARTS + 1):
        try:
            decisions = decide_types(table, frozenset(text), wanted, options)
            return _Store(table, decisions, wanted, options).run(destination, beside)
        except NotNumbersError as error:
            every = range(len(table.names)) if restart >= _MAX_RESTARTS - 1 else ()
            text |= {error.column, *every}
    raise AssertionError  # of a column that was read as text, no cell has to be a number


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
        table: CellSource,
        decisions: dict[int, Decision],
        wanted: dict[int, ColumnType],
        options: ParseOptions,
    ) -> None:
        self.table = table
        self.decisions = decisions
        self.wanted = wanted
        self.options = options
        na_values = tuple(options.na_values)
        self.columns = {
            at: decisions[at].column
            if at in decisions
            else Column(name=name, type=wanted.get(at, "number"), na_values=na_values)
            for at, name in enumerate(table.names)
        }
        _refuse_long_lists(self.columns.values())
        self.kept = [at for at, column in self.columns.items() if column.type != "ignored"]
        names = [table.names[at] for at in self.kept]
        self.statistics = RunningStatistics(len(self.kept))
        self.screen = RowScreen(names, missing=options.missing)
        self.sample = Sample(len(self.kept))
        self.decimals: list[int | None] = [0] * len(self.kept)
        self.steps_s = {
            place: 0 for place, at in enumerate(self.kept) if self.columns[at].type == "datetime"
        }
        self.level_counts = {
            place: np.zeros(self.columns[at].level_count, np.int64)
            for place, at in enumerate(self.kept)
            if not self.columns[at].holds_values
        }
        self.mean = self.std = np.empty(0)
        self.missing = np.empty(0, np.int64)
        self.distinct: list[int | None] = []
        self.text_bytes = 0
        self.warnings: list[TableWarning] = []
        self.formats = plain_formats(table, [at for at in self.kept if at not in decisions])
        self.dtype: Literal["float32", "float64"] = "float64"
        if {table.dtypes[at] for at in self.kept} <= _SHORT_FLOATS:
            self.dtype = "float32"

    def run(self, destination: Path, beside: Path) -> StoredTable:
        """Read all rows, and write them."""
        if not self.kept:
            raise self._nothing_left()
        with RowWriter(destination, len(self.kept), dtype=self.dtype) as writer:
            beside_columns = self._write(writer, beside)
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
        cells = bool(beside_columns & (ignored | self._came_as_text()))
        if not cells:
            beside.unlink(missing_ok=True)
        return StoredTable(
            rows=writer.rows,
            rows_dropped=self.screen.rows_dropped,
            dtype=self.dtype,
            columns=[summaries[at] for at in sorted(summaries)],
            warnings=limit_warnings(
                [*self.table.warnings, *self.warnings, *self._about_columns(summaries)]
            ),
            cells=cells,
            text_bytes=self.text_bytes if cells else 0,
        )

    def _write(self, writer: RowWriter, beside: Path) -> frozenset[int]:
        """Write the numbers of all rows, and beside them the cells of some columns."""
        text = frozenset(self.decisions)
        aside: list[int] | None = None
        with cells_writer(beside) as cells:
            for batch in self.table.read(text):
                matrix = self._matrix(batch)
                if aside is None:
                    aside = sorted(text | self._row_numbers(matrix))
                values, numbers = self.screen.apply(matrix)
                if not numbers.size:
                    continue
                self._update(values, numbers)
                writer.write(values)
                if aside:
                    first = self.screen.rows_read - batch.num_rows + 1
                    rows = None if numbers.size == batch.num_rows else pa.array(numbers - first)
                    cells.write(taken_cells(batch, aside, rows, text=text))
        self.text_bytes = cells.unpacked_bytes
        return frozenset(aside or ())

    def _matrix(self, batch: pa.RecordBatch) -> Columns:
        """Return the numbers of the columns that are kept."""
        plain = len(self.kept) == len(self.columns) == batch.num_columns
        if plain and not (self.decisions or self.options.na_values):
            return columns_of(batch)
        values = np.empty((len(self.kept), batch.num_rows))
        for place, at in enumerate(self.kept):
            values[place] = try_encode(batch.column(at), self.columns[at])[0]
        return values

    def _update(self, values: Columns, numbers: NDArray[np.int64]) -> None:
        self.statistics.update(values, row_numbers=numbers)
        self.sample.update(values)
        for place, known in enumerate(self.decimals):
            if known is not None and place not in self.level_counts:
                self.decimals[place] = self._count_decimals(values[place], place, known)
        for place, step_s in self.steps_s.items():
            self.steps_s[place] = common_step(values[place], step_s)
        for place in self.level_counts:
            indices = values[place][values[place] >= 0].astype(np.int64)
            counts = np.bincount(indices, minlength=self.level_counts[place].size)
            self.level_counts[place] += counts

    def _count_decimals(self, values: NDArray[np.float64], place: int, known: int) -> int | None:
        """Return the decimals of the values, if more than are known."""
        short = self.table.dtypes[self.kept[place]] in _SHORT_FLOATS
        finite = values[np.isfinite(values)]
        for decimals in range(known, MAX_DECIMALS + 1):
            rounded = round_to(finite, decimals)
            same = np.float32(rounded) == np.float32(finite) if short else rounded == finite
            finite = finite[~same]
            if not finite.size:
                return decimals
        return None

    def _row_numbers(self, values: Columns) -> frozenset[int]:
        """Return the columns that may prove to be row numbers, from the first rows."""
        with np.errstate(invalid="ignore"):
            steps = np.diff(values, axis=1) > 0
        rising = np.array([bool(step.all()) for step in steps])
        return frozenset(
            at
            for place, at in enumerate(self.kept)
            if at not in self.wanted
            and self.table.named
            and (rising[place] or self._has_id_name(at))
        )

    def _has_id_name(self, at: int) -> bool:
        return at in self.table.nameless or _ID_NAME.fullmatch(self.table.names[at]) is not None

    def _came_as_text(self) -> frozenset[int]:
        return frozenset(
            at for at, decision in self.decisions.items() if decision.column.type != "ignored"
        )

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
        return TableError(
            "dataset-shape",
            "The table has no column that can be modelled. State the types of some by types=.",
            errors=reasons,
        )

    def _summaries(self) -> dict[int, ColumnSummary]:
        """Return the columns that are kept or ignored, by position, and note what is left out."""
        statistics = self.statistics
        # Once for all columns: each is computed anew.
        self.mean, self.std = statistics.mean, statistics.std
        self.missing, self.distinct = statistics.missing, statistics.distinct
        constant = self._constant()
        self._refuse_constants(constant)
        self._refuse_fractions()
        sample = self.sample.rows()
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
        left = int((statistics.counts > 0).sum())
        for place, at in enumerate(self.kept):
            if constant[place] and self.options.constant == "drop":
                continue
            known = sample[place]
            known = known[~np.isnan(known)]
            column, reason = self._typed(place, known, alone=left < 2)
            self.warnings.extend(about_sentinels(known, column))
            summaries[at] = self._summary(place, column, reason, known)
        return summaries

    def _constant(self) -> NDArray[np.bool_]:
        statistics = self.statistics
        same = statistics.low.value == statistics.high.value
        tiny = ~(statistics.std > MIN_SPREAD) & (statistics.counts > 0)
        constant: NDArray[np.bool_] = (same | tiny) & (statistics.missing == 0)
        return constant

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
            if self.wanted.get(at) == "integer" and not self.statistics.whole[place]
        ]
        fault = "It holds numbers that are not whole."
        refuse_faults(
            [Decision(column=replace(c, type="integer"), reason="", fault=fault) for c in bad]
        )

    def _typed(self, place: int, known: NDArray[np.float64], *, alone: bool) -> tuple[Column, str]:
        """Return the type of a column that is kept, and the reason."""
        at = self.kept[place]
        decision = self.decisions.get(at)
        column = replace(self.columns[at], missing=bool(self.missing[place]))
        if decision is not None and (column.is_discrete or not known.size):
            return column, decision.reason
        ignored = self._reason_to_ignore(place, known, alone=alone)
        if ignored is not None:
            self.warnings.append(ignored_warning(column.name, ignored))
            whole = 0 if known.size and self.statistics.whole[place] else None
            gone = Column(name=column.name, type="ignored", missing=column.missing, decimals=whole)
            return gone, ignored
        typed, reason = number_column(column, self._numbers(place, known))
        form = self.formats.get(at, typed.number_format)
        typed = replace(typed, number_format=fitting(form, typed.decimals))
        if at in self.wanted:
            return replace(typed, type=self.wanted[at]), "The caller says so."
        return typed, reason if decision is None or typed.is_discrete else decision.reason

    def _numbers(self, place: int, known: NDArray[np.float64]) -> Numbers:
        """Return what the values of a column are known to be."""
        values = self.statistics.values(place)
        continuous = self.wanted.get(self.kept[place]) == "number"
        return Numbers(
            rows=int(self.statistics.counts[place]),
            values=None if values is None or (continuous and values[0].size > 1) else values[0],
            whole=bool(self.statistics.whole[place]),
            decimals=self.decimals[place],
            step_s=self.steps_s.get(place, 0),
            lowest=float(self.statistics.low.value[place]),
            sample=known,
        )

    def _reason_to_ignore(
        self, place: int, known: NDArray[np.float64], *, alone: bool
    ) -> str | None:
        """Return why a column of numbers is not modelled, if it is not."""
        at, statistics = self.kept[place], self.statistics
        if not known.size:
            return "Every cell is missing."
        if self.distinct[place] != 1 and not self.std[place] > MIN_SPREAD:
            return f"It varies by less than {MIN_SPREAD:g}."
        if alone or at in self.wanted or at in self.decisions or not self.table.named:
            return None
        if not statistics.whole[place] or statistics.rows < COUNTED_ROWS:
            return None
        return self._row_number_reason(place, known)

    def _row_number_reason(self, place: int, known: NDArray[np.float64]) -> str | None:
        """Return why a column of numbers only numbers the rows, if it does."""
        at, statistics = self.kept[place], self.statistics
        if statistics.consecutive[place] and statistics.low.value[place] in {0.0, 1.0}:
            return "It counts the rows."
        if at in self.table.nameless and statistics.increasing[place]:
            return "It has no name and goes up with each row, as row numbers do."
        if self._has_id_name(at) and np.unique(known).size == known.size == statistics.rows:
            return "Its name is that of an id, and all its cells are distinct."
        return None

    def _summary(
        self, place: int, column: Column, reason: str, sample: NDArray[np.float64]
    ) -> ColumnSummary:
        statistics = self.statistics
        values = statistics.values(place)
        beside = ColumnSummary(
            column=column,
            reason=reason,
            dtype=self.table.dtypes[self.kept[place]],
            missing_count=int(self.missing[place]),
        )
        if not column.holds_values:
            counts = self.level_counts[place]
            seen = int((counts > 0).sum())
            return replace(beside, level_counts=tuple(counts.tolist()), distinct=seen)
        if column.type == "ignored" or not statistics.counts[place]:
            return beside
        known = sample[~np.isnan(sample)]
        return replace(
            beside,
            mean=float(self.mean[place]),
            std=float(self.std[place]),
            min=float(statistics.low.value[place]),
            max=float(statistics.high.value[place]),
            distinct=self.distinct[place],
            level_counts=tuple(values[1].tolist()) if column.levels and values is not None else (),
            spike_counts=_spike_counts(column, values, known, rows=int(statistics.counts[place])),
            quantiles={} if column.levels else quantiles(known),
        )

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
        about = Warnings(
            self.statistics,
            names=self.screen.names,
            dtypes=[self.table.dtypes[at] for at in self.kept],
        )
        plain = [p for p in scaled if (c := typed[p]) is not None and c.transform == "none"]
        yield from about.about(
            np.array(modelled, np.intp), scaled=np.array(scaled, np.intp), plain=set(plain)
        )


def _spike_counts(
    column: Column,
    values: tuple[NDArray[np.float64], NDArray[np.int64]] | None,
    sample: NDArray[np.float64],
    *,
    rows: int,
) -> tuple[int, ...]:
    """Return the number of cells of each spike, estimated by a sample where the values are too many."""
    if values is not None:
        return tuple(int(values[1][np.searchsorted(values[0], spike)]) for spike in column.spikes)
    return tuple(round(float(np.mean(sample == spike)) * rows) for spike in column.spikes)


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
