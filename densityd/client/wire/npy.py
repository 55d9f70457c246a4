"""Arrays on the wire: npy, piece by piece in both directions."""

import io
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from densityd.client.call import NPY, Body
from densityd.client.errors import UnexpectedAnswerError

Floats = NDArray[np.float64]
_PIECE_BYTES = 1 << 20
_MAGIC_BYTES = 10  # of version 1.0: the magic string, the version, the length of the header


def rows_of(rows: ArrayLike) -> NDArray[Any]:
    """`rows` as an array that the service takes; what lies in a file stays there.

    Raises:
        ValueError: it is no table of real numbers.
    """
    array = np.asanyarray(rows)
    if array.ndim != 2:
        raise ValueError(f"rows are a 2-D array, one row a row; this one is {array.ndim}-D")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"rows hold real numbers; these are of dtype {array.dtype}")
    return array


def npy_body(rows: NDArray[Any]) -> Body:
    """An array as a body, of which no more than a piece is in memory if it lies in a file."""
    array = np.ascontiguousarray(rows)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    header = file.getvalue()
    return Body(partial(_pieces, header, array), len(header) + array.nbytes, NPY)


def array_of(content: bytes) -> Floats:
    """The array in an answer.

    Raises:
        UnexpectedAnswerError: it is no npy file.
    """
    try:
        array: Floats = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UnexpectedAnswerError("the answer is no array; is this a densityd?") from error
    return array


class NpyDecoder:
    """Finds the rows of an npy file as its bytes come."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._dtype = np.dtype(np.float64)
        self._columns = 0
        self._left: int | None = None

    def feed(self, data: bytes) -> Iterator[Floats]:
        """The rows that `data` completes, once they are worth an array."""
        self._buffer += data
        if self._left is None and not self._read_header():
            return
        size = self._dtype.itemsize * self._columns
        rows = min(len(self._buffer) // size, self._left or 0)
        if rows and (rows == self._left or len(self._buffer) >= _PIECE_BYTES):
            values = np.frombuffer(self._buffer[: rows * size], self._dtype)
            del self._buffer[: rows * size]
            self._left = (self._left or 0) - rows
            yield values.reshape(rows, self._columns)

    def finish(self) -> None:
        """Say that there is no more.

        Raises:
            UnexpectedAnswerError: rows are missing.
        """
        if self._left != 0:
            raise UnexpectedAnswerError("the answer ends before its last row")

    def _read_header(self) -> bool:
        """Whether the header is there."""
        if len(self._buffer) < _MAGIC_BYTES:
            return False
        size = _MAGIC_BYTES + int.from_bytes(self._buffer[8:10], "little")
        if len(self._buffer) < size:
            return False
        file = io.BytesIO(self._buffer[:size])
        try:
            np.lib.format.read_magic(file)
            shape, _, self._dtype = np.lib.format.read_array_header_1_0(file)
            self._left, self._columns = shape
        except ValueError as error:
            raise UnexpectedAnswerError("the answer is no table; is this a densityd?") from error
        del self._buffer[:size]
        return True


def _pieces(header: bytes, array: NDArray[Any]) -> Iterator[bytes]:
    yield header
    octets = array.reshape(-1).view(np.uint8)
    for start in range(0, len(octets), _PIECE_BYTES):
        yield octets[start : start + _PIECE_BYTES].tobytes()
