"""Chunks of bodies that come fast are passed on together."""

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.connections.unfinished import UNFINISHED

# To pass a chunk on costs as much as copying half a megabyte.
_FAST_BYTES = 32 * 1024
_TOGETHER_BYTES = 256 * 1024
_TOGETHER_S = 0.001
# A body is waited for as a whole for so long, where as much as this part of it has come.
_WHOLE_S = 0.1
_WHOLE_PART = 1 / 8


class FastBodies:
    """Bodies of the requests of one connection.

    Args:
        loop: Event loop of the timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._kept: list[bytes | bytearray] = []
        self._size = 0  # of what is kept, but for what came in this read
        self._came = 0  # in this read
        self._awaits_whole = False

    def add(self, chunk: bytes) -> None:
        """Keep a chunk: a read may hold thousands of them."""
        self._kept.append(chunk)
        self._came += len(chunk)

    def end_read(self, cycle: RequestResponseCycle) -> None:
        """Keep for a moment what came in a read, or pass it on with what was kept."""
        if cycle.response_complete:
            self.drop()
            return
        UNFINISHED.begin(self)  # until `end`
        came, self._came = self._came, 0
        self._size += came
        if not came or self._awaits_whole:
            return
        most = UNFINISHED.piece_bytes(_TOGETHER_BYTES)
        if came < _FAST_BYTES or len(cycle.body) + self._size >= most:
            self.pass_on(cycle)
            if len(cycle.body) > min(most, HIGH_WATER_LIMIT):
                cycle.flow.pause_reading()
        elif self._timer is None:
            self._timer = self._loop.call_later(_TOGETHER_S, self.pass_on, cycle)

    def await_whole(
        self, cycle: RequestResponseCycle, size: int, has_room: Callable[[int], bool]
    ) -> None:
        """Keep the chunks of a body until all have come, if it comes fast and there is room for it.

        Args:
            cycle: Request with the body, which nobody waits for yet.
            size: Bytes of the body, as declared.
            has_room: Function that counts so many bytes, and returns whether they may be kept.
        """
        came = len(cycle.body) + self._size
        if not cycle.more_body or came < _WHOLE_PART * size or not has_room(size):
            return
        kept = [cycle.body, *self._kept]
        self.drop()
        cycle.body = bytearray()
        cycle.message_event.clear()
        self._kept, self._size, self._awaits_whole = kept, came, True
        self._timer = self._loop.call_later(_WHOLE_S, self.pass_on, cycle)

    def pass_on(self, cycle: RequestResponseCycle) -> None:
        """Pass on what is kept: it is all, much, or was kept long enough."""
        kept = self._kept
        self.drop()
        if not kept or cycle.response_complete:
            return
        body: bytes | bytearray = cycle.body
        if not body:
            body = b"".join(kept)
        else:  # in place, from the second time on: there may be thousands of small chunks
            body = body if isinstance(body, bytearray) else bytearray(body)
            body += b"".join(kept)
        cycle.body = body  # type: ignore[assignment]  # uvicorn copies it unless it is bytes
        cycle.message_event.set()

    def end(self) -> None:
        """Note that nothing more comes."""
        UNFINISHED.end(self)

    def drop(self) -> None:
        """Keep nothing: nobody waits for it."""
        self._kept, self._size, self._came, self._awaits_whole = [], 0, 0, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
