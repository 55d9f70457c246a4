"""Rows of numbers alone, which compiled loops read; all else is left to the readers of tables."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.limits import in_thread
from app.rows.body import INLINE_BYTES, Decoded, RowsBody, is_headerless
from app.rows.decode.tables import read_table
from tabular.readers.plain_numbers import csv_rows, number_lines

Slices = Callable[[bytes, Sequence[str]], Iterator[NDArray[np.float64] | None]]


async def read_ndjson(source: RowsBody) -> Decoded:
    """Return the rows of NDJSON.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    rows = await read_numbers(source, number_lines)
    return await read_table(source) if rows is None else Decoded(rows)


async def read_csv(source: RowsBody) -> Decoded:
    """Return the rows of CSV.

    Raises:
        Problem: Saying what is wrong, and where.
    """
    rows = None if is_headerless(source.parameters) else await read_numbers(source, csv_rows)
    return await read_table(source) if rows is None else Decoded(rows)


async def read_numbers(source: RowsBody, read: Slices) -> NDArray[np.float64] | None:
    """Return the rows of a body of numbers alone; None for what another reader must look at."""
    shape = source.shape
    if not shape.are_numbers:
        return None

    def whole() -> NDArray[np.float64] | None:
        return _joined(list(read(source.content, shape.columns)), max_rows=shape.max_rows)

    return whole() if len(source.content) <= INLINE_BYTES else await in_thread(whole)


def _joined(
    slices: Sequence[NDArray[np.float64] | None], *, max_rows: int
) -> NDArray[np.float64] | None:
    parts = [rows for rows in slices if rows is not None]
    count = sum(map(len, parts))
    if len(parts) < len(slices) or not 0 < count <= max_rows:
        return None
    whole = parts[0].base
    are_its_parts = whole is not None and all(rows.base is whole for rows in parts)
    if whole is not None and are_its_parts and whole.shape == (count, parts[0].shape[1]):
        return whole
    return np.concatenate(parts)
