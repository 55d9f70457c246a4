"""Cells that are kept as text beside the numbers of a table."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

from tabular.cells import as_text

GROUP_BYTES = 8 << 20
"""Most bytes of the cells of a row group, unless a single row has more."""


@contextmanager
def cells_writer(path: Path) -> Iterator["CellsWriter"]:
    """Open a writer of the cells of a table, and finish its file at the end."""
    writer = CellsWriter(path)
    try:
        yield writer
    finally:
        writer.close()


class CellsWriter:
    """Writer of a Parquet file of text, opened with its first rows.

    Attributes:
        unpacked_bytes: Size of the cells so far.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0
        self.unpacked_bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows."""
        self.unpacked_bytes += batch.nbytes
        for piece in _pieces(batch):
            if self._bytes + piece.nbytes > GROUP_BYTES:
                self._flush()
            self._waiting.append(piece)
            self._bytes += piece.nbytes

    def close(self) -> None:
        """Write what is left, and the footer."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        import pyarrow.parquet as pq  # type: ignore[import-untyped] # noqa: PLC0415 - of few tables

        if self._writer is None:
            schema = self._waiting[0].schema
            self._writer = pq.ParquetWriter(self._path, schema, compression="zstd")
        self._writer.write_table(pa.Table.from_batches(self._waiting))
        self._waiting, self._bytes = [], 0


def taken_cells(
    batch: pa.RecordBatch, columns: list[int], rows: pa.Array | None, *, text: frozenset[int]
) -> pa.RecordBatch:
    """Return some columns of some rows, as text or as numbers; names are the positions."""
    cells = [
        _kept_text(batch.column(at))
        if at in text
        else batch.column(at).cast(pa.float64(), safe=False)
        for at in columns
    ]
    taken = pa.record_batch(cells, names=[str(at) for at in columns])
    return taken if rows is None else taken.take(rows)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a batch in pieces that fit into a row group."""
    if batch.nbytes <= GROUP_BYTES or batch.num_rows <= 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half))
    yield from _pieces(batch.slice(half))


def _kept_text(cells: pa.Array) -> pa.Array:
    """Return cells as text, with the white space that text has."""
    return cells if cells.type == pa.string() else as_text(cells)
