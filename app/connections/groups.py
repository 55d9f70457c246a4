"""The connections of a process, by whom they are of: when it is full, whoever has most makes room."""

import heapq
from ipaddress import IPv6Address, IPv6Network
from itertools import islice
from typing import Protocol

CONNECTION = "connection_of"
"""In the state of a request, where the server has put it: a function to tell the caller's name to."""

_LOOKED_AT = 64
_GROUPS_LOOKED_AT = 8
_SUBNET = 64  # of IPv6 one caller has that many addresses


class Connection(Protocol):
    """One connection, as a protocol of asyncio sees it."""

    @property
    def expendable(self) -> bool:
        """True while nobody who was let in waits for an answer on it."""

    def drop(self) -> None:
        """Close it now."""


class ConnectionGroups:
    """Keeps the number of connections, and who has how many.

    A connection belongs to its peer's address until a request on it has shown who asks, then to
    that key. No one who opens connections, with a key or without, keeps others out: the group that
    has most loses its oldest one on which nothing is being served.

    Args:
        most: connections at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._groups: dict[str, dict[Connection, None]] = {}  # oldest first
        self._group_of: dict[Connection, str] = {}

    def __len__(self) -> int:
        """Connections that are open."""
        return len(self._group_of)

    def put(self, connection: Connection, group: str) -> None:
        """Note whose a connection is now, and that it is in use."""
        self.remove(connection)
        self._group_of[connection] = group
        self._groups.setdefault(group, {})[connection] = None

    def touch(self, connection: Connection) -> None:
        """Note that a connection was in use until now."""
        if (group := self._group_of.get(connection)) is not None:
            self.put(connection, group)

    def remove(self, connection: Connection) -> None:
        """Forget a connection, if it is known."""
        group = self._group_of.pop(connection, None)
        if group is not None:
            members = self._groups[group]
            del members[connection]
            if not members:
                del self._groups[group]

    def make_room(self) -> bool:
        """Close a connection that nobody needs now, if there is one."""
        for group in heapq.nlargest(_GROUPS_LOOKED_AT, self._groups, key=self._size_of):
            for connection in list(islice(self._groups[group], _LOOKED_AT)):
                if connection.expendable:
                    self.remove(connection)
                    connection.drop()
                    return True
                self.touch(connection)  # it is served, and need not be looked at again soon
        return False

    def _size_of(self, group: str) -> int:
        return len(self._groups[group])


def group_of_address(client: tuple[str, int] | None) -> str:
    """Return the group of callers who have shown no key yet."""
    host = "" if client is None else client[0].partition("%")[0]
    if ":" in host:
        host = str(IPv6Network((IPv6Address(host), _SUBNET), strict=False))
    return f"address {host}"
