"""Rows of npy bodies."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.limits import in_thread
from app.problems.problem import Problem
from app.rows.body import Decoded, RowsBody
from app.rows.decode.problems import NPY_SLUGS, as_problem
from app.rows.shape import Floats, RowsShape
from tabular.readers.npy import parse_header
from tabular.typed_rows import check_codes

_INLINE_BYTES = 2 * 1024 * 1024


async def read_npy(source: RowsBody) -> Decoded:
    """Return the rows of an npy body.

    Raises:
        Problem: `array-parse`, `array-dtype`, or the array is not of the right shape.
    """
    if len(source.content) <= _INLINE_BYTES:
        return Decoded(decode_npy(source.content, source.shape))
    return Decoded(await in_thread(decode_npy, source.content, source.shape))


def decode_npy(body: bytes, shape: RowsShape) -> Floats:
    """Return the rows of an npy body.

    Raises:
        Problem: As `read_npy`.
    """
    with as_problem(NPY_SLUGS):
        header = parse_header(body)
    if header is None:
        raise Problem("array-parse", "The header of the array is cut short.")
    shape.check_count(header.rows)
    shape.check_width(header.columns)
    came = len(body) - header.offset
    if came != header.size:
        raise Problem(
            "array-parse",
            f"The header of the array announces {header.size} bytes of values, {came} came.",
        )
    values = np.frombuffer(body, header.dtype, offset=header.offset)
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    rows = _as_floats(np.ascontiguousarray(values.reshape(header.shape, order=order)))
    if shape.types is not None and shape.types.has_codes:
        with as_problem():
            check_codes(rows, shape.types.columns)
    return rows


def _as_floats(values: NDArray[Any]) -> Floats:
    single = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    # No copy for what is a float32 or float64 of this machine already.
    return np.asarray(values, np.float32) if single else np.asarray(values, np.float64)
