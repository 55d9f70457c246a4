"""The npy format (versions 1.0 to 3.0) without numpy.load: nothing is allocated on trust."""

import ast
import math
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.problems.problem import Problem
from app.rows.body import Incoming
from app.rows.decode import read_table
from app.rows.shape import Floats, RowsShape

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
_LENGTH_AT = len(_MAGIC) + 2
_ALIGNMENT = 64
_MAX_HEADER_BYTES = 4096
_HEADER_KEYS = {"descr", "fortran_order", "shape"}
_REAL = re.compile(r"[<>|=]?(f[248]|[iu][1248])")
_MAX_SIZE = 2**63 - 1  # of any file; a longer number could not even be told in decimal digits
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class NpyHeader:
    """What a header says.

    Args:
        dtype: of the values: real numbers of any width and byte order.
        fortran: whether columns come one after the other, instead of rows.
        shape: of the array.
    """

    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


def decode_npy(body: bytes, shape: RowsShape) -> Floats:
    """The rows of a whole npy body.

    Raises:
        Problem: as `read_npy`.
    """
    header, offset = _found(parse_header(body), shape)
    values = len(body) - offset
    _check_size(header, came=values)
    if not header.fortran:
        return _rows(body, header, offset=offset)
    columns = np.frombuffer(body, header.dtype, offset=offset).reshape(header.shape, order="F")
    return _as_floats(np.ascontiguousarray(columns))


async def read_npy(incoming: Incoming) -> AsyncGenerator[Floats, None]:
    """The rows of an npy body, as they come.

    Raises:
        Problem: `array-parse`, `array-dtype`, or the array is not of the right shape.
    """
    start = b""
    found = None
    async for piece in incoming.body:
        start = start + piece if start else piece
        found = parse_header(start)
        if found is not None:
            break
    header, offset = _found(found, incoming.shape)
    read = _columns_first if header.fortran else _rows_first
    async for rows in read(incoming, header, start=start, offset=offset):
        yield rows


def _found(found: tuple[NpyHeader, int] | None, shape: RowsShape) -> tuple[NpyHeader, int]:
    """A header that fits the model."""
    if found is None:
        raise unreadable("its header is cut short")
    header, _ = found
    if len(header.shape) != 2:
        raise Problem(
            "batch-shape",
            f"The array has {len(header.shape)} dimensions; it must have 2: rows, columns.",
        )
    shape.check_count(header.shape[0])
    shape.check_width(header.shape[1])
    return found


async def _rows_first(
    incoming: Incoming, header: NpyHeader, *, start: bytes, offset: int
) -> AsyncGenerator[Floats, None]:
    if incoming.declared_bytes is not None:
        _check_size(header, came=incoming.declared_bytes - offset)
        incoming.total_rows = header.shape[0]
    row_bytes = header.dtype.itemsize * header.shape[1]
    step = max(1, _CHUNK_BYTES // row_bytes) * row_bytes
    waiting: list[bytes | memoryview] = [memoryview(start)[offset:]]
    size = came = len(start) - offset
    while True:
        if size >= step:
            together = b"".join(waiting)
            whole = size - size % step
            for begin in range(0, whole, step):
                yield _rows(together[begin : begin + step], header)
            waiting, size = [memoryview(together)[whole:]], size - whole
        piece = await anext(incoming.body, None)
        if piece is None:
            break
        came += len(piece)
        size += len(piece)
        _check_size(header, came=came, more=True)
        waiting.append(piece)
    _check_size(header, came=came)
    if size:
        yield _rows(b"".join(waiting), header)


async def _columns_first(
    incoming: Incoming,
    header: NpyHeader,  # noqa: ARG001  one signature
    *,
    start: bytes,
    offset: int,  # noqa: ARG001  one signature
) -> AsyncGenerator[Floats, None]:
    """No row is whole before the last column has come: the body waits on the disk."""
    async for rows in read_table(incoming, start=start):
        yield rows


def _check_size(header: NpyHeader, *, came: int, more: bool = False) -> None:
    if came > header.size or (came < header.size and not more):
        raise unreadable(f"the header announces {header.size} bytes of values, {came} came")


def _rows(data: bytes, header: NpyHeader, *, offset: int = 0) -> Floats:
    values = np.frombuffer(data, dtype=header.dtype, offset=offset).reshape(-1, header.shape[1])
    return _as_floats(values)


def _as_floats(values: NDArray[Any]) -> Floats:
    single = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    # No copy for what is a float32 or float64 of this machine already.
    return np.asarray(values, np.float32) if single else np.asarray(values, np.float64)


def npy_values(values: NDArray[Any]) -> memoryview:
    """The bytes of an array's values, C-ordered."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The bytes that come before the values of a C-ordered array."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    text += b" " * (-(_LENGTH_AT + 2 + len(text) + 1) % _ALIGNMENT) + b"\n"
    return _MAGIC + b"\x01\x00" + len(text).to_bytes(2, "little") + text


def parse_header(body: bytes) -> tuple[NpyHeader, int] | None:
    """The header and where the values begin; None when it has not come as a whole.

    Raises:
        Problem: `array-parse` or `array-dtype`.
    """
    length_bytes = _LENGTH_BYTES.get(body[len(_MAGIC) : _LENGTH_AT])
    if not body.startswith(_MAGIC[: len(body)]) or (
        length_bytes is None and len(body) >= _LENGTH_AT
    ):
        raise unreadable("it does not begin as an npy file of format 1.0, 2.0 or 3.0")
    if length_bytes is None or len(body) < _LENGTH_AT + length_bytes:
        return None
    start = _LENGTH_AT + length_bytes
    length = int.from_bytes(body[_LENGTH_AT:start], "little")
    if length > _MAX_HEADER_BYTES:
        raise unreadable("its header is too long")
    if start + length > len(body):
        return None
    return _header(body[start : start + length].decode("latin-1")), start + length


@lru_cache(maxsize=256)  # callers send the same few shapes over and over
def _header(text: str) -> NpyHeader:
    try:
        header = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise unreadable("its header is not a literal") from error
    if not isinstance(header, dict) or header.keys() != _HEADER_KEYS:
        raise unreadable("its header must have the keys descr, fortran_order and shape")
    descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    if not isinstance(fortran, bool):
        raise unreadable("fortran_order is neither True nor False")
    if not isinstance(shape, tuple) or not all(map(_is_size, shape)):
        raise unreadable("its shape is not a tuple of sizes")
    if not isinstance(descr, str) or not _REAL.fullmatch(descr):
        raise Problem(
            "array-dtype", "The array must hold float16, float32, float64 or integer numbers."
        )
    return NpyHeader(np.dtype(descr), fortran, shape)


def _is_size(size: object) -> bool:
    return type(size) is int and 0 <= size <= _MAX_SIZE


def unreadable(reason: str) -> Problem:
    """The problem of a body that is no npy array."""
    return Problem("array-parse", f"The body is not a readable npy array: {reason}.")
