"""Cells of columns that are not modelled, kept beside the table as the file has them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above

from tables.columns import Column


class KeptCells:
    """Parquet file of kept cells, whose columns are named by their positions in the table.

    Args:
        path: File; None if no cells were kept.
        columns: Types of all columns of the table, in the order of its file.
    """

    def __init__(self, path: Path | None, columns: Sequence[Column]) -> None:
        self._path = path
        self._ignored = [at for at, column in enumerate(columns) if column.type == "ignored"]

    def fill(self, batch: pa.RecordBatch, start: int) -> pa.RecordBatch:
        """Return rows with the cells of the ignored columns in place of nulls.

        Args:
            batch: Rows, whose first columns are those of the table.
            start: Number of the first row in the table.
        """
        if self._path is None or not self._ignored:
            return batch
        names = [str(at) for at in self._ignored]
        kept = _slice(self._path, names, start, start + batch.num_rows)
        columns = batch.columns
        for at, cells in zip(self._ignored, kept, strict=True):
            columns[at] = cells.cast(batch.schema[at].type, safe=False)
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _slice(path: Path, names: list[str], start: int, stop: int) -> list[pa.Array]:
    """Return some rows of some columns of a Parquet file; columns that it lacks are null."""
    with pq.ParquetFile(path) as file:
        known = [name for name in names if name in file.schema_arrow.names]
        groups = list(_groups(file, start, stop))
        first = sum(file.metadata.row_group(i).num_rows for i in range(groups[0])) if groups else 0
        table = file.read_row_groups(groups, columns=known, use_threads=False)
    rows = table.slice(start - first, stop - start).combine_chunks()
    nothing = pa.nulls(stop - start, pa.string())
    columns = [rows.column(name) if name in known else nothing for name in names]
    return [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns]


def _groups(file: pq.ParquetFile, start: int, stop: int) -> Iterator[int]:
    """Yield the row groups that hold some rows."""
    first = 0
    for index in range(file.metadata.num_row_groups):
        last = first + file.metadata.row_group(index).num_rows
        if first < stop and start < last:
            yield index
        first = last
