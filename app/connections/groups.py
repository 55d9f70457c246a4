"""Open connections by their callers: when the process is full, the caller with most makes room."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from typing import Protocol

from starlette.types import Scope

CONNECTION = "connection"
"""Key of a request's state under which a server puts the `Connection`."""
BODY_CAME = "body_came"
"""Key of a request's state that a server adds once the whole body has come."""

MAX_PIPELINED = 16
"""Requests of one connection that wait while another one is served; the last of them ends it."""
_ALL_PIPELINED = 2048  # of all connections together: each takes 3 KiB
_RESERVED = 16  # connections beyond the limit that are accepted for health checks
_GROUPS_LOOKED_AT = 8
_SUBNET = 64  # bits: one caller has all addresses of an IPv6 network of that size


class Connection(Protocol):
    """Connection on which requests are served one after the other."""

    @property
    def lost(self) -> bool:
        """True if it was closed before the response that was being sent was complete."""

    def assign(self, caller: str) -> None:
        """Note the caller, by key or project, who sends requests on it."""

    def ignore_body(self) -> None:
        """Keep nothing of the body of the request being served."""

    def await_whole_body(self, size: int, has_room: Callable[[int], bool]) -> None:
        """Pass the body of the request being served on as a whole, if it comes fast and has room."""

    def drop(self) -> None:
        """Close it now."""

    def break_off(self) -> None:
        """Close it now, within the response being sent, of which nothing more is to arrive."""


@dataclass
class _Group:
    """Connections of one caller.

    Attributes:
        members: Connections of the caller, busy or not.
        expendable: Those on which no caller who was admitted waits for a response, the oldest first.
    """

    members: set[Connection] = field(default_factory=set)
    expendable: dict[Connection, None] = field(default_factory=dict)


class ConnectionGroups:
    """Open connections, in groups by caller.

    A connection belongs to the group of its peer's address until a request on it has shown a key,
    then to that of the key. No caller, with a key or without, keeps others out: the group that has
    most connections loses the oldest one on which no request is being served.

    Args:
        most: Largest number of connections.

    Attributes:
        on_removed: Function to call after a connection was removed.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.on_removed: Callable[[], None] = _nothing
        self._groups: dict[str, _Group] = {}
        self._group_of: dict[Connection, str] = {}

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self._group_of)

    def __contains__(self, connection: Connection) -> bool:
        """Return whether a connection is open."""
        return connection in self._group_of

    @property
    def most_reserved(self) -> int:
        """Largest number of connections with those that are accepted for health checks."""
        return self.most + _RESERVED

    @property
    def most_pipelined(self) -> int:
        """Most requests of one connection that wait while another one is served."""
        return max(1, min(MAX_PIPELINED, _ALL_PIPELINED // (1 + len(self))))

    def put(self, connection: Connection, group: str) -> None:
        """Put a connection into a group, as the one that was used last."""
        self._put(connection, group).expendable[connection] = None

    def admit(self, connection: Connection, group: str) -> None:
        """Put a connection into the group of a caller who was admitted, and waits for a response from now on."""
        self._put(connection, group)

    def touch(self, connection: Connection) -> None:
        """Mark a connection as the one of its group that was used last: a response is complete."""
        if (group := self._group_of.get(connection)) is not None:
            self.put(connection, group)

    def remove(self, connection: Connection) -> None:
        """Forget a connection, if it is known."""
        if connection in self._group_of:
            self._take_out(connection)
            self.on_removed()

    def make_room(self) -> bool:
        """Close one expendable connection; return False if none was found."""
        for group in heapq.nlargest(_GROUPS_LOOKED_AT, self._groups, key=self._size_of):
            connection = next(iter(self._groups[group].expendable), None)
            if connection is not None:
                self.remove(connection)
                connection.drop()
                return True
        return False

    def _put(self, connection: Connection, group: str) -> _Group:
        self._take_out(connection)
        self._group_of[connection] = group
        found = self._groups.setdefault(group, _Group())
        found.members.add(connection)
        return found

    def _take_out(self, connection: Connection) -> None:
        group = self._group_of.pop(connection, None)
        if group is not None:
            found = self._groups[group]
            found.members.discard(connection)
            found.expendable.pop(connection, None)
            if not found.members:
                del self._groups[group]

    def _size_of(self, group: str) -> int:
        return len(self._groups[group].members)


def _nothing() -> None:
    """Do nothing."""


def group_of_address(client: tuple[str, int] | None) -> str:
    """Return the group of the callers at an address who have shown no key yet."""
    host = "" if client is None else client[0].partition("%")[0]
    if ":" in host:
        host = str(IPv6Network((IPv6Address(host), _SUBNET), strict=False))
    return f"address {host}"


def is_lost(scope: Scope) -> bool:
    """Return True if a request's connection was lost before its response was complete."""
    connection: Connection | None = scope["state"].get(CONNECTION)
    return connection is not None and connection.lost
