"""Rows of a request in every format: from memory where that is quick, else by way of the disk."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.fairness.turns import in_thread, owner_here
from app.http.json_body import parse_json
from app.problems.fields import MAX_ERRORS, field_error, shown_names
from app.problems.problem import Problem
from app.rows.body import RowsBody, in_thread_if_large, is_headerless, write_to_disk
from app.rows.shape import Floats, RowsShape
from tables.errors import TableError
from tables.formats import ParseOptions, TableFormat
from tables.open import open_arrow_bytes, open_table
from tables.readers.arrow import StreamCheck, check_stream, unpacked_bytes
from tables.readers.json import COLUMNS, ROWS, JsonRows, number_rows, split_document
from tables.readers.npy import NpyHeader, parse_header
from tables.sandbox.copy import open_table_isolated, open_typed_isolated
from tables.slugs import Slug
from tables.source import Columns, TableSource
from tables.typed_rows import check_codes
from tables.typed_table import open_typed

# What is wrong with a table is said in the words of a batch. Other slugs are the same for both.
_SLUGS: dict[Slug, Slug] = {
    "column-name": "columns-mismatch",
    "dataset-duplicate-columns": "columns-mismatch",
    "dataset-dtype": "batch-value",
    "dataset-empty": "batch-empty",
    "dataset-encoding": "array-parse",
    "dataset-nonfinite": "value-nonfinite",
    "dataset-parse": "array-parse",
    "dataset-pickle-forbidden": "array-dtype",
    "dataset-shape": "batch-shape",
    "dataset-too-large": "limit-decoded-bytes",
    "dataset-truncated": "array-parse",
}
_NPY_SLUGS: dict[Slug, Slug] = _SLUGS | {"dataset-dtype": "array-dtype"}
_TAKEN_BYTES = 1024 * 1024
_MEMORY_BYTES = 2 * 1024 * 1024
"""Largest Arrow body that is read in memory."""
_MAX_BATCH_BYTES = 16 * 1024 * 1024
"""Memory that a batch of Arrow may take in this process; what unpacks to more is for a process of
its own."""
_FEW_LISTS = 1_000  # which parsers find faults in quickly
_FORMULA_STARTS = ("'=", "'+", "'-", "'@")


async def read_table(
    source: RowsBody, *, start: bytes | bytearray = b""
) -> AsyncGenerator[Floats, None]:
    """Yield the rows of a body; columns that have names may come in any order.

    Args:
        source: Body of a request.
        start: Bytes that have been taken from it before.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    with (
        source.blobs.staged(".rows") as file,
        source.blobs.staged(".npy") as unpacked,
        source.memory.share() as share,
    ):
        await write_to_disk(_prefixed(start, source.chunks), file)
        if isinstance(start, bytearray):
            start.clear()  # it is on the disk
        if source.shape.holds_cells and source.format is not TableFormat.NPY:
            async for rows in _typed_rows(source, file, unpacked):
                yield rows
            return
        options = _parse_options(source)
        stream = StreamCheck(unpacked=0, rows=None)
        with _as_problem():
            if source.format is TableFormat.ARROW:
                stream = await in_thread(check_stream, file, options)
            if source.format is TableFormat.PARQUET or stream.unpacked > _MAX_BATCH_BYTES:
                isolated = partial(
                    open_table_isolated,
                    file,
                    unpacked,
                    format=source.format,
                    options=options,
                    memory_bytes=source.settings.parse_memory_bytes,
                    timeout_s=source.settings.parse_timeout_s,
                )
                table = await source.parsers.run(owner_here(), isolated)
            else:
                share.hold(stream.unpacked)
                table = await in_thread(open_table, file, format=source.format, options=options)
                table = dataclasses.replace(table, rows=table.rows or stream.rows)
        source.total_rows = table.rows
        async for rows in _table_rows(table, source):
            yield rows


async def _table_rows(table: TableSource, source: RowsBody) -> AsyncGenerator[Floats, None]:
    order = _order_of(table, source)
    count = 0
    while True:
        with _as_problem():
            chunk = await in_thread(_taken, table.chunks)
        if chunk is None:
            break
        count += chunk.shape[1]
        source.shape.check_count(count)
        yield chunk[order].T if order is not None else chunk.T
    source.shape.check_count(count)


