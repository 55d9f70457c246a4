"""Arrow tables on the wire: IPC streams, batch by batch in both directions."""

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


def table_body(table: "pa.Table") -> Body:
    """A table as a body, of which a batch at a time is written."""
    return Body(partial(_pieces, table), None, ARROW)


def table_of(content: bytes) -> "pa.Table":
    """The table in an answer.

    Raises:
        UnexpectedAnswerError: it is no Arrow stream.
    """
    import pyarrow as pa  # noqa: PLC0415 - as above

    try:
        return pa.ipc.open_stream(content).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise UnexpectedAnswerError("the answer is no Arrow stream") from error


class ArrowDecoder:
    """Finds the record batches of an Arrow IPC stream as its bytes come.

    pyarrow itself only reads streams that it can wait for, which an event loop cannot. Messages
    are told apart by their encapsulation (Arrow columnar format, "Encapsulated message format"):
    a mark, the length of the metadata, the metadata, and a body whose length they hold.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._schema = b""
        self._ended = False

    def feed(self, data: bytes) -> Iterator["pa.RecordBatch"]:
        """The batches that `data` completes."""
        import pyarrow as pa  # noqa: PLC0415 - as above

        self._buffer += data
        while (message := self._message()) is not None:
            if not self._schema:
                self._schema = message
                continue
            yield from pa.ipc.open_stream(self._schema + message)

    def finish(self) -> None:
        """Say that there is no more.

        Raises:
            UnexpectedAnswerError: the end marker is missing.
        """
        if not self._ended:
            raise UnexpectedAnswerError("the answer ends before its last batch")

    def _message(self) -> bytes | None:
        """The next message, whole; None: it is not, or there is none."""
        if self._ended or len(self._buffer) < _PREFIX_BYTES:
            return None
        if self._buffer[:4] != _CONTINUATION:
            raise UnexpectedAnswerError("the answer is no Arrow stream")
        end = _PREFIX_BYTES + int.from_bytes(self._buffer[4:8], "little")
        self._ended = end == _PREFIX_BYTES
        if self._ended or len(self._buffer) < end:
            return None
        end += _body_bytes(self._buffer[_PREFIX_BYTES:end])
        if len(self._buffer) < end:
            return None
        message = bytes(self._buffer[:end])
        del self._buffer[:end]
        return message


def _body_bytes(metadata: bytes | bytearray) -> int:
    """`bodyLength` of the flatbuffer that describes a message."""
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
        raise UnexpectedAnswerError("the answer is no Arrow stream") from error


def _pieces(table: "pa.Table") -> Iterator[bytes]:
    import pyarrow as pa  # noqa: PLC0415 - as above

    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()
