"""Rows of a stored table in any format, with the cells as its file has them."""

from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from starlette.responses import Response

from app.limits import in_thread
from app.rows.codecs import Codec
from app.rows.encode import Chunk, Part, ResponseTable
from app.rows.shape import Floats
from models_store.errors import BlobCorruptError, BlobMissingError
from models_store.files.blobs import Blobs
from models_store.records import Dataset
from tabular.columns import Column
from tabular.formats import TableFormat
from tabular.kept_cells import KeptCells
from tabular.typed_rows import TypedRows

_CHUNK_VALUES = 32_768  # hundreds of callers may read theirs slowly
_TYPED_ROWS = 32  # to make a batch of thousands of typed columns takes as long as its rows
_TYPED_BYTES = 2**22  # of their texts


async def respond_rows(
    find: Callable[[], Dataset], blobs: Blobs, *, codec: Codec, rows: range
) -> Response:
    """Return rows of a dataset, which are read from the disk chunk by chunk.

    Args:
        find: Function that returns the dataset; it is called again if a file is gone meanwhile.
        blobs: Store that has its files.
        codec: Format of the response.
        rows: Indices of the rows, from 0; those after the last row are ignored.

    Raises:
        StoreError: There is no such dataset.
        BlobCorruptError: A file is not the one that was stored.
    """
    opened = await in_thread(_found, find, blobs, codec, rows)
    return await codec.stream(opened.layout, opened.chunks(), headers={})


def _found(find: Callable[[], Dataset], blobs: Blobs, codec: Codec, rows: range) -> "_Opened":
    dataset = find()
    try:
        opened = _opened_rows(dataset, blobs, codec, rows)
    except (BlobMissingError, FileNotFoundError):
        changed = find()
        if changed.key == dataset.key:
            raise
        opened = _opened_rows(changed, blobs, codec, rows)
    return opened


def _opened_rows(dataset: Dataset, blobs: Blobs, codec: Codec, rows: range) -> "_Opened":
    file = blobs.open(dataset.key, dataset.sha256)
    values = _opened(file, dataset)
    wanted = range(len(values))[rows.start : rows.stop : rows.step]
    # npy holds the numbers of the columns that are modelled, and nothing else.
    listed = dataset.stored_columns if codec.format is TableFormat.NPY else dataset.columns
    names = [column["name"] for column in listed]
    columns = [Column.from_dict(column) for column in listed]
    written = codec.format is TableFormat.CSV and any(c.decimal != "." for c in columns)
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
    path = None if dataset.cells is None else _cells(dataset, blobs)
    kept = KeptCells(path, columns)
    table = _Table(values, typed, kept)
    step = _CHUNK_VALUES // len(names)
    if typed is not None:
        few = min(_TYPED_ROWS, _TYPED_BYTES // max(1, typed.text_bytes))
        step = min(max(step, few), _TYPED_BYTES // max(1, typed.text_bytes))
    files = [file] if path is None else [file, path]
    return _Opened(table, layout, wanted, max(1, step), files)


@dataclass(frozen=True)
class _Opened:
    """Rows of a dataset whose files are open.

    Attributes:
        table: Stored table of the dataset.
        layout: Head of the response.
        wanted: Indices of the rows.
        step: Most rows of a chunk.
        files: Files that they are read from.
    """

    table: "_Table"
    layout: ResponseTable
    wanted: range
    step: int
    files: list[Path]

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Yield the rows."""
        for first in range(0, len(self.wanted), self.step):
            for piece in self.table.pieces(self.wanted[first : first + self.step]):
                yield await in_thread(self.table.chunk, piece)


@dataclass(frozen=True)
class _Table:
    """Stored table: its numbers, and the cells that were kept unchanged.

    Attributes:
        values: Numbers of the columns that are not ignored.
        typed: Converter to cells; None: the numbers are given back as they are.
        kept: Cells as the file has them.
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
        return Chunk(values, cells=self.kept.fill(self.typed.batch(values), rows))


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
