"""Server-Sent Events."""

from collections.abc import Iterator

from densityd.client.call import parse_json
from densityd.client.records import Event


class EventDecoder:
    """An incremental decoder of a stream of events; comments and `retry` fields are skipped."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events that `data` completes."""
        self._buffer += data
        while (end := self._buffer.find(b"\n\n")) >= 0:
            block = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            if (event := _parse(block)) is not None:
                yield event


def _parse(block: bytes) -> Event | None:
    fields = {}
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        fields[name] = value.removeprefix(b" ")
    if b"data" not in fields or b"id" not in fields:
        return None  # an event without an id is about the stream, not the job
    number, kind = fields.get(b"id", b"").decode(), fields.get(b"event", b"").decode()
    return Event.read({"id": number, "event": kind, "data": parse_json(fields[b"data"])})
