"""Rows of a stored table in any format, with the cells as its file has them."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.parquet as pq  # type: ignore[import-untyped] # as above
from starlette.requests import Request
from starlette.responses import Response

from app.fairness.turns import in_thread
from app.rows.answer_table import AnswerTable, Chunk, Part
from app.rows.codecs import Codec
from app.rows.respond import respond_streamed, respond_whole
from app.rows.shape import Floats
from models_store.errors import BlobCorruptError
from models_store.files.blobs import BlobStore
from models_store.records import Dataset
from tables.columns import Column
from tables.formats import TableFormat
from tables.typed_rows import TypedRows

_CHUNK_VALUES = 131_072


def answer_rows(
    request: Request, dataset: Dataset, blobs: BlobStore, *, codec: Codec, rows: range
) -> Response:
    """Return rows of a dataset, which are read from the disk chunk by chunk.

    Args:
        request: Request that is answered.
        dataset: Dataset that has the rows.
        blobs: Store that has its files.
        codec: Format of the response.
        rows: Indices of the rows, from 0; those after the last row are ignored.

    Raises:
        BlobCorruptError: A file is not the one that was stored.
    """
    values = _opened(blobs.path(dataset.key), dataset)
    wanted = range(len(values))[rows.start : rows.stop]
    # npy holds the numbers of the columns that are modelled, and nothing else.
    listed = dataset.stored_columns if codec.format is TableFormat.NPY else dataset.columns
    names = [column["name"] for column in listed]
    columns = [Column.from_dict(column) for column in listed]
    typed = None if _are_floats(columns) else TypedRows(columns)
    answer = AnswerTable(
        columns=names,
        parts=[Part("rows", 0, len(names))],
        rows=len(wanted),
        dtype=values.dtype,
        members={"columns": names, "offset": rows.start, "total": dataset.rows},
        explains=False,
        typed=typed,
    )
    table = _Table(
        values, columns, typed, None if dataset.cells is None else _cells(dataset, blobs)
    )
    step = max(1, _CHUNK_VALUES // len(names))
    if len(wanted) <= step:
        return respond_whole(
            request, codec, answer, table.chunk(wanted.start, wanted.stop), headers={}
        )

    async def chunks() -> AsyncGenerator[Chunk, None]:
        for start in wanted[::step]:
            yield await in_thread(table.chunk, start, min(start + step, wanted.stop))

    return respond_streamed(request, codec, answer, chunks, headers={})


@dataclass(frozen=True)
class _Table:
    """Stored table: its numbers, and the cells that were kept as they came.

    Attributes:
        values: Numbers of the columns that are not ignored.
        columns: Types of all columns.
        typed: Converter to cells; None: the numbers are given back as they are.
        cells: File of the cells as they came, whose columns are named by their positions.
    """

    values: Floats
    columns: list[Column]
    typed: TypedRows | None
    cells: Path | None

    def chunk(self, start: int, stop: int) -> Chunk:
        """Return some rows."""
        values = self.values[start:stop].copy()
        if self.typed is None:
            return Chunk(values)
        batch = self.typed.batch(values)
        ignored = [at for at, column in enumerate(self.columns) if column.type == "ignored"]
        if self.cells is None or not ignored:
            return Chunk(values, cells=batch)
        kept = _slice(self.cells, [str(at) for at in ignored], start, stop)
        columns = batch.columns
        for at, cells in zip(ignored, kept, strict=True):
            columns[at] = cells.cast(batch.schema[at].type, safe=False)
        return Chunk(values, cells=pa.RecordBatch.from_arrays(columns, schema=batch.schema))


def _are_floats(columns: list[Column]) -> bool:
    """Return whether all columns are given back as the numbers that they are stored as."""
    return all(column.type == "number" and not column.missing for column in columns)


def _cells(dataset: Dataset, blobs: BlobStore) -> Path:
    """Return the file of the cells, whose size is checked."""
    stored = dataset.cells or {}
    path = blobs.path(stored["key"])
    if path.stat().st_size != stored["bytes"]:
        raise BlobCorruptError(stored["key"])
    return path


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


def _opened(table: Path, dataset: Dataset) -> Floats:
    """Return the rows of a file as a memory map; its size is checked, since a read past its end kills the process."""
    if table.stat().st_size != dataset.bytes:
        raise BlobCorruptError(dataset.key)
    try:
        values: Floats = np.load(table, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise BlobCorruptError(dataset.key) from error
    return values
