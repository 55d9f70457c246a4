"""Rows of a stored table in any format, with the cells as its file has them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from app.auth.key_checks import tell_of_file
from app.fairness.turns import MOST_DESCRIBED_BYTES, in_thread, in_thread_of_cells
from app.rows.codecs import Codec
from app.rows.respond import Rows, respond_opened, respond_streamed, respond_whole
from app.rows.response_table import Chunk, Part, ResponseTable
from app.rows.shape import Floats
from models_store.errors import BlobCorruptError, BlobMissingError
from models_store.files.blobs import Blobs
from models_store.records import Dataset
from tabular.columns import Column
from tabular.formats import TableFormat
from tabular.kept_cells import STAYING_BYTES, KeptCells
from tabular.typed_rows import TypedRows

_CHUNK_VALUES = 32_768  # hundreds of callers may read theirs slowly
_TYPED_ROWS = 32  # to make a batch of thousands of typed columns takes as long as its rows
_TYPED_BYTES = 2**22  # of their texts
_COLUMN_BYTES = 4096  # of a column as it is held, about, and of a level beside its text
_LEVEL_BYTES = 64


def respond_rows(
    request: Request, find: Callable[[], Dataset], blobs: Blobs, *, codec: Codec, rows: range
) -> Response:
    """Return rows of a small dataset, which are read from the disk chunk by chunk.

    Args:
        request: Request to respond to.
        find: Function that returns the dataset; it is called again if a file is gone meanwhile.
        blobs: Store that has its files.
        codec: Format of the response.
        rows: Indices of the rows, from 0; those after the last row are ignored. With a step, cells
            of columns that are not modelled are null, because they cannot be read one by one.

    Raises:
        StoreError: There is no such dataset.
        BlobCorruptError: A file is not the one that was stored.
    """
    opened = _found(request, find, blobs, codec, rows)
    if opened.table.kept.footer_bytes > MOST_DESCRIBED_BYTES:
        return respond_wide_rows(request, find, blobs, codec=codec, rows=rows)
    if opened.is_whole:
        return respond_whole(request, codec, opened.layout, opened.all_rows(), headers={})
    held_bytes = opened.held_bytes
    return respond_streamed(
        request, codec, opened.layout, opened.chunks, headers={}, held_bytes=held_bytes
    )


def respond_wide_rows(
    request: Request, find: Callable[[], Dataset], blobs: Blobs, *, codec: Codec, rows: range
) -> Response:
    """Return rows of a dataset whose columns take megabytes, which are read once there is room for them.

    Arguments and errors are those of `respond_rows`.
    """

    def open_rows() -> Rows:
        opened = _found(request, find, blobs, codec, rows)
        return Rows(opened.layout, opened.chunks, opened.held_bytes)

    return respond_opened(request, codec, open_rows)


def _found(
    request: Request, find: Callable[[], Dataset], blobs: Blobs, codec: Codec, rows: range
) -> "_Opened":
    dataset = find()
    try:
        opened = _opened_rows(dataset, blobs, codec, rows)
    except (BlobMissingError, FileNotFoundError):
        changed = find()
        if changed.key == dataset.key:
            raise
        opened = _opened_rows(changed, blobs, codec, rows)
    for file in opened.files:
        tell_of_file(request.scope, file)
    return opened


def _opened_rows(dataset: Dataset, blobs: Blobs, codec: Codec, rows: range) -> "_Opened":
    file = blobs.open(dataset.key, dataset.sha256)
    values = _opened(file, dataset)
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
    kept = KeptCells(path, columns)
    table = _Table(values, typed, kept)
    step, text_bytes = _CHUNK_VALUES // len(names), 0
    if typed is not None:
        few = min(_TYPED_ROWS, _TYPED_BYTES // max(1, typed.text_bytes))
        step = min(max(step, few), _TYPED_BYTES // max(1, typed.text_bytes))
        text_bytes = min(len(wanted), max(1, step)) * typed.text_bytes
    # Levels are there as texts and as cells; the rows of a chunk as they were read and as they are sent.
    held_bytes = sum(map(_column_bytes, columns)) + 2 * text_bytes
    held_bytes += kept.footer_bytes + (STAYING_BYTES if kept.stays else 0)
    files = [file] if path is None else [file, path]
    return _Opened(table, layout, wanted, max(1, step), held_bytes, files)


def _column_bytes(column: Column) -> int:
    texts = (len(level) for level in column.levels if isinstance(level, str))
    return _COLUMN_BYTES + _LEVEL_BYTES * len(column.levels) + 2 * sum(texts)


@dataclass(frozen=True)
class _Opened:
    """Rows of a dataset whose files are open.

    Attributes:
        table: Stored table of the dataset.
        layout: Head of the response.
        wanted: Indices of the rows.
        step: Most rows of a chunk.
        held_bytes: Bytes that all this and a chunk take.
        files: Files that they are read from.
    """

    table: "_Table"
    layout: ResponseTable
    wanted: range
    step: int
    held_bytes: int
    files: list[Path]

    @property
    def is_whole(self) -> bool:
        """True if one chunk has all rows."""
        few = len(self.wanted) <= self.step
        return few and len(list(self.table.pieces(self.wanted))) == 1

    def all_rows(self) -> Chunk:
        """Return the only chunk."""
        return self.table.chunk(self.wanted)

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Yield the rows."""
        await in_thread(self.table.kept.read_footer)
        for first in range(0, len(self.wanted), self.step):
            for piece in self.table.pieces(self.wanted[first : first + self.step]):
                yield await self._in_thread_for(piece)(self.table.chunk, piece)

    def _in_thread_for(self, rows: range) -> Callable[..., Awaitable[Chunk]]:
        """Return the way to make a chunk.

        Cells of thousands of columns are as many objects, for each of which the interpreter's lock is kept;
        to read a row group of them takes longer, for which those of others do not wait.
        """
        is_quick = self.layout.typed is not None and self.table.kept.are_read(rows)
        return in_thread_of_cells if is_quick else in_thread


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
