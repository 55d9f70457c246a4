"""Storing of an opened table: types of its columns, its numbers in one file, its cells beside them."""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from numpy.typing import NDArray

from tabular.cells import try_encode
from tabular.columns import MAX_LIST_BYTES, Column, ColumnType, list_bytes
from tabular.errors import TableError
from tabular.formats import (
    ColumnSummary,
    ParseOptions,
    TableFormat,
    TableSummary,
    TableWarning,
    warning,
)
from tabular.ingest.dropping import without_rows
from tabular.ingest.observed import MIN_SPREAD, SHORT_FLOATS, ObservedColumns
from tabular.ingest.screen import RowScreen
from tabular.ingest.types import (
    Decision,
    decide_types,
    ignored_warning,
    refuse_types,
    text_profiles,
    wanted_types,
)
from tabular.ingest.warnings import COUNTED_ROWS, about_columns, leave_out, limit_warnings
from tabular.kept_cells import CellsWriter
from tabular.readers.npy import RowWriter
from tabular.rows import open_source
from tabular.source import Columns, Source, check_written

MIN_ROWS = 2
"""The fewest rows of a table: one row has no spread."""

_CONSTANT = "It is constant, and the caller leaves such columns out."
_LARGEST_INTEGER = 2.0**63
_MAX_NAMED = 3
_ID_NAME = re.compile(r"(?i)(.*[ _.-])?(id|uuid|guid|index|row_?(id|num|number))|.*[a-z]I[dD]")


def cells_path(destination: Path) -> Path:
    """Return the file beside a table that keeps its cells as they came."""
    return destination.with_suffix(".parquet")


def parse_table(
    source: Path,
    destination: Path,
    format: TableFormat,  # noqa: A002 - the word for it
    options: ParseOptions | None = None,
) -> TableSummary:
    """Check a file and store it as a row-major npy file, with its cells beside it. Call it in a process of the pool.

    Raises:
        TableError: The file cannot be stored; see ``docs/datasets.md``.
        OSError: The disk is full or failed.
    """
    chosen = options or ParseOptions()
    stored = store_table(open_source(source, format, chosen), destination, options=chosen)
    return replace(stored, source_sha256=sha256_of(source), source_bytes=source.stat().st_size)


