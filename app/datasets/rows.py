"""Rows of a stored table in any format, with the cells as its file has them."""

from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import numpy as np
from starlette.responses import Response

from app.limits import in_thread
from app.rows.codecs import ROWS_VARY, Codec
from app.rows.encode import Chunk, Part, ResponseTable
from app.rows.shape import Floats
from models_store.errors import BlobCorruptError, BlobMissingError
from models_store.files.blobs import Blobs
from models_store.records import Dataset
from tabular.columns import Column
from tabular.formats import TableFormat
from tabular.kept_cells import KeptCells
from tabular.typed_rows import JsonCell, TypedRows

_CHUNK_VALUES = 32_768
_TYPED_ROWS = 32  # to make a batch of thousands of typed columns takes as long as its rows


async def respond_rows(
    find: Callable[[], Dataset], blobs: Blobs, *, codec: Codec, rows: range
) -> Response:
    """Return rows of a dataset, which are read from the disk chunk by chunk.

    Args:
        find: Function that returns the dataset; it is called again if a file is gone meanwhile.
        rows: Indices of the rows, from 0; those after the last row are ignored.

    Raises:
        StoreError: There is no such dataset.
        BlobCorruptError: A file is not the one that was stored.
    """

    def opened() -> _OpenTable:
        dataset = find()
        try:
            return _OpenTable(dataset, blobs, codec.format)
        except (BlobMissingError, FileNotFoundError):
            changed = find()
            if changed.key == dataset.key:
                raise
            return _OpenTable(changed, blobs, codec.format)

    table = await in_thread(opened)
    return await codec.stream(table.layout(rows), table.chunks(rows), headers=ROWS_VARY)


class _OpenTable:
    """Stored table whose files are open: its numbers, and the cells that were kept unchanged."""

    def __init__(self, dataset: Dataset, blobs: Blobs, kind: TableFormat) -> None:
        self._values = _numbers(blobs.open(dataset.key, dataset.sha256), dataset)
        # npy holds the numbers of the columns that are modelled, and nothing else.
        listed = dataset.stored_columns if kind is TableFormat.NPY else dataset.columns
        columns = [Column.from_dict(column) for column in listed]
        written = kind is TableFormat.CSV and any(c.decimal != "." for c in columns)
        plain = all(c.type == "number" and not c.missing for c in columns) and not written
        self._names = [column.name for column in columns]
        self._typed = None if plain else TypedRows(columns)
        path = None if dataset.cells is None else _cells(dataset, blobs)
        self._kept = KeptCells(path, columns)

    def layout(self, rows: range) -> ResponseTable:
        """Return the head of the response."""
        return ResponseTable(
            columns=self._names,
            parts=[Part("rows", 0, len(self._names))],
            rows=len(self._present(rows)),
            dtype=self._values.dtype,
            members={
                "columns": self._names,
                "offset": rows.start,
                "total": len(self._values),
            },
            explains=False,
            typed=self._typed,
        )

    async def chunks(self, rows: range) -> AsyncGenerator[Chunk, None]:
        """Yield the rows, in chunks whose cells fit into memory."""
        present = self._present(rows)
        step = max(_TYPED_ROWS if self._typed else 1, _CHUNK_VALUES // len(self._names))
        for first in range(0, len(present), step):
            some = present[first : first + step]
            for piece in [some] if self._typed is None else self._kept.pieces(some):
                yield await in_thread(self._chunk, piece)

    def _present(self, rows: range) -> range:
        return range(len(self._values))[rows.start : rows.stop : rows.step]

    def _chunk(self, rows: range) -> Chunk:
        values = self._values[rows.start : rows.stop : rows.step].copy()
        if self._typed is None:
            return Chunk(values)
        return Chunk(values, cells=self._kept.fill(self._typed.batch(values), rows))


def _cells(dataset: Dataset, blobs: Blobs) -> Path:
    """Return the file of the cells, whose size is checked."""
    stored = dataset.cells or {}
    path = blobs.open(stored["key"], stored["sha256"])
    if path.stat().st_size != stored["bytes"]:
        raise BlobCorruptError(stored["key"])
    return path


def _numbers(table: Path, dataset: Dataset) -> Floats:
    """Return the rows of a file as a memory map; its size is checked, since a read past its end kills the process."""
    if table.stat().st_size != dataset.bytes:
        raise BlobCorruptError(dataset.key)
    try:
        values: Floats = np.load(table, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise BlobCorruptError(dataset.key) from error
    return values


def read_cells(
    dataset: Dataset, blobs: Blobs, rows: Sequence[int]
) -> tuple[Floats, list[dict[str, JsonCell]]]:
    """Return some rows of a dataset as numbers of its modelled columns, and as cells of all; call it in a thread.

    Args:
        rows: Indices of the rows, in any order.

    Raises:
        BlobError: A file is gone, or is not the one that was stored.
    """
    values = _numbers(blobs.open(dataset.key, dataset.sha256), dataset)
    columns = [Column.from_dict(column) for column in dataset.columns]
    kept = KeptCells(None if dataset.cells is None else _cells(dataset, blobs), columns)
    typed = TypedRows(columns)
    order = sorted(range(len(rows)), key=lambda at: rows[at])
    numbers: Floats = values[[rows[at] for at in order]]
    if numbers.dtype == np.float32:  # its shortest text is what was uploaded
        plain = np.array([float(str(value)) for value in numbers.flat]).reshape(numbers.shape)
    else:
        plain = numbers.astype(np.float64)
    cells: list[dict[str, JsonCell]] = [{}] * len(rows)
    for place, at in enumerate(order):
        batch = typed.batch(plain[place : place + 1])
        cells[at] = kept.fill(batch, range(rows[at], rows[at] + 1)).to_pylist()[0]
    return numbers[np.argsort(order)], cells
