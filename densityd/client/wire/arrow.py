"""Arrow IPC streams, read and written one record batch at a time."""

import io
import struct
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from densityd.client.call import ARROW, Body
from densityd.client.errors import UnexpectedAnswerError

if TYPE_CHECKING:  # it is large, and only those who have tables need it
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

_CONTINUATION = b"\xff\xff\xff\xff"
_PREFIX_BYTES = 8
_BODY_LENGTH = 4 + 2 * 3  # in the table of offsets: bodyLength is the fourth field of a Message


def encode_table(table: "pa.Table") -> Body:
    """Return a table as a body that is encoded one record batch at a time."""
    return Body(partial(_iter_chunks, table), None, ARROW)


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


class ArrowDecoder:
    """An incremental decoder of an Arrow IPC stream.

    pyarrow only reads streams that block, which an event loop must not. Messages are separated by
    their encapsulation (Arrow columnar format, "Encapsulated message format"): a continuation
    marker, the length of the metadata, the metadata, and a body whose length is in the metadata.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._schema = b""
        self._ended = False

    def feed(self, data: bytes) -> Iterator["pa.RecordBatch"]:
        """Yield the record batches that `data` completes."""
        import pyarrow as pa  # noqa: PLC0415 - as above

        self._buffer += data
        while (message := self._message()) is not None:
            if not self._schema:
                self._schema = message
                continue
            yield from pa.ipc.open_stream(self._schema + message)

    def finish(self) -> None:
        """Check that the stream is complete.

        Raises:
            UnexpectedAnswerError: The end marker is missing.
        """
        if not self._ended:
            raise UnexpectedAnswerError("the response ends before its last batch")

    def _message(self) -> bytes | None:
        """Return the next message; None if it is incomplete, or there is none."""
        if self._ended or len(self._buffer) < _PREFIX_BYTES:
            return None
        if self._buffer[:4] != _CONTINUATION:
            raise UnexpectedAnswerError("the response is not an Arrow stream")
        end = _PREFIX_BYTES + int.from_bytes(self._buffer[4:8], "little")
        self._ended = end == _PREFIX_BYTES
        if self._ended or len(self._buffer) < end:
            return None
        end += _read_body_length(self._buffer[_PREFIX_BYTES:end])
        if len(self._buffer) < end:
            return None
        message = bytes(self._buffer[:end])
        del self._buffer[:end]
        return message


def _read_body_length(metadata: bytes | bytearray) -> int:
    """Return `bodyLength` of the flatbuffer that describes a message."""
    try:
        (table,) = struct.unpack_from("<I", metadata, 0)
        (back,) = struct.unpack_from("<i", metadata, table)
        offsets = table - back
        (size,) = struct.unpack_from("<H", metadata, offsets)
        if size <= _BODY_LENGTH:
            return 0
        (field,) = struct.unpack_from("<H", metadata, offsets + _BODY_LENGTH)
        return int(struct.unpack_from("<q", metadata, table + field)[0]) if field else 0
    except struct.error as error:
        raise UnexpectedAnswerError("the response is not an Arrow stream") from error


def _iter_chunks(table: "pa.Table") -> Iterator[bytes]:
    import pyarrow as pa  # noqa: PLC0415 - as above

    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()
