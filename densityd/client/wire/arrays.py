"""Arrays as npy files and tables as Arrow streams, in bodies that are encoded a part at a time."""

import io
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from densityd.client.call import ARROW, NPY, Body
from densityd.client.errors import UnexpectedAnswerError

if TYPE_CHECKING:  # it is large, and only those who have tables need it
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

Floats = NDArray[np.float64]
_CHUNK_BYTES = 1 << 20


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


def _iter_chunks(header: bytes, array: NDArray[Any]) -> Iterator[bytes]:
    yield header
    octets = array.reshape(-1).view(np.uint8)
    for start in range(0, len(octets), _CHUNK_BYTES):
        yield octets[start : start + _CHUNK_BYTES].tobytes()


def encode_table(table: "pa.Table") -> Body:
    """Return a table as a body that is encoded one record batch at a time."""
    return Body(partial(_encoded_batches, table), None, ARROW)


def read_table(content: bytes) -> "pa.Table":
    """Return the table in the content of a response.

    Raises:
        UnexpectedAnswerError: The content is not an Arrow stream.
    """
    import pyarrow as pa  # noqa: PLC0415 - as above

    try:
        return pa.ipc.open_stream(content).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise UnexpectedAnswerError("the response is not an Arrow stream") from error


def _encoded_batches(table: "pa.Table") -> Iterator[bytes]:
    import pyarrow as pa  # noqa: PLC0415 - as above

    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()
