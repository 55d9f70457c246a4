"""Rows of a request in a format that the store parses: by way of the disk, in bounded memory."""

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from app.fairness.turns import in_thread, owner_here
from app.problems.fields import field_error
from app.problems.problem import Problem
from app.rows.body import Incoming, is_headerless, write_to_disk
from app.rows.shape import Floats, RowsShape
from tables.errors import TableError
from tables.formats import ParseOptions, TableFormat
from tables.open import open_table
from tables.readers.arrow import checked_rows, largest_unpacked
from tables.sandbox.copy import open_table_isolated
from tables.source import Columns, TableSource

# What is wrong with a table is said in the words of a batch. Other slugs are the same for both.
_SLUGS = {
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
_TAKEN_BYTES = 1024 * 1024
MAX_BATCH_BYTES = 16 * 1024 * 1024
"""Memory that a batch of Arrow may take in this process; larger ones are for the disk, and what unpacks to
more is for a process of its own."""
_FORMULA_STARTS = ("'=", "'+", "'-", "'@")


async def read_table(
    incoming: Incoming, *, start: bytes = b"", before: int = 0
) -> AsyncGenerator[Floats, None]:
    """The rows of a body; columns that have names may come in any order.

    Args:
        incoming: the body.
        start: what has been taken from it before.
        before: rows of it that have been read before.

    Raises:
        Problem: saying what is wrong, and where.
    """
    with (
        incoming.blobs.staged(".rows") as file,
        incoming.blobs.staged(".npy") as unpacked,
        incoming.memory.share() as share,
    ):
        await write_to_disk(_prefixed(start, incoming.body), file)
        options = parse_options(incoming)
        unpacked_bytes = 0
        if incoming.format is TableFormat.ARROW:
            unpacked_bytes = await in_thread(largest_unpacked, file)
        with as_problem():
            if incoming.format is TableFormat.PARQUET or unpacked_bytes > MAX_BATCH_BYTES:
                isolated = partial(
                    open_table_isolated,
                    file,
                    unpacked,
                    format=incoming.format,
                    options=options,
                    memory_bytes=incoming.settings.parse_memory_bytes,
                    timeout_s=incoming.settings.parse_timeout_s,
                )
                table = await incoming.parsers.run(owner_here(), isolated)
            else:
                share.hold(unpacked_bytes)
                table = await in_thread(_open, file, incoming.format, options)
        if before == 0:
            incoming.total_rows = table.rows
        async for rows in table_rows(table, incoming, before=before):
            yield rows


def _open(file: Path, format: TableFormat, options: ParseOptions) -> TableSource:  # noqa: A002 - the word for it
    table = open_table(file, format=format, options=options)
    if format is TableFormat.ARROW:
        table = dataclasses.replace(table, rows=checked_rows(file, options))
    return table


def parse_options(incoming: Incoming) -> ParseOptions:
    """How a body is read, and how large it may be."""
    return ParseOptions(
        header=not is_headerless(incoming.parameters),
        max_rows=incoming.shape.max_rows,
        max_columns=max(incoming.settings.max_columns, incoming.shape.width),
        max_bytes=incoming.settings.max_table_bytes,
    )


async def table_rows(
    table: TableSource, incoming: Incoming, *, before: int = 0
) -> AsyncGenerator[Floats, None]:
    """The rows of an opened table.

    Args:
        table: whose columns may be in any order, if they have names.
        incoming: the body that it is of.
        before: rows of it that have been read before.

    Raises:
        Problem: saying what is wrong, and where.
    """
    order = _order_of(table, incoming)
    count = before
    while True:
        with as_problem():
            chunk = await in_thread(_taken, table.chunks)
        if chunk is None:
            break
        count += chunk.shape[1]
        incoming.shape.check_count(count)
        yield chunk[order].T if order is not None else chunk.T
    incoming.shape.check_count(count)


def _taken(chunks: Iterator[Columns]) -> Columns | None:
    """The next few chunks as one, which is less work for the engine; None at their end."""
    parts: list[Columns] = []
    for chunk in chunks:
        parts.append(chunk)
        if sum(part.nbytes for part in parts) >= _TAKEN_BYTES:
            break
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _order_of(table: TableSource, incoming: Incoming) -> list[int] | None:
    if not table.named:
        incoming.shape.check_width(len(table.names))
        return None
    names = table.names
    if incoming.format is TableFormat.CSV:
        names = [_as_it_was(name, incoming.shape) for name in names]
    order = incoming.shape.order_of(names)
    return None if order == list(range(len(order))) else order


def _as_it_was(name: str, shape: RowsShape) -> str:
    """A name without the mark that CSV answers have before what looks like a formula."""
    bare = name.removeprefix("'")
    return bare if name.startswith(_FORMULA_STARTS) and bare in shape.columns else name


@contextmanager
def as_problem() -> Iterator[None]:
    """Say what is wrong with a table in the words of a batch."""
    try:
        yield
    except TableError as error:
        raise _problem(error) from error


def _problem(error: TableError) -> Problem:
    slug = _SLUGS.get(error.slug, error.slug)
    errors = []
    if error.row is not None:
        column = () if error.column is None else (error.column,)
        errors = [field_error(error.detail, error.row - 1, *column)]
    return Problem(
        slug, error.detail, errors=errors, members={"column": error.column, "row": error.row}
    )


async def _prefixed(start: bytes, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if start:
        yield start
    async for piece in body:
        yield piece