async def _typed_rows(source: RowsBody, file: Path, unpacked: Path) -> AsyncGenerator[Floats, None]:
    """Yield the rows of a file of cells, or of numbers beside columns that are left out."""
    with _as_problem():
        chunks = await _typed_chunks(source, file, unpacked)
    count = 0
    while True:
        with _as_problem():
            rows = await in_thread(_taken_rows, chunks)
        if rows is None:
            break
        count += len(rows)
        source.shape.check_count(count)
        yield rows
    source.shape.check_count(count)


async def _typed_chunks(
    source: RowsBody, file: Path, unpacked: Path
) -> Iterator[NDArray[np.float64]]:
    read = partial(
        open_typed,
        file,
        format=source.format,
        options=_parse_options(source),
        columns=source.shape.cell_columns,
        choose=partial(_places_of, source),
    )
    if source.format is TableFormat.ARROW:
        packed = await in_thread(unpacked_bytes, file) > 0
    else:
        packed = source.format is TableFormat.PARQUET
    if not packed:
        return await in_thread(read)
    isolated = partial(
        open_typed_isolated,
        file,
        unpacked,
        format=source.format,
        options=_parse_options(source),
        columns=source.shape.cell_columns,
        memory_bytes=source.settings.parse_memory_bytes,
        timeout_s=source.settings.parse_timeout_s,
    )
    table = await source.parsers.run(owner_here(), isolated)
    _places_of(source, table.names, table.named)
    return table.chunks


def _places_of(source: RowsBody, names: Sequence[str], named: bool) -> list[int]:  # noqa: FBT001  as `Choose`
    """Return the places of the model's columns among those of a file."""
    if not named:
        source.shape.check_width(len(names))
        return list(range(len(names)))
    if source.format is TableFormat.CSV:
        names = [_as_it_was(name, source.shape) for name in names]
    return source.shape.order_of(names)


