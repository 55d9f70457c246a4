"""Rows of a result in another format than that of its file."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pyarrow.compute as pc  # type: ignore[import-untyped] # as above
from starlette.requests import Request
from starlette.responses import Response

from app.auth.key_checks import tell_of_file
from app.fairness.turns import in_thread, in_thread_alone
from app.http.downloads import result_path, unless_deleted
from app.problems.problem import Problem
from app.rows.codecs import Codec
from app.rows.respond import Rows, respond_opened, respond_streamed
from app.rows.response_table import Chunk, Part, ResponseTable
from app.rows.shape import Floats
from models_store.errors import BlobCorruptError
from models_store.files.blobs import Blobs
from models_store.job_states import JobResult
from tabular.errors import TableError
from tabular.formats import MEDIA_TYPES, SUFFIXES, ParseOptions, TableFormat
from tabular.open import open_cells, open_table
from tabular.readers.text import marks_of
from tabular.source import CellSource, default_names

# What was made here within the limits of results is not measured by those of uploads.
_ANY_SIZE = ParseOptions(
    delimiter=",",
    encoding="utf-8",
    max_rows=1 << 62,
    max_columns=1 << 31,
    max_bytes=1 << 62,
    reads_ahead=False,
)
_CHUNK_VALUES = 32_768  # hundreds of callers may read theirs slowly
_MIN_CHUNK_ROWS = 32
_FEW_COLUMNS = (
    64  # of more, to open a file and to read a chunk keep the interpreter's lock for long
)
_COLUMN_BYTES = 4096  # of a column of an open file, about
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class _ResultTable:
    names: list[str]
    chunks: Iterator[Chunk]
    schema: pa.Schema | None = None
    chunk_bytes: int = 0


def respond_result_rows(
    request: Request,
    result: JobResult,
    blobs: Blobs,
    *,
    codec: Codec,
    name: str,
    look: Callable[[], object],
) -> Response:
    """Return all rows of a result, which are converted chunk by chunk.

    One of many columns is opened once there is room for what that takes, one of all projects at a time.

    Args:
        request: Request to respond to.
        result: Result of a job.
        blobs: Store that has its file.
        codec: Format of the response.
        name: Name of the file for callers, without the suffix.
        look: Function as of `unless_deleted`.

    Raises:
        Problem: `not-acceptable`: npy is asked of a result with texts.
        BlobMissingError: The file is gone.
        BlobCorruptError: The file is not the one that was stored.
    """
    columns = result.get("columns")  # unknown of results of former versions
    is_wide = columns is None or len(columns) > _FEW_COLUMNS
    # From object storage it comes here, in this thread, which also looks through all of a CSV file: in that
    # of documents all would wait for it.
    with unless_deleted(look):
        options = _options(result_path(result, blobs), result)

    def open_rows() -> Rows:
        with unless_deleted(look):
            path = result_path(result, blobs)
            tell_of_file(request.scope, path)
            return _rows(result, path, codec, options, is_wide=is_wide)

    suffix = next(suffix for suffix, kind in SUFFIXES.items() if kind is codec.format)
    headers = {"Content-Disposition": f'attachment; filename="{name}{suffix}"'}
    if is_wide:
        return respond_opened(request, codec, open_rows, headers=headers)
    rows = open_rows()
    return respond_streamed(request, codec, rows.layout, rows.chunks, headers=headers)


def _options(path: Path, result: JobResult) -> ParseOptions:
    """Return the options of reading a result."""
    if MEDIA_TYPES[result["media_type"]] is not TableFormat.CSV:
        return _ANY_SIZE
    with _own(result):
        return replace(_ANY_SIZE, marks=marks_of(path))


def _rows(
    result: JobResult, path: Path, codec: Codec, options: ParseOptions, *, is_wide: bool
) -> Rows:
    """Return the rows of a result, whose file is open."""
    table = _opened(path, result, options)
    if table.schema is not None and codec.format is TableFormat.NPY:
        raise Problem("not-acceptable", "The result has texts or gaps, which npy cannot hold.")
    layout = ResponseTable(
        columns=table.names,
        parts=[Part("rows", 0, len(table.names))],
        rows=result["rows"],
        dtype=np.dtype(np.float64),
        members={"columns": table.names},
        explains=False,
        flat=len(table.names) == 1,
        schema=table.schema,
    )
    work = in_thread_alone if is_wide else in_thread

    async def chunks() -> AsyncGenerator[Chunk, None]:
        while True:
            with _own(result):
                read = await work(lambda: list(islice(table.chunks, 1)))
            if not read:
                return
            yield read.pop()  # and keep nothing while it is sent

    # A chunk is there as it was read and as it is sent.
    return Rows(layout, chunks, _COLUMN_BYTES * len(table.names) + 2 * table.chunk_bytes)


def _opened(path: Path, result: JobResult, options: ParseOptions) -> _ResultTable:
    kind = MEDIA_TYPES[result["media_type"]]
    with _own(result):
        if kind is TableFormat.NPY:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            values = values.reshape(result["rows"], -1)
            # npy has no names; results of former versions do not tell theirs.
            names = result.get("columns", default_names(values.shape[1]))
            return _ResultTable(names, map(Chunk.of, _in_chunks(values)))
        source = open_cells(path, format=kind, options=options)
        # In CSV some names are marked.
        names = result.get("columns", source.names)
        text = frozenset(result.get("texts", source.text))
        if text:
            return _cells(source, names, text)
        table = open_table(path, format=kind, options=options)
        chunks = (Chunk.of(columns.T) for columns in table.chunks)
        first = list(islice(chunks, 1))  # which opens the file
        size = sum(chunk.values.nbytes for chunk in first)
        return _ResultTable(names, _from(first, chunks), chunk_bytes=size)


def _cells(source: CellSource, names: list[str], text: frozenset[int]) -> _ResultTable:
    """Return a result that holds more than numbers; an empty text of CSV is a gap."""
    batches = source.read(text)
    first = next(batches)
    fields = [pa.field(name, column.type) for name, column in zip(names, first, strict=True)]
    schema = pa.schema(fields)

    def chunk(batch: pa.RecordBatch) -> Chunk:
        columns = [_without_empty(column) for column in batch.columns]
        cells = pa.RecordBatch.from_arrays(columns, schema=schema)
        return Chunk(np.empty((batch.num_rows, len(names))), cells=cells)

    size = first.nbytes
    return _ResultTable(names, map(chunk, _from([first], batches)), schema, size)


def _from(read: list[_Item], rest: Iterator[_Item]) -> Iterator[_Item]:
    """Yield what was read already, which is not kept, and the rest."""
    while read:
        yield read.pop()
    yield from rest


def _without_empty(cells: pa.Array) -> pa.Array:
    if not pa.types.is_string(cells.type):
        return cells
    return pc.if_else(pc.equal(cells, ""), pa.scalar(None, cells.type), cells)


def _in_chunks(values: Floats) -> Iterator[Floats]:
    step = max(_MIN_CHUNK_ROWS, _CHUNK_VALUES // max(1, values.shape[1]))
    for start in range(0, len(values), step):
        yield values[start : start + step].copy()


@contextmanager
def _own(result: JobResult) -> Iterator[None]:
    """Report any fault of a stored file as corruption, which is not the caller's fault."""
    try:
        yield
    except (TableError, ValueError) as error:
        raise BlobCorruptError(result["key"]) from error
