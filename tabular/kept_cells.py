"""Cells of a stored table as its file had them: a Parquet file beside the numbers."""

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above

from tabular.cells import missing_cells
from tabular.columns import Column

GROUP_BYTES = 8 << 20
"""Most bytes of the cells of a row group, unless a single row has more."""


class CellsWriter:
    """Writer of the cells of a table, whose columns are named by their positions.

    Attributes:
        text_bytes: Size of the texts so far, unpacked.
    """

    def __init__(self, path: Path, types: Sequence[pa.DataType]) -> None:
        schema = pa.schema([pa.field(str(at), kind) for at, kind in enumerate(types)])
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0
        self.text_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self.text_bytes += sum(c.nbytes for c in batch.columns if pa.types.is_string(c.type))
        rows = max(1, batch.num_rows * GROUP_BYTES // max(GROUP_BYTES, batch.nbytes))
        for start in range(0, batch.num_rows, rows):
            piece = batch.slice(start, rows)
            if self._bytes + piece.nbytes > GROUP_BYTES:
                self._flush()
            self._waiting.append(piece)
            self._bytes += piece.nbytes

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting, self._bytes = [], 0


class KeptCells:
    """File of cells of a table, from which rows get the texts that their numbers do not tell.

    Texts, dates as they are written, and columns that are not modelled come from the file; numbers and truth values
    from the table. A file of a former version has some columns alone, and a table may have no file: what it lacks
    comes from the table, too.

    Args:
        path: File, which is opened at once and may be deleted then; None if there is none.
        columns: Types of all columns of the table, in the order of its file.
        filled: True if rows have cells for the gaps of the file, which stay.
    """

    def __init__(
        self, path: Path | None, columns: Sequence[Column], *, filled: bool = False
    ) -> None:
        self._columns, self._filled = columns, filled
        self._file: pq.ParquetFile | None = None
        self._places: list[int] = []
        self._ends: list[int] = []
        self._read: tuple[int, Any] = -1, None
        if path is None:
            return
        file = pq.ParquetFile(pa.OSFile(os.fspath(path)))
        kinds = {int(field.name): field.type for field in file.schema_arrow}
        self._places = [
            at
            for at, column in enumerate(columns)
            if at in kinds and (column.type == "ignored" or _is_text(column, kinds[at]))
        ]
        if self._places:
            self._file = file
            counts = (file.metadata.row_group(at).num_rows for at in range(file.num_row_groups))
            self._ends = list(accumulate(counts))

    def pieces(self, rows: range) -> Iterator[range]:
        """Yield rows, whose indices rise, in pieces whose cells fit into memory: each has those of one row group."""
        while rows:
            group = bisect_right(self._ends, rows.start)
            end = self._ends[group] if group < len(self._ends) else rows.stop
            count = len(range(rows.start, min(end, rows.stop), rows.step))
            yield rows[:count]
            rows = rows[count:]

    def fill(self, batch: pa.RecordBatch, rows: range) -> pa.RecordBatch:
        """Return rows with the cells of the file in place of those that the table tells."""
        if self._file is None or not rows:
            return batch
        cells = pa.concat_tables(map(self._taken, self.pieces(rows)))
        columns = batch.columns
        for place, at in enumerate(self._places):
            kept = cells.column(place).combine_chunks().cast(batch.schema[at].type, safe=False)
            column = self._columns[at]
            from_file = column.type == "ignored" or self._filled
            gaps = missing_cells(kept, column) if from_file else columns[at].is_null()
            other = columns[at] if self._filled else pa.scalar(None, kept.type)
            columns[at] = pa.compute.if_else(pa.array(gaps), other, kept)
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)

    def _taken(self, piece: range) -> pa.Table:
        """Return the cells of rows of one row group; the group that was read last stays."""
        group = bisect_right(self._ends, piece.start)
        first = self._ends[group - 1] if group else 0
        if self._read[0] != group and self._file is not None:
            names = [str(at) for at in self._places]
            self._read = group, self._file.read_row_group(group, columns=names, use_threads=False)
        indices = pa.array(range(piece.start - first, piece.stop - first, piece.step))
        return self._read[1].take(indices)


def _is_text(column: Column, kind: pa.DataType) -> bool:
    """Return whether the cells of a modelled column tell more than their numbers do."""
    told = column.type == "datetime" or any(isinstance(level, str) for level in column.levels)
    return told and pa.types.is_string(kind)
