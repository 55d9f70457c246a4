"""Cells of columns that are not modelled, kept beside the table as the file has them."""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above

from tabular.cells import missing_cells
from tabular.columns import Column

STAYING_BYTES = 8 << 20
"""Most bytes of cells that stay in memory once they were read."""

_FEW_COLUMNS = 64
_FOOTER_FACTOR = 12  # of its bytes in memory to those in the file
_FOOTER_END_BYTES = 8  # its size, and the mark of the format


class KeptCells:
    """Parquet file of kept cells, whose columns are named by their positions in the table.

    Args:
        path: File, which is opened at once and may be deleted then; None if no cells were kept.
        columns: Types of all columns of the table, in the order of its file.

    Attributes:
        footer_bytes: Memory of the footer of the file, which is as many as it has columns and row groups.
    """

    def __init__(self, path: Path | None, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._ignored = [at for at, column in enumerate(columns) if column.type == "ignored"]
        self._file = None if path is None or not self._ignored else pa.OSFile(os.fspath(path))
        self._metadata: Any = None
        self._ends: list[int] | None = None
        self.footer_bytes = 0 if self._file is None else _FOOTER_FACTOR * _footer_bytes(self._file)
        self._read: tuple[list[int], pa.Table] | None = None

    def read_footer(self) -> None:
        """Read the footer, which takes a while for thousands of columns and many row groups; no other method does then."""
        if self._file is not None:
            self._group_ends()

    def pieces(self, rows: range) -> Iterator[range]:
        """Yield consecutive rows in pieces whose cells fit into memory: each has those of one row group.

        Args:
            rows: Consecutive rows of the table.
        """
        if self._file is None:
            yield rows
            return
        ends = self._group_ends()
        start = rows.start
        for end in [*ends[bisect_right(ends, start) : bisect_left(ends, rows.stop)], rows.stop]:
            yield range(start, end)
            start = end

    def are_read(self, rows: range) -> bool:
        """Return whether nothing has to be read for consecutive rows."""
        if self._file is None:
            return True
        if self._read is None or self._ends is None:
            return False
        return self._read[0] == list(self._groups(rows.start, rows.stop))

    def fill(self, batch: pa.RecordBatch, start: int) -> pa.RecordBatch:
        """Return rows with the cells of the ignored columns in place of nulls.

        Args:
            batch: Rows, whose first columns are those of the table.
            start: Number of the first row in the table.
        """
        if self._file is None:
            return batch
        kept = self._slice(start, start + batch.num_rows)
        columns = batch.columns
        for at, cells in zip(self._ignored, kept, strict=True):
            known = pc.if_else(pa.array(missing_cells(cells, self._columns[at])), None, cells)
            columns[at] = known.cast(batch.schema[at].type, safe=False)
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)

    def _slice(self, start: int, stop: int) -> list[pa.Array]:
        """Return some rows of the ignored columns; those that the file lacks are null."""
        groups = list(self._groups(start, stop))
        first = self._group_ends()[groups[0] - 1] if groups and groups[0] else 0
        rows = self._groups_read(groups).slice(start - first, stop - start).combine_chunks()
        place_of = {name: place for place, name in enumerate(rows.column_names)}
        nothing = pa.nulls(stop - start, pa.string())
        places = [place_of.get(str(at)) for at in self._ignored]
        columns = [nothing if place is None else rows.column(place) for place in places]
        return [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns]

    def _groups_read(self, groups: list[int]) -> pa.Table:
        """Return the cells of row groups; those of many columns stay until others are asked for."""
        if self._read is not None and self._read[0] == groups:
            return self._read[1]
        self._read = None
        with pq.ParquetFile(self._file, metadata=self._opened_metadata()) as file:
            present = set(file.schema_arrow.names)  # made anew at each access, in milliseconds
            known = [name for at in self._ignored if (name := str(at)) in present]
            table = file.read_row_groups(groups, columns=known, use_threads=False)
        if self.stays and table.nbytes <= STAYING_BYTES:
            self._read = groups, table
        return table

    @property
    def stays(self) -> bool:
        """True if cells of a row group stay in memory: of many columns, to read each takes longer than its cells."""
        return self._file is not None and len(self._ignored) > _FEW_COLUMNS

    def _groups(self, start: int, stop: int) -> Iterator[int]:
        """Yield the row groups that hold some rows."""
        first = 0
        for index, last in enumerate(self._group_ends()):
            if first < stop and start < last:
                yield index
            first = last

    def _group_ends(self) -> list[int]:
        """Return the number of rows up to the end of each row group."""
        if self._ends is None:
            metadata = self._opened_metadata()
            counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self._ends = list(accumulate(counts))
        return self._ends

    def _opened_metadata(self) -> pq.FileMetaData:
        """Return the footer of the file, which is read once."""
        if self._metadata is None:
            self._metadata = pq.read_metadata(self._file)
        return self._metadata


def _footer_bytes(file: pa.OSFile) -> int:
    """Return the bytes of the footer of a Parquet file."""
    size = int(file.size())
    file.seek(max(0, size - _FOOTER_END_BYTES))
    footer = int.from_bytes(file.read(4), "little")
    return min(size, footer)
