"""Rows of npy bodies: whole from memory, or as they come."""

from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.connections.unfinished import UNFINISHED
from app.http.pieces import Pieces
from app.problems.problem import Problem
from app.rows.body import RowsBody
from app.rows.decode.problems import NPY_SLUGS, as_problem
from app.rows.decode.tables import read_table
from app.rows.shape import Floats, RowsShape
from tabular.readers.npy import NpyHeader, parse_header
from tabular.typed_rows import check_codes


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
    count = 0
    waiting = Pieces(start if header.fortran_order else start[header.offset :])
    del start, chunk  # the rest may come late
    if header.fortran_order:
        # Of columns one after the other, no row is whole before the last column has come.
        read = read_table(source, start=waiting)
    else:
        read = _rows_first(source, header, waiting)
    async for rows in read:
        _check_codes(rows, source.shape, before=count)
        count += len(rows)
        yield rows
        del rows  # more may come late


def _npy_header(start: bytes, shape: RowsShape) -> NpyHeader | None:
    """Return a header that fits the model; None where more must come before it is whole."""
    with as_problem(NPY_SLUGS):
        header = parse_header(start)
    if header is not None:
        shape.check_count(header.rows)
        shape.check_width(header.columns)
    return header


async def _rows_first(
    source: RowsBody, header: NpyHeader, waiting: Pieces
) -> AsyncGenerator[Floats, None]:
    if source.declared_bytes is not None:
        _check_size(header, came=source.declared_bytes - header.offset)
        source.total_rows = header.rows
    row_bytes = header.dtype.itemsize * header.columns
    came = waiting.size
    while True:
        while waiting.size >= (step := max(1, UNFINISHED.piece_bytes() // row_bytes) * row_bytes):
            together = waiting.take()
            waiting.add(together[step:])
            rows = _npy_rows(together[:step], header)
            del together  # the caller may wait for long before more comes
            yield rows
            del rows
        chunk = await anext(source.chunks, None)
        if chunk is None:
            break
        came += len(chunk)
        _check_size(header, came=came, more=True)
        waiting.add(chunk)
        del chunk
    _check_size(header, came=came)
    if waiting.size:
        yield _npy_rows(waiting.take(), header)


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
        with as_problem():
            check_codes(rows, shape.types.columns, before=before)


def _cut_short() -> Problem:
    return Problem("array-parse", "The header of the array is cut short.")
