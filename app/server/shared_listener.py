"""Listening socket of several processes, from which each accepts its share of the connections."""

import asyncio
import logging
import select
import socket
import time
from collections.abc import Callable

from app.connections.groups import ConnectionGroups
from app.connections.protocol import BoundedProtocol
from app.server.connection_shares import ConnectionShares

_AT_ONCE = 16  # connections in an iteration of the event loop
_LOOK_S = 0.001
_PATIENCE_NS = 200_000_000
_ERROR_PAUSE_S = 1.0

log = logging.getLogger(__name__)


class SharedListener:
    """Listening socket from which several processes accept, each as many connections as the others.

    A new connection wakes all of them. Left to themselves, the first would take all that wait, and
    have them as long as they last. So a process with more than the mean leaves what waits to the
    others, and looks again in a millisecond; who has said nothing meanwhile is not waited for.

    It listens as soon as it is made. Belongs to one event loop.

    Args:
        sock: Listening socket.
        make_protocol: Function that returns the protocol of a new connection.
        shares: Numbers of connections of all processes.
        open_connections: Connections of this process.
    """

    def __init__(
        self,
        sock: socket.socket,
        make_protocol: Callable[[], BoundedProtocol],
        *,
        shares: ConnectionShares,
        open_connections: ConnectionGroups,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._make_protocol = make_protocol
        self._shares = shares
        self._open = open_connections
        self._open.on_removed = self._tell
        self._arriving: dict[BoundedProtocol, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._waits_since = 0
        self._takes = False
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        sock.settimeout(0)
        self._resume()

    def close(self) -> None:
        """Accept no more; what waits is left to the others."""
        self._pause()
        self._stop_taking()
        self._sock.close()

    async def wait_closed(self) -> None:
        """Return at once: the server itself waits for the connections."""

    def _resume(self) -> None:
        self._timer = None
        self._takes = True
        self._tell()
        self._loop.add_reader(self._sock, self._look)

    def _pause(self) -> None:
        self._loop.remove_reader(self._sock)
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        if self._takes:
            arriving = sum(protocol not in self._open for protocol in self._arriving)
            self._shares.tell(len(self._open) + arriving)

    def _stop_taking(self) -> None:
        self._takes = False
        self._shares.leave()

    def _look(self) -> None:
        """Accept the share of this process in what waits, or wait for the others."""
        self._tell()
        room = self._shares.room()
        if room == 0:
            self._pause()
            self._waits_since = time.monotonic_ns()
            self._timer = self._loop.call_later(_LOOK_S, self._look_again)
            return
        try:
            for _ in range(min(room, _AT_ONCE)):
                self._accept()
        except BlockingIOError:
            pass  # others were faster
        except OSError as error:  # too many open files, or a lack of memory
            log.error("connections cannot be accepted now: %s", error)  # noqa: TRY400 - one line
            self._pause()
            self._stop_taking()
            self._timer = self._loop.call_later(_ERROR_PAUSE_S, self._resume)
        self._tell()

    def _look_again(self) -> None:
        self._tell()
        now = time.monotonic_ns()
        if now > self._waits_since + _PATIENCE_NS:
            self._shares.ignore_silent(self._waits_since)
            self._waits_since = now
        if self._shares.room() == 0 and self._poll.poll(0):
            self._timer = self._loop.call_later(_LOOK_S, self._look_again)
        else:
            self._resume()

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except ConnectionAbortedError:
            return  # it was reset while it waited
        protocol = self._make_protocol()
        self._arriving[protocol] = self._loop.create_task(self._connect(sock, protocol))

    async def _connect(self, sock: socket.socket, protocol: BoundedProtocol) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, sock)
        except OSError:
            sock.close()  # it was reset meanwhile
        finally:
            del self._arriving[protocol]
            self._tell()
