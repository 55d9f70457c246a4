"""The npy format (versions 1.0 to 3.0) without numpy.load: nothing is allocated on trust."""

import ast
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.problems import Problem

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
_LENGTH_AT = len(_MAGIC) + 2
_ALIGNMENT = 64
_MAX_HEADER_BYTES = 4096
_HEADER_KEYS = {"descr", "fortran_order", "shape"}
_DTYPES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"})


def decode_npy(body: bytes) -> NDArray[Any]:
    """A read-only view of the array in `body`: real numbers of any width, byte order and shape.

    Raises:
        Problem: `array-parse` or `array-dtype`.
    """
    text, offset = _header_text(body)
    dtype, fortran, shape = _header(text)
    size = dtype.itemsize
    for length in shape:
        size *= length
    if size != len(body) - offset:
        raise _unreadable(f"the header announces {size} bytes of values, {len(body) - offset} came")
    try:
        values = np.frombuffer(body, dtype=dtype, offset=offset) if size else np.empty(0, dtype)
        return values.reshape(shape, order="F" if fortran else "C")
    except ValueError as error:
        raise _unreadable("its shape is not one an array can have") from error


def encode_npy(values: NDArray[Any]) -> list[bytes | memoryview]:
    """A whole array as its header and its values; the values are not copied."""
    return [npy_header(values.dtype, values.shape), npy_values(values)]


def npy_values(values: NDArray[Any]) -> memoryview:
    """The bytes of an array's values, C-ordered."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The bytes that come before the values of a C-ordered array."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    text += b" " * (-(_LENGTH_AT + 2 + len(text) + 1) % _ALIGNMENT) + b"\n"
    return _MAGIC + b"\x01\x00" + len(text).to_bytes(2, "little") + text


def _header_text(body: bytes) -> tuple[str, int]:
    length_bytes = _LENGTH_BYTES.get(body[len(_MAGIC) : _LENGTH_AT])
    if not body.startswith(_MAGIC) or length_bytes is None:
        raise _unreadable("it does not begin as an npy file of format 1.0, 2.0 or 3.0")
    start = _LENGTH_AT + length_bytes
    length = int.from_bytes(body[_LENGTH_AT:start], "little")
    if length > _MAX_HEADER_BYTES or start + length > len(body):
        raise _unreadable("its header is cut short or too long")
    return body[start : start + length].decode("latin-1"), start + length


@lru_cache(maxsize=256)  # callers send the same few shapes over and over
def _header(text: str) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    try:
        header = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise _unreadable("its header is not a literal") from error
    if not isinstance(header, dict) or header.keys() != _HEADER_KEYS:
        raise _unreadable("its header must have the keys descr, fortran_order and shape")
    descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    if not isinstance(fortran, bool):
        raise _unreadable("fortran_order is neither True nor False")
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise _unreadable("its shape is not a tuple of sizes")
    if not isinstance(descr, str) or descr.lstrip("<>=|") not in _DTYPES:
        raise Problem(
            "array-dtype", "The array must hold float16, float32, float64 or integer numbers."
        )
    return np.dtype(descr), fortran, shape


def _unreadable(reason: str) -> Problem:
    return Problem("array-parse", f"The body is not a readable npy array: {reason}.")
