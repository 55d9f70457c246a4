"""Rows of numbers alone, which compiled loops read from memory; all else is left to other readers."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.fairness.turns import loop_turn
from app.http.body_memory import Share
from app.http.pieces import Pieces
from app.rows.body import RowsBody, is_headerless
from app.rows.decode.tables import read_table
from app.rows.shape import Floats
from tabular.readers.plain_numbers import csv_rows, number_lines

_Slices = Iterator[NDArray[np.float64] | None]

_MEMORY_BYTES = 8 * 1024 * 1024
"""Largest body that is read in memory."""
_MEMORY_PART = 0.25  # which may go to the disk instead, and leaves the rest to what cannot


async def read_ndjson(source: RowsBody) -> AsyncGenerator[Floats, None]:
    """Yield the rows of NDJSON: from memory where they are numbers alone, else by way of the disk.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    async for rows in _read(source, number_lines):
        yield rows


async def read_csv(source: RowsBody) -> AsyncGenerator[Floats, None]:
    """Yield the rows of CSV, as `read_ndjson` does those of NDJSON.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    read = read_table(source) if is_headerless(source.parameters) else _read(source, csv_rows)
    async for rows in read:
        yield rows


async def _read(
    source: RowsBody, read: Callable[[bytes, Sequence[str]], _Slices]
) -> AsyncGenerator[Floats, None]:
    shape, size, came = source.shape, source.declared_bytes, Pieces()
    with source.memory.share() as share:
        may_fit = shape.are_numbers and size is not None and size <= _MEMORY_BYTES
        if may_fit and await _has_come(source, came, share):
            body = came.take()
            values = await gathered(read(body, shape.columns), max_rows=shape.max_rows)
            if values is not None:
                del body  # the rows may wait for long
                share.hold(0)
                yield values
                return
            came.add(body)
            del body
        async for rows in read_table(source, start=came, counted=share):
            yield rows


async def _has_come(source: RowsBody, came: Pieces, share: Share) -> bool:
    """Keep the pieces of a body in memory; return False, with what has come, once there is no room for it."""
    async for piece in source.chunks:
        came.add(piece)
        if not share.may_hold(came.size, part=_MEMORY_PART):
            return False
    return True


async def gathered(slices: _Slices, *, max_rows: int) -> NDArray[np.float64] | None:
    """Return all rows, slice by slice, each of which is a turn of the event loop.

    Args:
        slices: Slices of rows; None among them for what needs another reader.
        max_rows: Most rows.

    Returns:
        Array of shape (rows, columns); None for more rows, or what needs another reader.
    """
    found: list[NDArray[np.float64] | None] = []
    count = 0
    while True:
        async with loop_turn():
            try:
                rows = next(slices)
            except StopIteration:
                break
        found.append(rows)
        count += 0 if rows is None else len(rows)
        if rows is None or count > max_rows:
            return None
    return joined(found, max_rows=max_rows)


def joined(
    slices: Sequence[NDArray[np.float64] | None], *, max_rows: int
) -> NDArray[np.float64] | None:
    """Return the rows of slices, as `gathered` does."""
    parts = [rows for rows in slices if rows is not None]
    count = sum(map(len, parts))
    if len(parts) < len(slices) or not 0 < count <= max_rows:
        return None
    whole = parts[0].base
    are_its_parts = whole is not None and all(rows.base is whole for rows in parts)
    if whole is not None and are_its_parts and whole.shape == (count, parts[0].shape[1]):
        return whole
    return np.concatenate(parts)
