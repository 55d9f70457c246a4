"""Server-Sent Events, as their bytes come."""

from collections.abc import Iterator

from densityd.client.call import json_of
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
            if (event := _event(block)) is not None:
                yield event


def _event(block: bytes) -> Event | None:
    fields = {}
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        fields[name] = value.removeprefix(b" ")
    if b"data" not in fields or b"id" not in fields:
        return None  # what has no number is not of the job: why the stream ends before it
    number, kind = fields.get(b"id", b"").decode(), fields.get(b"event", b"").decode()
    return Event.read({"id": number, "event": kind, "data": json_of(fields[b"data"])})