def _taken_rows(chunks: Iterator[NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """Return the next few rows together, which is less work for the engine; None at their end."""
    parts: list[NDArray[np.float64]] = []
    for chunk in chunks:
        parts.append(chunk)
        if sum(part.nbytes for part in parts) >= _TAKEN_BYTES:
            break
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _taken(chunks: Iterator[Columns]) -> Columns | None:
    """Return the next few chunks as one, which is less work for the engine; None at their end."""
    parts: list[Columns] = []
    for chunk in chunks:
        parts.append(chunk)
        if sum(part.nbytes for part in parts) >= _TAKEN_BYTES:
            break
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _order_of(table: TableSource, source: RowsBody) -> list[int] | None:
    if not table.named:
        source.shape.check_width(len(table.names))
        return None
    names = table.names
    if source.format is TableFormat.CSV:
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
    )


async def _prefixed(start: bytes | bytearray, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if start:
        yield bytes(start)
    async for chunk in body:
        yield chunk


async def read_arrow(source: RowsBody) -> AsyncGenerator[Floats, None]:
    """Yield the rows of an Arrow stream; a small one of numbers does not touch the disk.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    read = read_table if source.shape.holds_cells else _read_arrow_numbers
    async for rows in read(source):
        yield rows


async def _read_arrow_numbers(source: RowsBody) -> AsyncGenerator[Floats, None]:
    waiting = bytearray()
    options = _parse_options(source)
    with source.memory.share() as share:
        async for chunk in source.chunks:
            waiting += chunk
            share.hold(len(waiting))
            if len(waiting) > _MEMORY_BYTES:
                break
        if len(waiting) <= _MEMORY_BYTES:
            body = bytes(waiting)
            with _as_problem():
                stream = await in_thread_if_large(check_stream, body, options, validate=False)
            if stream.unpacked <= _MAX_BATCH_BYTES:
                share.hold(len(body) + stream.unpacked)
                with _as_problem():
                    table = await in_thread_if_large(open_arrow_bytes, body, options)
                async for rows in _table_rows(table, source):
                    yield rows
                return
    async for rows in read_table(source, start=waiting):
        yield rows


def decode_npy(body: bytes, shape: RowsShape) -> Floats:
    """Return the rows of a whole npy body.

    Raises:
        Problem: As `read_npy`.
    """
    header = _npy_header(body, shape)
    if header is None:
        raise _cut_short()
    _check_size(header, came=len(body) - header.offset)
    if not header.fortran_order:
        rows = _npy_rows(body, header, offset=header.offset)
    else:
        columns = np.frombuffer(body, header.dtype, offset=header.offset)
        rows = _as_floats(np.ascontiguousarray(columns.reshape(header.shape, order="F")))
    _check_codes(rows, shape, before=0)
    return rows


async def read_npy(source: RowsBody) -> AsyncGenerator[Floats, None]:
    """Yield the rows of an npy body as they come.

    Raises:
        Problem: `array-parse`, `array-dtype`, or the array is not of the right shape.
    """
    start = b""
    header = None
    async for chunk in source.chunks:
        start = start + chunk if start else chunk
        header = _npy_header(start, source.shape)
        if header is not None:
            break
    if header is None:
        raise _cut_short()
    # Of columns one after the other, no row is whole before the last column has come.
    read = read_table(source, start=start) if header.fortran_order else None
    count = 0
    async for rows in read or _rows_first(source, header, start=start[header.offset :]):
        _check_codes(rows, source.shape, before=count)
        count += len(rows)
        yield rows


def _npy_header(start: bytes, shape: RowsShape) -> NpyHeader | None:
    """Return a header that fits the model; None where more must come before it is whole."""
    with _as_problem(_NPY_SLUGS):
        header = parse_header(start)
    if header is not None:
        shape.check_count(header.rows)
        shape.check_width(header.columns)
    return header


async def _rows_first(
    source: RowsBody, header: NpyHeader, *, start: bytes
) -> AsyncGenerator[Floats, None]:
    if source.declared_bytes is not None:
        _check_size(header, came=source.declared_bytes - header.offset)
        source.total_rows = header.rows
    row_bytes = header.dtype.itemsize * header.columns
    step = max(1, _TAKEN_BYTES // row_bytes) * row_bytes
    waiting: list[bytes | memoryview] = [start]
    size = came = len(start)
    while True:
        if size >= step:
            together = b"".join(waiting)
            whole = size - size % step
            for begin in range(0, whole, step):
                yield _npy_rows(together[begin : begin + step], header)
            waiting, size = [memoryview(together)[whole:]], size - whole
        chunk = await anext(source.chunks, None)
        if chunk is None:
            break
        came += len(chunk)
        size += len(chunk)
        _check_size(header, came=came, more=True)
        waiting.append(chunk)
    _check_size(header, came=came)
    if size:
        yield _npy_rows(b"".join(waiting), header)


def _check_size(header: NpyHeader, *, came: int, more: bool = False) -> None:
    if came > header.size or (came < header.size and not more):
        raise Problem(
            "array-parse",
            f"The header of the array announces {header.size} bytes of values, {came} came.",
        )


def _npy_rows(data: bytes, header: NpyHeader, *, offset: int = 0) -> Floats:
    values = np.frombuffer(data, dtype=header.dtype, offset=offset)
    return _as_floats(values.reshape(-1, header.columns))


def _as_floats(values: NDArray[Any]) -> Floats:
    single = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    # No copy for what is a float32 or float64 of this machine already.
    return np.asarray(values, np.float32) if single else np.asarray(values, np.float64)


def _check_codes(rows: Floats, shape: RowsShape, *, before: int) -> None:
    """Refuse numbers that stand for no level of a column of texts."""
    if shape.types is not None and shape.types.has_codes:
        with _as_problem():
            check_codes(rows, shape.types.columns, before=before)


def _cut_short() -> Problem:
    return Problem("array-parse", "The header of the array is cut short.")


async def read_json(source: RowsBody) -> AsyncGenerator[Floats, None]:
    """Yield the rows of a JSON document, all at once.

    Lists of numbers are read a slice in each turn of the event loop: a thread would hold the
    interpreter's lock for as long as all of them take, and the event loop would wait for it.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    body, shape = await source.memory.gather(source.chunks), source.shape
    if not shape.are_numbers:
        yield await in_thread_if_large(decode_document, body, shape)
        return
    found: list[NDArray[np.float64]] = []
    count = 0
    for rows in number_rows(body, width=shape.width):
        if rows is None or (count := count + len(rows)) > shape.max_rows:
            yield await in_thread_if_large(decode_document, body, shape)
            return
        found.append(rows)
        await asyncio.sleep(0)
    yield np.concatenate(found)


def decode_json(body: bytes, shape: RowsShape) -> Floats:
    """Return the rows of a JSON document that is small, null as not-a-number.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    if not shape.are_numbers:
        return decode_document(body, shape)
    found: list[NDArray[np.float64]] = []
    for rows in number_rows(body, width=shape.width):
        if rows is None:
            return decode_document(body, shape)
        found.append(rows)
    values = found[0] if len(found) == 1 else np.concatenate(found)
    return values if len(values) <= shape.max_rows else decode_document(body, shape)


def decode_document(body: bytes, shape: RowsShape) -> Floats:
    """Return the rows of a JSON document of any form, null as not-a-number.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    # A row of n values takes 2n + 1 bytes or more, so that no table of this size has more lists.
    most = max(_FEW_LISTS, len(body) // (2 * shape.width + 1))
    document = parse_json(body, max_lists=most)
    _check_members(document)
    with _as_problem():
        rows, names = split_document(document)
    shape.check_count(len(rows))
    if isinstance(rows[0], dict):
        if names is not None:
            raise Problem("batch-shape", "`columns` names the values of rows that are lists.")
        _check_keys(rows, shape)
        if shape.ignores_extra:
            rows = _known_members(rows, shape)
        with _as_problem(root=(ROWS,)):
            return _values(JsonRows(shape.columns, keys=shape.columns), rows, shape)
    order = None if names is None else shape.order_of(names)
    if isinstance(rows[0], list) and not (names and shape.ignores_extra):
        shape.check_width(len(rows[0]))
    names = names or list(shape.columns)
    with _as_problem(root=(ROWS,), places=names):
        return _values(JsonRows(names, keys=None), rows, shape, order=order)


def _values(
    reader: JsonRows, rows: list[Any], shape: RowsShape, *, order: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Return parsed rows as numbers, of the columns of a shape in their order."""
    if shape.types is None:
        values = reader.values(rows)
        return values if order is None else values[:, order]
    lists = reader.lists(rows)
    if order is not None:
        lists = [[row[place] for place in order] for row in lists]
    return shape.types.codes.rows(lists)


def _known_members(rows: list[Any], shape: RowsShape) -> list[Any]:
    """Return rows without the members that are no columns of the model."""
    known = set(shape.columns)
    return [
        {name: row[name] for name in shape.columns}
        if isinstance(row, dict) and row.keys() > known
        else row
        for row in rows
    ]


def _check_members(document: object) -> None:
    if not isinstance(document, dict):
        raise Problem("batch-shape", "The body must be an object with the member `rows`.")
    unknown = [name for name in document if name not in (ROWS, COLUMNS)]
    if unknown:
        errors = [field_error("There is no such field.", name) for name in unknown[:MAX_ERRORS]]
        raise Problem(
            "unknown-field", "The body may have the members `rows` and `columns`.", errors=errors
        )


def _check_keys(rows: list[Any], shape: RowsShape) -> None:
    keys = set(shape.columns)
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() == keys:
            continue
        if not (shape.ignores_extra and row.keys() > keys):
            missing = [name for name in shape.columns if name not in row]
            unknown = [name for name in row if name not in keys]
            raise Problem(
                "columns-mismatch",
                f"Row {index} lacks {len(missing)} columns of the model, has {len(unknown)} others.",
                members={
                    "row": index,
                    "missing": missing[:MAX_ERRORS],
                    "unknown": shown_names(unknown),
                },
            )


@contextmanager
def _as_problem(
    slugs: Mapping[Slug, Slug] = _SLUGS, *, root: Sequence[str] = (), places: Sequence[str] = ()
) -> Iterator[None]:
    """Say what is wrong with a table in the words of a batch.

    Args:
        slugs: Types of problems by those of tables, where the two differ.
        root: Place of the rows in the body.
        places: Names of columns that rows give by their place; empty: rows name them.
    """
    try:
        yield
    except TableError as error:
        errors = []
        if error.row is not None:
            column = [places.index(name) if places else name for name in [error.column] if name]
            errors = [field_error(error.detail, *root, error.row - 1, *column)]
        members = {"column": error.column, "row": error.row}
        slug = slugs.get(error.slug, error.slug)
        raise Problem(slug, error.detail, errors=errors, members=members) from error
