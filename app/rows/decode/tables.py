"""Rows of tables: Arrow in memory where that is quick, all else by way of the disk."""

import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from app.fairness.turns import (
    in_thread,
    in_thread_alone,
    in_thread_of_cells,
    in_thread_of_files,
    owner_here,
)
from app.http.body_memory import Share
from app.http.pieces import Pieces
from app.rows.body import INLINE_BYTES, RowsBody, in_thread_if_large, is_headerless, write_to_disk
from app.rows.decode.problems import as_problem
from app.rows.shape import Floats, RowsShape
from tabular.formats import ParseOptions, TableFormat
from tabular.open import open_arrow_bytes, open_table
from tabular.readers.arrow import StreamCheck, check_stream, is_packed
from tabular.readers.json import whole_rows
from tabular.sandbox.copy import open_table_isolated, open_typed_isolated
from tabular.source import TableSource
from tabular.typed_table import TypedTable, open_typed

_Opened = TypeVar("_Opened", TableSource, TypedTable)

TAKEN_BYTES = 1024 * 1024
_TAKING_S = 0.008
"""Time in which chunks of a file are taken before the next one of all who wait for the thread has its turn."""
_SMALL_FILE_BYTES = 4 * 1024 * 1024
_MEMORY_BYTES = 2 * 1024 * 1024
"""Largest Arrow body that is read in memory."""
_MEMORY_PART = 0.25  # as of numbers
_FEW_COLUMNS = 64  # of more, a piece takes too long for the thread of cells
_MAX_BATCH_BYTES = 16 * 1024 * 1024
"""Memory that a batch of Arrow may take in this process; what unpacks to more is for a process of
its own."""
_END = object()
_FORMULA_STARTS = ("'=", "'+", "'-", "'@")


async def read_table(
    source: RowsBody, *, start: Pieces | None = None, counted: Share | None = None
) -> AsyncGenerator[Floats, None]:
    """Yield the rows of a body; columns that have names may come in any order.

    Args:
        source: Body of a request.
        start: Bytes that have been taken from it before.
        counted: Share that holds them until they are on the disk.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    with (
        source.blobs.staged(".rows") as file,
        source.blobs.staged(".npy") as unpacked,
        source.memory.share() as share,
        source.files.share() as on_disk,
    ):
        await write_to_disk(_counted(_prefixed(start, counted, source.chunks), on_disk), file)
        if source.shape.holds_cells and source.format is not TableFormat.NPY:
            async for rows in _typed_rows(source, file, unpacked, on_disk):
                yield rows
            return
        options = _parse_options(source)
        stream = StreamCheck(unpacked=0, rows=None)
        with as_problem():
            if source.format is TableFormat.ARROW:
                stream = await in_thread(check_stream, file, options)
            if source.format is TableFormat.PARQUET or stream.unpacked > _MAX_BATCH_BYTES:
                isolated = partial(
                    open_table_isolated,
                    file,
                    unpacked,
                    format=source.format,
                    options=options,
                )
                table = await source.parsers.run(owner_here(), isolated, size=_size_of(file))
                on_disk.hold(on_disk.size + _size_of(unpacked))
            else:
                share.hold(stream.unpacked)
                read = partial(open_table, file, format=source.format, options=options)
                table = await _opened(file, read, width=source.shape.width)
                table = dataclasses.replace(table, rows=table.rows or stream.rows)
        source.total_rows, source.warnings = table.rows, table.warnings
        async for rows in _table_rows(table, source, size=_size_of(file)):
            yield rows


async def _table_rows(
    table: TableSource, source: RowsBody, *, size: int
) -> AsyncGenerator[Floats, None]:
    order = _order_of(table, source)
    count = 0
    async for chunk in _gathered(table.chunks, size=size, width=len(table.names), axis=1):
        count += chunk.shape[1]
        source.shape.check_count(count)
        yield chunk[order].T if order is not None else chunk.T
    source.shape.check_count(count)


async def _typed_rows(
    source: RowsBody, file: Path, unpacked: Path, on_disk: Share
) -> AsyncGenerator[Floats, None]:
    """Yield the rows of a file of cells, or of numbers beside columns that are left out."""
    with as_problem():
        table = await _typed_table(source, file, unpacked)
    on_disk.hold(on_disk.size + _size_of(unpacked))
    source.warnings = table.warnings
    count = 0
    width = source.shape.width
    async for rows in _gathered(table.chunks, size=_size_of(file), width=width, axis=0):
        count += len(rows)
        source.shape.check_count(count)
        yield rows
    source.shape.check_count(count)


async def _gathered(
    chunks: Iterator[Floats], *, size: int, width: int, axis: int
) -> AsyncGenerator[Floats, None]:
    """Yield the rows of several chunks together, which is less work for the engine.

    Chunks are taken for a few milliseconds at a time, since others wait for the same thread.

    Args:
        chunks: Rows of a file, some at a time.
        size: Bytes of the file.
        width: Number of columns of a chunk.
        axis: Axis of the rows of a chunk.
    """
    take = in_thread_of_cells if size <= INLINE_BYTES else in_thread_of_files
    if width > _FEW_COLUMNS:
        take = in_thread_alone
    parts: list[Floats] = []
    ended = False
    while not ended:
        with as_problem():
            ended = await take(_take_some, chunks, parts, axis)
        if parts and (ended or _size(parts) >= TAKEN_BYTES):
            yield parts.pop()


async def _typed_table(source: RowsBody, file: Path, unpacked: Path) -> TypedTable:
    read = partial(
        open_typed,
        file,
        format=source.format,
        options=_parse_options(source),
        columns=source.shape.cell_columns,
        choose=partial(_places_of, source),
    )
    if source.format is TableFormat.ARROW:
        packed = await in_thread(is_packed, file, _parse_options(source))
    else:
        packed = source.format is TableFormat.PARQUET
    if not packed:
        whole = await _whole_row(source, file)
        return await _opened(file, partial(read, whole=whole), width=source.shape.width)
    isolated = partial(
        open_typed_isolated,
        file,
        unpacked,
        format=source.format,
        options=_parse_options(source),
        columns=source.shape.cell_columns,
    )
    table = await source.parsers.run(owner_here(), isolated, size=_size_of(file))
    _places_of(source, table.names, table.named)
    return table


async def _opened(file: Path, read: Callable[[], _Opened], *, width: int) -> _Opened:
    """Open a file; a large one takes as long as its text, for which small ones do not wait."""
    size = _size_of(file)
    if size <= INLINE_BYTES and width <= _FEW_COLUMNS:
        return await in_thread_of_cells(read)  # nor do a few rows for large documents
    return await (in_thread_alone if size <= _SMALL_FILE_BYTES else in_thread)(read)


async def _whole_row(source: RowsBody, file: Path) -> object:
    """Return a row that has the members of all rows of a file of NDJSON; None for other formats."""
    whole: object = None
    if source.format is TableFormat.NDJSON:
        found = whole_rows(file, _parse_options(source))
        take = in_thread_of_cells if _size_of(file) <= INLINE_BYTES else in_thread_of_files
        while (some := await take(next, found, _END)) is not _END:
            whole = some
    return whole


def _places_of(source: RowsBody, names: Sequence[str], named: bool) -> list[int]:  # noqa: FBT001  as `Choose`
    """Return the places of the model's columns among those of a file."""
    if not named:
        assumed = source.shape.names_of(len(names))
        if assumed is None:
            source.shape.check_width(len(names))
            return list(range(len(names)))
        return source.shape.order_of(assumed)
    if source.format is TableFormat.CSV:
        names = [_as_it_was(name, source.shape) for name in names]
    return source.shape.order_of(names)


