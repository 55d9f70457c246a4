"""Rows of a stored table in any format, with the cells as its file has them."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from app.fairness.turns import in_thread
from app.rows.codecs import Codec
from app.rows.respond import respond_streamed, respond_whole
from app.rows.response_table import Chunk, Part, ResponseTable
from app.rows.shape import Floats
from models_store.errors import BlobCorruptError
from models_store.files.blobs import Blobs
from models_store.records import Dataset
from tables.columns import Column
from tables.formats import TableFormat
from tables.kept_cells import KeptCells
from tables.typed_rows import TypedRows

_CHUNK_VALUES = 32_768  # hundreds of callers may read theirs slowly
_TYPED_ROWS = 32  # to make a batch of thousands of typed columns takes as long as its rows


def respond_rows(
    request: Request, dataset: Dataset, blobs: Blobs, *, codec: Codec, rows: range
) -> Response:
    """Return rows of a dataset, which are read from the disk chunk by chunk.

    Args:
        request: Request to respond to.
        dataset: Dataset that has the rows.
        blobs: Store that has its files.
        codec: Format of the response.
        rows: Indices of the rows, from 0; those after the last row are ignored. With a step, cells
            of columns that are not modelled are null, because they cannot be read one by one.

    Raises:
        BlobCorruptError: A file is not the one that was stored.
    """
    values = _opened(blobs.open(dataset.key, dataset.sha256), dataset)
    wanted = range(len(values))[rows.start : rows.stop : rows.step]
    # npy holds the numbers of the columns that are modelled, and nothing else.
    listed = dataset.stored_columns if codec.format is TableFormat.NPY else dataset.columns
    names = [column["name"] for column in listed]
    columns = [Column.from_dict(column) for column in listed]
    written = codec.format is TableFormat.CSV and any(column.number_format for column in columns)
    typed = None if _are_floats(columns) and not written else TypedRows(columns)
    layout = ResponseTable(
        columns=names,
        parts=[Part("rows", 0, len(names))],
        rows=len(wanted),
        dtype=values.dtype,
        members={"columns": names, "offset": rows.start, "total": dataset.rows},
        explains=False,
        typed=typed,
    )
    path = None if dataset.cells is None or rows.step > 1 else _cells(dataset, blobs)
    table = _Table(values, typed, KeptCells(path, columns))
    step = max(1 if typed is None else _TYPED_ROWS, _CHUNK_VALUES // len(names))
    if len(wanted) <= step and len(list(table.pieces(wanted))) == 1:
        return respond_whole(request, codec, layout, table.chunk(wanted), headers={})

    async def chunks() -> AsyncGenerator[Chunk, None]:
        for first in range(0, len(wanted), step):
            for piece in table.pieces(wanted[first : first + step]):
                yield await in_thread(table.chunk, piece)

    return respond_streamed(request, codec, layout, chunks, headers={})


@dataclass(frozen=True)
class _Table:
    """Stored table: its numbers, and the cells that were kept unchanged.

    Attributes:
        values: Numbers of the columns that are not ignored.
        typed: Converter to cells; None: the numbers are given back as they are.
        kept: Cells of the columns that are ignored.
    """

    values: Floats
    typed: TypedRows | None
    kept: KeptCells

    def pieces(self, rows: range) -> Iterator[range]:
        """Yield rows in pieces whose texts fit into memory."""
        return iter([rows]) if self.typed is None else self.kept.pieces(rows)

    def chunk(self, rows: range) -> Chunk:
        """Return some rows."""
        values = self.values[rows.start : rows.stop : rows.step].copy()
        if self.typed is None:
            return Chunk(values)
        return Chunk(values, cells=self.kept.fill(self.typed.batch(values), rows.start))


def _are_floats(columns: list[Column]) -> bool:
    """Return whether all columns are given back as the numbers that they are stored as."""
    return all(column.type == "number" and not column.missing for column in columns)


def _cells(dataset: Dataset, blobs: Blobs) -> Path:
    """Return the file of the cells, whose size is checked."""
    stored = dataset.cells or {}
    path = blobs.open(stored["key"], stored["sha256"])
    if path.stat().st_size != stored["bytes"]:
        raise BlobCorruptError(stored["key"])
    return path


def _opened(table: Path, dataset: Dataset) -> Floats:
    """Return the rows of a file as a memory map; its size is checked, since a read past its end kills the process."""
    if table.stat().st_size != dataset.bytes:
        raise BlobCorruptError(dataset.key)
    try:
        values: Floats = np.load(table, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise BlobCorruptError(dataset.key) from error
    return values