def sha256_of(path: Path) -> str:
    """Return the hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def store_table(table: Source, destination: Path, *, options: ParseOptions) -> TableSummary:
    """Store the numbers of a table as a row-major npy file, and beside it its cells as they came.

    A table of floats alone, all of them modelled, is its own cells.

    Raises:
        TableError: The table cannot be stored; see ``docs/datasets.md``.
    """
    beside = cells_path(destination)
    table = without_rows(table, options.drop_rows)
    try:
        if all(map(pa.types.is_floating, table.types)):
            stored = _Store(table, options).run(destination, None)
            if all(column.column.type != "ignored" for column in stored.columns):
                return stored
        return _Store(table, options).run(destination, beside)
    except BaseException:
        destination.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
        raise


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
    """Storing of one table: its rows are read once for the types of text, and once for the numbers."""

    def __init__(self, table: Source, options: ParseOptions) -> None:
        self.table = table
        self.options = options
        self.wanted = wanted_types(table, options)
        self.decisions = self._decide()
        self.columns = {
            at: self.decisions[at].column
            if at in self.decisions
            else Column(
                name=name,
                type=self.wanted.get(at, "number"),
                na_values=tuple(options.na_values),
            )
            for at, name in enumerate(table.names)
        }
        _refuse_long_lists(self.columns.values())
        self.kept = [at for at, column in self.columns.items() if column.type != "ignored"]
        self.dtypes = [self._dtype_of(at) for at in self.kept]
        self.observed = ObservedColumns([self.columns[at] for at in self.kept], self.dtypes)
        names = [table.names[at] for at in self.kept]
        self.screen = RowScreen(names, missing=options.missing)
        self.warnings: list[TableWarning] = []
        self.dtype: Literal["float32", "float64"] = "float64"
        if set(self.dtypes) <= SHORT_FLOATS:
            self.dtype = "float32"

    def _decide(self) -> dict[int, Decision]:
        profiles = text_profiles(self.table, self.wanted, self.options)
        if profiles:
            for batch in self.table.batches():
                for at, profile in profiles.items():
                    profile.update(batch.column(at))
        return decide_types(self.table, profiles, self.wanted, self.options)

    def _dtype_of(self, at: int) -> str:
        """Return the type of a column in its file; text of numbers is as good as 64-bit floats."""
        is_number = self.columns[at].type in {"number", "integer"}
        return "float64" if self.table.untyped and is_number else self.table.dtypes[at]

    def run(self, destination: Path, beside: Path | None) -> TableSummary:
        """Read all rows, and write their numbers."""
        text_bytes = 0
        with RowWriter(destination, len(self.kept), dtype=self.dtype) as writer:
            if beside is None:
                self._write(writer, None, [destination])
            else:
                with CellsWriter(beside, self.table.types) as cells:
                    self._write(writer, cells, [destination, beside])
                text_bytes = cells.text_bytes
            self._check_row_count()
            summaries = self._summaries()
            ignored = {at for at, summary in summaries.items() if summary.column.type == "ignored"}
            keep = np.array([at in summaries and at not in ignored for at in self.kept])
            if not keep.any():
                raise self._nothing_left(summaries)
            if not keep.all():
                writer.keep_columns(keep)
            writer.finish()
        return TableSummary(
            rows=writer.rows,
            rows_dropped=self.screen.rows_dropped,
            dtype=self.dtype,
            columns=[summaries[at] for at in sorted(summaries)],
            warnings=limit_warnings(
                [*self.table.warnings, *self.warnings, *self._about_columns(summaries)]
            ),
            sha256=sha256_of(destination),
            bytes=destination.stat().st_size,
            cells=beside is not None,
            text_bytes=text_bytes,
        )

    def _write(self, writer: RowWriter, cells: CellsWriter | None, files: list[Path]) -> None:
        """Write the numbers and the cells of all rows that are not dropped."""
        for batch in self.table.batches():
            first = self.screen.rows_read + 1
            values, numbers = self.screen.apply(self._matrix(batch))
            if not numbers.size:
                continue
            self.observed.update(values, numbers)
            writer.write(values)
            if cells is not None:
                dropped = numbers.size < batch.num_rows
                cells.write(batch.take(pa.array(numbers - first)) if dropped else batch)
            for file in files:
                check_written(file, self.options)

    def _matrix(self, batch: pa.RecordBatch) -> Columns:
        """Return the numbers of the columns that are kept."""
        values = np.empty((len(self.kept), batch.num_rows))
        for place, at in enumerate(self.kept):
            values[place] = try_encode(batch.column(at), self.columns[at])[0]
        return values

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

    def _nothing_left(self, summaries: Mapping[int, ColumnSummary]) -> TableError:
        reasons = [
            (summary.name, f"The column is not modelled: {summary.reason}")
            for _, summary in sorted(summaries.items())
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
        self._refuse_integers()
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
        alone = int((self.observed.statistics.counts > 0).sum()) < 2
        for place, at in enumerate(self.kept):
            if constant[place] and self.options.constant == "drop":
                column, reason = Column(name=self.table.names[at], type="ignored"), _CONSTANT
            else:
                column, reason = self._typed(place, alone=alone)
            summaries[at] = self.observed.summary(place, column, reason)
        return summaries | self._tied(summaries)

    def _tied(self, summaries: Mapping[int, ColumnSummary]) -> dict[int, ColumnSummary]:
        """Return the columns whose values come in the same pairs with those of others, with the names of these."""
        continuous = {
            place: summaries[at].column.spikes
            for place, at in enumerate(self.kept)
            if at in summaries
            and (repeated := summaries[at].repetition) is not None
            and repeated.values
            and not summaries[at].column.levels
            and summaries[at].column.type in ("number", "integer")
        }
        found = {}
        for place, (others, listed) in self.observed.tied(continuous).items():
            summary = summaries[self.kept[place]]
            names = [self.columns[self.kept[other]].name for other in others]
            assert summary.repetition is not None  # noqa: S101  as the others that were looked at
            pairs = replace(summary.repetition, tied=names, listed=listed)
            found[self.kept[place]] = replace(summary, repetition=pairs)
        return found

    def _refuse_integers(self) -> None:
        """Refuse columns that the caller takes for integers, and that are none, or none of 64 bits."""
        statistics = self.observed.statistics
        wanted = [place for place, at in enumerate(self.kept) if self.wanted.get(at) == "integer"]
        faults = {
            place: "It holds numbers that are not whole."
            for place in wanted
            if not statistics.whole[place]
        }
        for place in wanted:
            if max(-statistics.low.value[place], statistics.high.value[place]) >= _LARGEST_INTEGER:
                faults.setdefault(
                    place, "It holds numbers of 2^63 and more, which integers of 64 bits cannot be."
                )
        refuse_types(
            (self.screen.names[place], "integer", fault) for place, fault in faults.items()
        )

    def _refuse_constants(self, constant: NDArray[np.bool_]) -> None:
        """Refuse or warn of constant columns, as the caller wants it."""
        policy = self.options.constant
        found = [self.screen.names[place] for place in np.flatnonzero(constant)]
        if found and (policy == "error" or (policy == "drop" and constant.all())):
            named = ", ".join(map(repr, found[:_MAX_NAMED]))
            more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
            text = (
                "Every column is constant: all rows are the same."
                if constant.all()
                else f"Constant, or varying by less than {MIN_SPREAD:g}: {named}{more}. With constant=drop"
                " such columns are left out, with constant=keep they are modelled as one value."
            )
            errors = [(name, "The column is constant.") for name in found]
            raise TableError("dataset-constant-column", text, column=found[0], errors=errors)
        words = {
            "drop": "was left out",
            "keep": "is modelled as one value: any other is nearly impossible",
        }
        for name in found:
            detail = f"The column is constant, and {words[policy]}."
            self.warnings.append(warning("constant", name, detail, leave_out(name)))

    def _typed(self, place: int, *, alone: bool) -> tuple[Column, str]:
        """Return the type of a column that is kept, and the reason."""
        at, observed = self.kept[place], self.observed
        empty = not observed.sample[place].size
        decision = self.decisions.get(at)
        column = replace(self.columns[at], missing=bool(observed.missing[place]))
        if decision is not None and column.is_discrete:
            return column, decision.reason
        ignored = self._reason_to_ignore(place, alone=alone)
        if ignored is not None:
            kind: ColumnType | None = "datetime" if column.type == "datetime" else "number"
            if empty:
                kind = None
            self.warnings.append(ignored_warning(column.name, ignored, model_as=kind))
            whole = None if empty or not observed.statistics.whole[place] else 0
            gone = Column(name=column.name, type="ignored", missing=column.missing, decimals=whole)
            return gone, ignored
        wanted = self.wanted.get(at)
        typed, reason = observed.typed(
            place,
            column,
            continuous=wanted == "number",
            reason=None if decision is None else decision.reason,
        )
        if wanted is not None:
            return replace(typed, type=wanted), "The caller says so."
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
        """Return why a column of whole numbers only numbers the rows, if it does."""
        at, statistics = self.kept[place], self.observed.statistics
        if statistics.consecutive[place] and statistics.low.value[place] in {0.0, 1.0}:
            return "It counts the rows."
        if at in self.table.nameless and statistics.increasing[place]:
            return "It has no name and goes up with each row, as row numbers do."
        known = self.observed.sample[place]
        has_id_name = at in self.table.nameless or _ID_NAME.fullmatch(self.table.names[at])
        if has_id_name and not statistics.missing[place] and np.unique(known).size == known.size:
            some = " that were compared" if known.size < statistics.rows else ""
            return f"Its name is that of an id, and all its cells{some} are distinct."
        return None

    def _about_columns(self, summaries: Mapping[int, ColumnSummary]) -> Iterator[TableWarning]:
        """Yield the warnings about columns that are modelled, and about rows that were dropped."""
        yield from self.screen.warnings()
        for decision in self.decisions.values():
            yield from decision.warnings
        modelled = {
            place: summaries[at].column
            for place, at in enumerate(self.kept)
            if at in summaries and summaries[at].column.type != "ignored"
        }
        yield from about_columns(self.observed, modelled, self.dtypes)
