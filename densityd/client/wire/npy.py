"""Arrays as npy files, read and written in chunks."""

import io
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densityd.client.call import NPY, Body
from densityd.client.errors import UnexpectedAnswerError

Floats = NDArray[np.float64]
_CHUNK_BYTES = 1 << 20
_MAGIC_BYTES = 10  # version 1.0: the magic string, the version, the length of the header


def check_rows(rows: object) -> NDArray[Any]:
    """Return `rows` as a 2-D array of real numbers; a memory-mapped one is not read.

    Raises:
        ValueError: The rows are something else.
    """
    array = np.asanyarray(rows)
    if array.ndim != 2:
        raise ValueError(f"rows must be a 2-D array; this one is {array.ndim}-D")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"rows must be real numbers; these have dtype {array.dtype}")
    return array


def encode_array(rows: NDArray[Any]) -> Body:
    """Return an array as a body; a memory-mapped one is read a chunk at a time."""
    array = np.ascontiguousarray(rows)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    header = file.getvalue()
    return Body(partial(_iter_chunks, header, array), len(header) + array.nbytes, NPY)


def read_array(content: bytes) -> Floats:
    """Return the array in the content of a response.

    Raises:
        UnexpectedAnswerError: The content is not an npy file.
    """
    try:
        array: Floats = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UnexpectedAnswerError("the response is not an array; is this a densityd?") from error
    return array


class NpyDecoder:
    """An incremental decoder of a 2-D npy file."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._dtype = np.dtype(np.float64)
        self._columns = 0
        self._left: int | None = None

    def feed(self, data: bytes) -> Iterator[Floats]:
        """Yield the rows that `data` completes, once they are a megabyte or the last ones."""
        self._buffer += data
        if self._left is None and not self._read_header():
            return
        size = self._dtype.itemsize * self._columns
        rows = min(len(self._buffer) // size, self._left or 0)
        if rows and (rows == self._left or len(self._buffer) >= _CHUNK_BYTES):
            values = np.frombuffer(self._buffer[: rows * size], self._dtype)
            del self._buffer[: rows * size]
            self._left = (self._left or 0) - rows
            yield values.reshape(rows, self._columns)

    def finish(self) -> None:
        """Check that the file is complete.

        Raises:
            UnexpectedAnswerError: Rows are missing.
        """
        if self._left != 0:
            raise UnexpectedAnswerError("the response ends before its last row")

    def _read_header(self) -> bool:
        """Read the header; return False while it is incomplete."""
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
            raise UnexpectedAnswerError(
                "the response is not a table; is this a densityd?"
            ) from error
        del self._buffer[:size]
        return True


def _iter_chunks(header: bytes, array: NDArray[Any]) -> Iterator[bytes]:
    yield header
    octets = array.reshape(-1).view(np.uint8)
    for start in range(0, len(octets), _CHUNK_BYTES):
        yield octets[start : start + _CHUNK_BYTES].tobytes()