def _take_some(chunks: Iterator[Floats], parts: list[Floats], axis: int) -> bool:
    """Add the next few chunks to the parts, which become one once they are enough; return True at the end."""
    until = time.perf_counter() + _TAKING_S
    ended = True
    for chunk in chunks:
        if chunk.size:
            parts.append(chunk)
        if _size(parts) >= TAKEN_BYTES or time.perf_counter() >= until:
            ended = False
            break
    if len(parts) > 1 and (ended or _size(parts) >= TAKEN_BYTES):
        joined: Floats = np.concatenate(parts, axis=axis)  # type: ignore[assignment]  # of one type
        parts[:] = [joined]
    return ended


def _size(parts: Sequence[Floats]) -> int:
    return sum(part.nbytes for part in parts)


def _order_of(table: TableSource, source: RowsBody) -> list[int] | None:
    names = table.names
    if not table.named:
        assumed = source.shape.names_of(len(names))
        if assumed is None:
            source.shape.check_width(len(names))
            return None
        names = assumed
    elif source.format is TableFormat.CSV:
        names = [_as_it_was(name, source.shape) for name in names]
    order = source.shape.order_of(names)
    return None if order == list(range(len(order))) else order


def _as_it_was(name: str, shape: RowsShape) -> str:
    """Return a name without the mark that CSV responses have before what looks like a formula."""
    bare = name.removeprefix("'")
    return bare if name.startswith(_FORMULA_STARTS) and bare in shape.columns else name


def _parse_options(source: RowsBody) -> ParseOptions:
    return ParseOptions(
        header=not is_headerless(source.parameters),
        max_rows=source.shape.max_rows,
        max_columns=max(source.settings.max_columns, source.shape.width),
        max_bytes=source.settings.max_table_bytes,
        reserve=0 if source.blobs.is_remote else source.settings.reserve_bytes,
    )


def _size_of(path: Path) -> int:
    return path.stat().st_size


async def _counted(body: AsyncIterator[bytes], on_disk: Share) -> AsyncIterator[bytes]:
    """Yield the chunks of a body that is written to the disk, and count their bytes."""
    async for chunk in body:
        on_disk.hold(on_disk.size + len(chunk))
        yield chunk
        del chunk  # the next one may come late


async def _prefixed(
    start: Pieces | None, counted: Share | None, body: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    if start is not None:
        yield start.take()
    if counted is not None:
        counted.hold(0)
    async for chunk in body:
        yield chunk
        del chunk  # as above


async def read_arrow(source: RowsBody) -> AsyncGenerator[Floats, None]:
    """Yield the rows of an Arrow stream; a small one of numbers does not touch the disk.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    read = read_table if source.shape.holds_cells else _read_arrow_numbers
    async for rows in read(source):
        yield rows


async def _read_arrow_numbers(source: RowsBody) -> AsyncGenerator[Floats, None]:
    waiting = Pieces()
    options = _parse_options(source)
    with source.memory.share() as share:
        async for chunk in source.chunks:
            waiting.add(chunk)
            if waiting.size > _MEMORY_BYTES or not share.may_hold(waiting.size, part=_MEMORY_PART):
                break
        else:
            body = waiting.take()
            with as_problem():
                stream = await in_thread_if_large(check_stream, body, options, validate=False)
            if stream.unpacked <= _MAX_BATCH_BYTES:
                share.hold(len(body) + stream.unpacked)
                with as_problem():
                    table = await in_thread_if_large(open_arrow_bytes, body, options)
                async for rows in _table_rows(table, source, size=len(body)):
                    yield rows
                return
            waiting.add(body)
            del body
        async for rows in read_table(source, start=waiting, counted=share):
            yield rows
