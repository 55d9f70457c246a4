"""Listening sockets of a process, and what it accepts of what waits in them."""

import asyncio
import errno
import logging
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from app.connections.arrivals import Arrivals, Place
from app.connections.groups import ConnectionGroups
from app.connections.protocol import BoundedProtocol
from app.connections.unread import bound_unread
from app.server.connection_shares import ConnectionShares
from app.server.limits import ARRIVALS_PART

BACKLOG = 2048
"""Connections that the kernel keeps until they are accepted."""
AT_ONCE = 16
"""Connections of a likely caller that have begun, and whose first bytes wait for their turn at the event loop."""
_LONGEST_S = 0.002  # of an iteration, for what is accepted in it, and for what begins
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

    What is accepted waits to begin in the order of `Arrivals`: who opens and ends thousands of connections
    does not keep others waiting behind them.

    It listens as soon as it is made. Belongs to one event loop.

    Args:
        sockets: Listening sockets.
        make_protocol: Function that returns the protocol of a new connection.
        open_connections: Connections of this process.
        known_key: Function that returns the id of a key that was valid lately; see `likely_caller`.
        shares: Numbers of connections of all processes; None if the sockets are of this process alone.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        make_protocol: Callable[[], BoundedProtocol],
        *,
        open_connections: ConnectionGroups,
        known_key: Callable[[bytes], str | None],
        shares: ConnectionShares | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = list(sockets)
        self._make_protocol = make_protocol
        self._shares = shares
        self._open = open_connections
        self._open.on_removed = self._tell
        most = max(AT_ONCE, int(open_connections.most * ARRIVALS_PART))
        self._arrivals = Arrivals(known_key, most=most)
        self._begins = False  # what has arrived, in the next iteration
        self._unheard: dict[BoundedProtocol, Place] = {}
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
        """Accept no more; what waits is left to the others, but for what was accepted."""
        self._pause()
        self._stop_taking()
        for sock in self._sockets:
            sock.close()
        while (place := self._arrivals.next_place(())) is not None:
            self._begin(place)

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
            self._shares.tell(len(self._open) + arriving + len(self._arrivals))

    def _stop_taking(self) -> None:
        self._takes = False
        if self._shares is not None:
            self._shares.leave()

    def _room(self) -> int:
        """Return how many connections may be accepted now."""
        room = self._arrivals.room()
        return room if self._shares is None else min(room, self._shares.room())

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
        if not self._begins:
            self._begin_some()  # also what was accepted before an error
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
        """Accept this many connections, as long as there are so many and an iteration may last."""
        until = time.monotonic() + _LONGEST_S
        ready = deque(self._sockets)
        while room and ready and time.monotonic() < until:
            sock = ready.popleft()
            try:
                accepted, client = sock.accept()
            except BlockingIOError:
                continue  # nothing waits, or others were faster
            except ConnectionAbortedError:
                ready.append(sock)
                continue
            ready.append(sock)
            room -= 1
            self._arrivals.put(accepted, client)

    def _begin_some(self) -> None:
        """Begin what has room, and go on in the next iteration.

        Where what a connection sent waits for its turn, it takes more memory than here, and nobody sees
        whether it was reset. Of each likely caller only a few begin so, behind whom no other waits.
        """
        self._unheard = {
            protocol: place
            for protocol, place in self._unheard.items()
            if protocol in self._arriving or protocol.is_unheard
        }
        begun = Counter(self._unheard.values())
        full = {place for place, number in begun.items() if number >= AT_ONCE}
        until = time.monotonic() + _LONGEST_S
        try:
            while time.monotonic() < until:
                place = self._arrivals.next_place(full)
                if place is None:
                    break
                begun[place] += self._begin(place)
                if begun[place] >= AT_ONCE:
                    full.add(place)
        finally:
            self._begins = len(self._arrivals) > 0
            if self._begins:
                self._loop.call_soon(self._begin_some)

    def _begin(self, place: Place) -> bool:
        """Begin a connection that waits at a place; return False if it is over."""
        sock = self._arrivals.take(place)
        if sock is None:
            return False
        protocol = self._make_protocol()
        if place[1] is not None:
            self._unheard[protocol] = place
        self._arriving[protocol] = self._loop.create_task(self._connect(sock, protocol))
        return True

    async def _connect(self, sock: socket.socket, protocol: BoundedProtocol) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, sock)
        except OSError:
            sock.close()  # it was reset meanwhile
        finally:
            del self._arriving[protocol]
            self._tell()


def _defer(sock: socket.socket) -> None:
    """Have the kernel keep connections to itself on which nothing comes, for a second.

    Most of those that are opened to be reset are never seen.
    """
    if _DEFER is not None:
        with suppress(OSError):  # not every kernel that is called Linux has it
            sock.setsockopt(socket.IPPROTO_TCP, _DEFER, _DEFER_S)
