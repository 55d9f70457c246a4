"""Listening sockets of a process, and what it accepts of what waits in them."""

import asyncio
import errno
import logging
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from app.connections.groups import ConnectionGroups
from app.connections.protocol import BoundedProtocol
from app.connections.unread import bound_unread
from app.server.connection_shares import ConnectionShares

BACKLOG = 2048
"""Connections that the kernel keeps until they are accepted."""
AT_ONCE = 16
"""Connections that begin in an iteration of the event loop."""
_LONGEST_S = 0.002  # of an iteration
_LOOK_S = 0.001
_PATIENCE_NS = 200_000_000
_ERROR_PAUSE_S = 1.0
_DEFER = getattr(socket, "TCP_DEFER_ACCEPT", None)  # of Linux
_DEFER_S = 1
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # as where a name has an address of IPv6

log = logging.getLogger(__name__)


def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Return a listening socket for each address of a host.

    Raises:
        OSError: An address is taken, or none is one of this machine.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    refused: OSError | None = None
    for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
        try:
            sockets.append(socket.create_server(address, family=family, backlog=BACKLOG))
        except OSError as error:
            refused = error
            if error.errno not in _NOT_HERE:
                break
    if refused is not None and (refused.errno not in _NOT_HERE or not sockets):
        for sock in sockets:
            sock.close()
        raise refused
    return sockets


class Listener:
    """Listening sockets of a process, which may be those of other processes, too.

    A new connection wakes all of the processes. Left to themselves, the first would take all that
    wait, and have them as long as they last. So a process with more than the mean leaves what waits
    to the others, and looks again in a millisecond; who has said nothing meanwhile is not waited for.

    What has been reset while it waited, or ended without a byte, is closed at once, at a tenth of what a
    connection costs: who opens and ends thousands of them does not keep others waiting behind them.

    It listens as soon as it is made. Belongs to one event loop.

    Args:
        sockets: Listening sockets.
        make_protocol: Function that returns the protocol of a new connection.
        open_connections: Connections of this process.
        shares: Numbers of connections of all processes; None if the sockets are of this process alone.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        make_protocol: Callable[[], BoundedProtocol],
        *,
        open_connections: ConnectionGroups,
        shares: ConnectionShares | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = list(sockets)
        self._make_protocol = make_protocol
        self._shares = shares
        self._open = open_connections
        self._open.on_removed = self._tell
        self._arriving: dict[BoundedProtocol, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._waits_since = 0
        self._takes = False
        self._poll = select.poll()
        for sock in self._sockets:
            bound_unread(sock)
            _defer(sock)
            sock.settimeout(0)
            self._poll.register(sock, select.POLLIN)
        self._resume()

    def close(self) -> None:
        """Accept no more; what waits is left to the others."""
        self._pause()
        self._stop_taking()
        for sock in self._sockets:
            sock.close()

    async def wait_closed(self) -> None:
        """Return at once: the server itself waits for the connections."""

    def _resume(self) -> None:
        self._timer = None
        self._takes = True
        self._tell()
        for sock in self._sockets:
            self._loop.add_reader(sock, self._look)

    def _pause(self) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock)
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        if self._takes and self._shares is not None:
            arriving = sum(protocol not in self._open for protocol in self._arriving)
            self._shares.tell(len(self._open) + arriving)

    def _stop_taking(self) -> None:
        self._takes = False
        if self._shares is not None:
            self._shares.leave()

    def _room(self) -> int:
        """Return how many connections may begin in this iteration."""
        return AT_ONCE if self._shares is None else min(AT_ONCE, self._shares.room())

    def _look(self) -> None:
        """Accept the share of this process in what waits, or wait for the others."""
        self._tell()
        room = self._room()
        if room == 0:
            self._pause()
            self._waits_since = time.monotonic_ns()
            self._timer = self._loop.call_later(_LOOK_S, self._look_again)
            return
        try:
            self._accept(room)
        except OSError as error:  # too many open files, or a lack of memory
            log.error("connections cannot be accepted now: %s", error)  # noqa: TRY400 - one line
            self._pause()
            self._stop_taking()
            self._timer = self._loop.call_later(_ERROR_PAUSE_S, self._resume)
        self._tell()

    def _look_again(self) -> None:
        self._tell()
        now = time.monotonic_ns()
        if now > self._waits_since + _PATIENCE_NS and self._shares is not None:
            self._shares.ignore_silent(self._waits_since)
            self._waits_since = now
        if self._room() == 0 and self._poll.poll(0):
            self._timer = self._loop.call_later(_LOOK_S, self._look_again)
        else:
            self._resume()

    def _accept(self, room: int) -> None:
        """Begin this many connections, as long as there are so many and an iteration may last."""
        until = time.monotonic() + _LONGEST_S
        ready = deque(self._sockets)
        while room and ready and time.monotonic() < until:
            sock = ready.popleft()
            try:
                accepted, _ = sock.accept()
            except BlockingIOError:
                continue  # nothing waits, or others were faster
            except ConnectionAbortedError:
                accepted = None
            ready.append(sock)
            if accepted is None:
                continue
            if _is_over(accepted):
                accepted.close()
                continue
            room -= 1
            protocol = self._make_protocol()
            self._arriving[protocol] = self._loop.create_task(self._connect(accepted, protocol))

    async def _connect(self, sock: socket.socket, protocol: BoundedProtocol) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, sock)
        except OSError:
            sock.close()  # it was reset meanwhile
        finally:
            del self._arriving[protocol]
            self._tell()


def _is_over(sock: socket.socket) -> bool:
    """Return whether nobody asks: a connection was reset, whatever came before, or ended and nothing came."""
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
        return True
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:  # it was reset meanwhile
        return True


def _defer(sock: socket.socket) -> None:
    """Have the kernel keep connections to itself on which nothing comes, for a second.

    Most of those that are opened to be reset are never seen.
    """
    if _DEFER is not None:
        with suppress(OSError):  # not every kernel that is called Linux has it
            sock.setsockopt(socket.IPPROTO_TCP, _DEFER, _DEFER_S)
