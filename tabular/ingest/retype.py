"""Change of the types of a stored table: its cells are ingested again."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above

from tabular.columns import ColumnType
from tabular.formats import ColumnSummary, ParseOptions, TableSummary, TableWarning
from tabular.ingest.storing import store_table
from tabular.source import Source, default_names, rows_per_chunk

_OF_THE_FILE = {
    *(
        "dropped",
        "encoding",
        "missing",
        "nonfinite",
        "numeric_header",
        "renamed",
        "skipped",
        "uneven",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFiles:
    """Stored table: its files, and what is known of its columns.

    Attributes:
        table: npy file of the numbers.
        cells: Parquet file of the cells; None if the numbers are all that came.
        columns: JSON objects of all columns.
    """

    table: Path
    cells: Path | None
    columns: Sequence[Mapping[str, Any]]
    warnings: Sequence[TableWarning]


def retype_table(
    stored: StoredFiles, destination: Path, types: Mapping[str, ColumnType], options: ParseOptions
) -> TableSummary:
    """Store a table again with other types of some columns. Call it in a process of the pool.

    Raises:
        TableError: ``dataset-dtype``: a column cannot have its type; ``unknown-column``.
    """
    old = {column["name"]: column for column in stored.columns}
    kept: dict[str, ColumnType] = {
        name: "ignored" for name, column in old.items() if column.get("type") == "ignored"
    }
    chosen = dataclasses.replace(
        options,
        types={**{n: t for n, t in options.types.items() if n in old}, **kept, **types},
        columns=None,
        exclude=(),
        missing="keep",
        constant="keep",
    )
    again = store_table(_source(stored), destination, options=chosen)
    columns = [
        column if column.name in types else _with_old_reason(column, old[column.name])
        for column in again.columns
    ]
    beside = [one for one in stored.warnings if one["code"] in _OF_THE_FILE]
    ignored = [
        one for one in stored.warnings if one["code"] == "ignored" and one["column"] not in types
    ]
    warnings = [*beside, *ignored, *again.warnings]
    return dataclasses.replace(again, columns=columns, warnings=warnings)


def _with_old_reason(column: ColumnSummary, old: Mapping[str, Any]) -> ColumnSummary:
    """Return a column whose type was not changed, with what the file told of it."""
    if old.get("type") == "ignored":
        return ColumnSummary.from_dict(old)
    if column.column.type == "ignored":
        return column
    return dataclasses.replace(
        column,
        reason=old.get("reason") or column.reason,
        dtype=old.get("dtype", column.dtype),
    )


def _source(stored: StoredFiles) -> Source:
    """Return a stored table as its file had it: its cells, or its numbers in the columns that have none kept.

    Former versions kept the cells of some columns alone.
    """
    names = [column["name"] for column in stored.columns]
    every = range(len(names))
    kept = (
        {} if stored.cells is None else {int(f.name): f.type for f in pq.read_schema(stored.cells)}
    )
    modelled = [at for at, column in enumerate(stored.columns) if column.get("type") != "ignored"]
    places = {at: place for place, at in enumerate(modelled)}
    types = [kept.get(at, pa.float64() if at in places else pa.string()) for at in every]

    def batches() -> Iterator[pa.RecordBatch]:
        numbers = np.load(stored.table, mmap_mode="r", allow_pickle=False)
        start = 0
        for cells in _cells(stored.cells, len(numbers), rows_per_chunk(len(names))):
            rows = numbers[start : start + cells.num_rows].astype(np.float64)
            start += cells.num_rows
            columns = [
                cells.column(str(at))
                if at in kept
                else pa.array(np.ascontiguousarray(rows[:, places[at]]))
                if at in places
                else pa.nulls(cells.num_rows, pa.string())
                for at in every
            ]
            yield pa.record_batch(columns, names=list(map(str, every)))

    return Source(
        names=names,
        dtypes=[column.get("dtype", "float64") for column in stored.columns],
        types=types,
        named=names != default_names(len(names)),
        batches=batches,
        untyped=pa.string() in types,
    )


def _cells(path: Path | None, rows: int, step: int) -> Iterator[pa.RecordBatch]:
    """Yield the kept cells of some rows at a time; batches without columns where there are none."""
    if path is not None:
        yield from pq.ParquetFile(path).iter_batches(step, use_threads=False)
        return
    for start in range(0, rows, step):
        yield pa.record_batch([pa.nulls(min(step, rows - start))], names=["nothing"])
