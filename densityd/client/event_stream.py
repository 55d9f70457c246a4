"""Server-Sent Events, as their bytes come."""

from collections.abc import Iterator

from densityd.client.calls import json_of
from densityd.client.records import Event


class EventDecoder:
    """Finds the events in a stream; comments and the advice when to reconnect are skipped."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that `data` completes."""
        self._buffer += data
        while (end := self._buffer.find(b"\n\n")) >= 0:
            block = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            fields = dict(
                line.split(b": ", 1) for line in block.split(b"\n") if line[:1] != b":" and line
            )
            if b"data" in fields:
                yield Event.read(
                    {
                        "id": int(fields[b"id"]),
                        "event": fields[b"event"].decode(),
                        "data": json_of(fields[b"data"]),
                    }
                )
