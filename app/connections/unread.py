"""Bytes that one side sends and the other one does not read: bounded in both directions."""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from app.connections.unfinished import UNFINISHED

MAX_S = 30.0
MAX_BYTES = 256 * 1024 * 1024
MIN_BYTES_PER_S = 1024
"""Least rate at which bodies must arrive and responses leave the process.

The kernel asks for half of `KERNEL_BYTES` at a time, so that who reads more slowly than that in a period
is taken for one who reads nothing.
"""

READ_BYTES = 64 * 1024
"""Most bytes of a read: each connection that is ready may have one that waits for its turn."""

KERNEL_BYTES = 128 * 1024
"""Bytes of a response that the kernel takes before the caller has made room for them."""

UNREAD_BYTES = 128 * 1024
"""Bytes of a body that the kernel keeps unread; Linux counts twice as many, with what surrounds them.

A caller has as many on their way at most, a few megabytes per second over a line of 50 ms.
"""

_BOUND = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # of Linux and macOS


def bound_unread(listener: socket.socket) -> None:
    """Have the kernel keep little of what callers send, however slowly the service reads it.

    It would take up to a megabyte of each body that is not read soon, and more of one that was read
    fast before; no other bound counts what waits there.

    Args:
        listener: Listening socket, whose connections have its bound.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES)


def bound_unsent(transport: asyncio.Transport) -> None:
    """Have the kernel take no more of a response than a few of its pieces, however slow the caller is.

    It would take up to four megabytes for each connection, whose response is complete then: neither counts
    what waits there, nor is it ended, and the kernel's memory for all connections is soon used up.
    """
    sock: socket.socket | None = transport.get_extra_info("socket")
    if _BOUND is not None and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(
            OSError
        ):  # not every kernel that is called Linux has it, nor a socket that was reset
            sock.setsockopt(socket.IPPROTO_TCP, _BOUND, KERNEL_BYTES)


class BoundedReads(asyncio.BufferedProtocol):
    """Protocol that passes all on to another one, and what was received in pieces of bounded size.

    The event loop itself reads a quarter of a megabyte of each connection that is ready. Of thousands
    that are ready at once, all that would be in memory until the last one has had its turn.

    Args:
        protocol: Protocol of the connection.
    """

    # Of all connections: what it holds is copied at once.
    _buffer = memoryview(bytearray(READ_BYTES))

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self._received = protocol.data_received
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]  # the shortest way
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]  # as above
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]  # as above
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]  # as above

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return the buffer to read into."""
        return self._buffer[: UNFINISHED.piece_bytes(READ_BYTES)]

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was read."""
        self._received(bytes(self._buffer[:nbytes]))


class Unread:
    """Rest of a request that was answered before its end: read, dropped and bounded.

    A socket that is closed while bytes wait in it resets the connection, and the reset destroys the
    response on its way (RFC 9112, 9.6). So the response is sent, and the rest is read for a while.

    Args:
        loop: Event loop of the timer.
        silence_s: Longest wait for the next bytes, in seconds.
        give_up: Function that is called when the bounds are passed.
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
        """Read and drop bytes from now on."""
        self.stop()
        self._began = self._heard = self._loop.time()
        self._came = 0
        self._timer = self._loop.call_at(self._began + self._silence_s, self._look)

    def add(self, size: int) -> None:
        """Count bytes that arrived."""
        self._heard = self._loop.time()
        self._came += size
        if self._came > MAX_BYTES:
            self._give_up()

    def stop(self) -> None:
        """End: the rest has come, or the connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self) -> None:
        """Read nothing more, without the function that was given."""
        self.stop()
        del self._give_up

    def _look(self) -> None:
        earned_s = self._silence_s + self._came / MIN_BYTES_PER_S
        until = min(self._heard + self._silence_s, self._began + min(earned_s, MAX_S))
        if self._loop.time() >= until:
            self._give_up()
        else:
            self._timer = self._loop.call_at(until, self._look)


class Unsent:
    """Bytes of responses that wait for a caller to read them, who may be slow, but not without end.

    Args:
        loop: Event loop of the timer.
        transport: Transport to abort when the caller reads too slowly.
        period_s: Time in which the caller must read at the least rate, in seconds.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, period_s: float
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._period_s = period_s
        self._timer: asyncio.TimerHandle | None = None
        self._bytes = 0
        self._received_bytes = 0
        self._ended = False

    def watch(self) -> None:
        """Watch that the caller reads, from now on."""
        if self._timer is None and not self._ended:
            self._bytes = self._transport.get_write_buffer_size()
            self._received_bytes = 0
            self._timer = self._loop.call_later(self._period_s, self._look)

    def add_received(self, size: int) -> None:
        """Count bytes that arrived: an answer may begin before its body has come."""
        self._received_bytes += size

    def stop(self) -> None:
        """Watch no longer: the caller has read what was buffered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Watch never again: the connection is lost."""
        self._ended = True
        self.stop()

    def _look(self) -> None:
        self._timer = None
        taken = self._bytes - self._transport.get_write_buffer_size()
        # Whoever is busy with sending the body of the request need not read.
        if taken + self._received_bytes < MIN_BYTES_PER_S * self._period_s:
            self._transport.abort()
        else:
            self.watch()


class LingeringTransport(asyncio.Transport):
    """Transport with a `close` that lets the last response arrive first, and two ways to pause reading.

    Args:
        transport: Transport to wrap.
        close: Function that is called instead of its `close`, and closes in one of the two ways.

    Attributes:
        held: True while nothing is read, paused or not.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        super().__init__()
        self._transport = transport
        self._close = close
        self._half_closed = False
        self._paused = False
        self.held = False
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]  # the shortest way
        self.write = transport.write  # type: ignore[method-assign]  # as above
        self.abort = transport.abort  # type: ignore[method-assign]  # as above
        self.get_write_buffer_size = transport.get_write_buffer_size  # type: ignore[method-assign]  # as above

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""
        self._paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again, once it is not held either."""
        self._paused = False
        self._read_again()

    def hold_reading(self) -> None:
        """Read nothing until `release_reading`."""
        self.held = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def release_reading(self) -> None:
        """Read again, once it is not paused either."""
        if self.held:
            self.held = False
            self._read_again()

    def _read_again(self) -> None:
        if not (self._paused or self.held or self._transport.is_closing()):
            self._transport.resume_reading()

    def is_closing(self) -> bool:
        """Return True if nothing more can be sent."""
        return self._half_closed or self._transport.is_closing()

    def close(self) -> None:
        """Close in one way or the other."""
        self._close()

    def forget(self) -> None:
        """Close at once from now on, without the function that was given."""
        self._close = self._transport.close

    def reset(self) -> None:
        """Close both directions now; what the kernel has not sent yet is dropped."""
        sock: socket.socket | None = self.get_extra_info("socket")
        # It may be closed already, which uvloop says in words of its own.
        with suppress(OSError, ValueError):
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close_at_once(self) -> None:
        """Close both directions once everything has been sent."""
        self._transport.close()

    def half_close(self) -> None:
        """Close the sending direction once everything has been sent; continue reading."""
        if not self.is_closing():
            self._half_closed = True
            self._transport.write_eof()
