"""Accepted connections that are not made ready for requests yet, in the order in which they will be."""

import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Hashable

from app.connections.groups import group_of_address
from app.connections.receiving.request_heads import LIKELY_BYTES, likely_caller

_LOOKED_AT = 8  # connections that wait, at each that comes
_FULL_S = 0.2  # no burst that a service can serve lasts so long

Place = tuple[str, Hashable]
"""Address and likely caller of connections that wait; those on which nothing has come have None in its place."""

_Parts = OrderedDict[Hashable, OrderedDict[socket.socket, None]]


class Arrivals:
    """Accepted connections that wait to be made ready: addresses take turns, and at one its likely callers.

    The kernel has one queue, in which who opens a connection is behind all that others have opened. To
    accept one costs a tenth of making it ready, so that all can be taken out of there and put in order.
    What has been reset while it waited, or ended without a byte, is closed.

    Beyond the most that may wait the kernel keeps them, for a moment. If that lasts, the likely caller with most
    that wait loses the one that came first for each that comes, until half as many wait.

    Args:
        known_key: Function that returns the id of a key that was valid lately; see `likely_caller`.
        most: Largest number of connections that wait.
    """

    def __init__(self, known_key: Callable[[bytes], str | None], *, most: int) -> None:
        self._known_key = known_key
        self._most = most
        self._full_since: float | None = None
        self._addresses: OrderedDict[str, _Parts] = OrderedDict()
        # All that wait with their places, those first that have not been looked at for longest.
        self._places: OrderedDict[socket.socket, Place] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of connections that wait."""
        return len(self._places)

    def room(self) -> int:
        """Return how many connections may be put here now."""
        if len(self) <= self._most // 2:
            self._full_since = None
        elif len(self) >= self._most and self._full_since is None:
            self._full_since = time.monotonic()
        if self._full_since is not None and time.monotonic() > self._full_since + _FULL_S:
            return self._most
        return self._most - len(self)

    def put(self, sock: socket.socket, client: tuple[str, int]) -> None:
        """Put a connection behind those of its caller, or close it if it is over.

        Some others are looked at, so that thousands that were reset do not take the room of those to come.

        Args:
            sock: Connection that was accepted.
            client: Address of the caller, and port.
        """
        first = _first_bytes(sock)
        if first is None:
            sock.close()
        else:
            address = group_of_address(client)
            part = likely_caller(first, self._known_key) if first else None
            parts = self._addresses.setdefault(address, OrderedDict())
            parts.setdefault(part, OrderedDict())[sock] = None
            self._places[sock] = address, part
            if len(self) > self._most:
                self._close_first_of_most()
        for _ in range(min(_LOOKED_AT, len(self._places))):
            other = next(iter(self._places))
            self._places.move_to_end(other)
            if _was_reset(other):
                self._remove(other)
                other.close()

    def next_place(self, full: Container[Place]) -> Place | None:
        """Return the place whose turn it is, of those that are not full; None if none of them waits."""
        return next(
            (
                (address, part)
                for address, parts in self._addresses.items()
                for part in parts
                if (address, part) not in full
            ),
            None,
        )

    def take(self, place: Place) -> socket.socket | None:
        """Take the first connection out that waits at a place, where one must wait.

        Returns:
            The connection; None if it is over, and was closed.
        """
        address, part = place
        parts = self._addresses[address]
        self._addresses.move_to_end(address)
        parts.move_to_end(part)
        sock = next(iter(parts[part]))
        self._remove(sock)
        is_over = _first_bytes(sock) is None if part is None else _was_reset(sock)
        if is_over:
            sock.close()
            return None
        return sock

    def _close_first_of_most(self) -> None:
        parts = max(self._addresses.values(), key=lambda parts: sum(map(len, parts.values())))
        sockets = max(parts.values(), key=len)
        sock = next(iter(sockets))
        self._remove(sock)
        sock.close()

    def _remove(self, sock: socket.socket) -> None:
        address, part = self._places.pop(sock)
        parts = self._addresses[address]
        del parts[part][sock]
        if not parts[part]:
            del parts[part]
        if not parts:
            del self._addresses[address]


def _was_reset(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def _first_bytes(sock: socket.socket) -> bytes | None:
    """Return what has come on a connection, which may be nothing.

    None if nobody asks: it was reset, whatever came before, or it ended and nothing came.
    """
    if _was_reset(sock):
        return None
    try:
        return sock.recv(LIKELY_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT) or None
    except BlockingIOError:
        return b""
    except OSError:  # it was reset meanwhile
        return None
