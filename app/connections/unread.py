"""Bytes that a caller still sends of a request that has been answered: read, forgotten, and bounded.

A socket that is closed while bytes wait in it resets the connection, and the reset destroys the
answer on its way (RFC 9112, 9.6). So the answer is sent, and the rest is read for a while.
"""

import asyncio
from collections.abc import Callable

MAX_S = 30.0
MAX_BYTES = 256 * 1024 * 1024
MIN_BYTES_PER_S = 1024
"""Bodies that come, and answers that are taken, more slowly than this are given up."""


class Unread:
    """The rest of one request.

    Args:
        loop: runs the timer.
        silence_s: longest wait for the next piece.
        give_up: called when the bounds are passed.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, silence_s: float, give_up: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._silence_s = silence_s
        self._give_up = give_up
        self._timer: asyncio.TimerHandle | None = None
        self._began = 0.0
        self._heard = 0.0
        self._came = 0

    @property
    def active(self) -> bool:
        """True while it is being read."""
        return self._timer is not None

    def begin(self) -> None:
        """Read and forget from now on."""
        self.stop()
        self._began = self._heard = self._loop.time()
        self._came = 0
        self._timer = self._loop.call_at(self._began + self._silence_s, self._look)

    def add(self, size: int) -> None:
        """Count what came."""
        self._heard = self._loop.time()
        self._came += size
        if self._came > MAX_BYTES:
            self._give_up()

    def stop(self) -> None:
        """End: the rest has come, or the connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        earned_s = self._silence_s + self._came / MIN_BYTES_PER_S
        until = min(self._heard + self._silence_s, self._began + min(earned_s, MAX_S))
        if self._loop.time() >= until:
            self._give_up()
        else:
            self._timer = self._loop.call_at(until, self._look)


class LingeringTransport(asyncio.Transport):
    """A transport whose `close` first lets the last answer arrive, where that is in danger.

    Args:
        transport: the real one.
        close: called instead of its `close`; ends with one of the two ways to close.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        super().__init__()
        self._transport = transport
        self._close = close
        self._half_closed = False
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]  # the shortest way
        self.write = transport.write  # type: ignore[method-assign]  # as above
        self.abort = transport.abort  # type: ignore[method-assign]  # as above
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]  # as above
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]  # as above
        self.get_write_buffer_size = transport.get_write_buffer_size  # type: ignore[method-assign]  # as above

    def is_closing(self) -> bool:
        """Say whether nothing more can be sent."""
        return self._half_closed or self._transport.is_closing()

    def close(self) -> None:
        """Close in one way or the other."""
        self._close()

    def close_at_once(self) -> None:
        """Close both directions once everything has been sent."""
        self._transport.close()

    def half_close(self) -> None:
        """Tell the caller, once everything has been sent, that this was all; go on reading."""
        if not self.is_closing():
            self._half_closed = True
            self._transport.write_eof()
