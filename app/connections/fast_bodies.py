"""Chunks of bodies that come fast are passed on together."""

import asyncio

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

# To pass a chunk on costs as much as copying half a megabyte.
_FAST_BYTES = 32 * 1024
_TOGETHER_BYTES = 256 * 1024
_TOGETHER_S = 0.001


class FastBodies:
    """Bodies of the requests of one connection.

    Args:
        loop: Event loop of the timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def gather(self, cycle: RequestResponseCycle, chunk: bytes) -> bool:
        """Keep a chunk for a moment, and return True, unless it is to be passed on at once."""
        if len(chunk) < _FAST_BYTES or len(cycle.body) + len(chunk) >= _TOGETHER_BYTES:
            return False
        if not cycle.response_complete:
            cycle.body += chunk
            if self._timer is None:
                self._timer = self._loop.call_later(_TOGETHER_S, self._pass_on, cycle)
        return True

    def stop(self) -> None:
        """Pass nothing more on: the connection is lost."""
        if self._timer is not None:
            self._timer.cancel()

    def _pass_on(self, cycle: RequestResponseCycle) -> None:
        self._timer = None
        if cycle.body:
            cycle.message_event.set()
