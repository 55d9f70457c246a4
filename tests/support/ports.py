"""Ports of loopback for servers of the tests."""

import secrets
import socket
from contextlib import suppress

_given: set[int] = set()


def free_port() -> int:
    """A port that is free, and stays so until a server takes it.

    It is none of those that the system gives to connections of other tests.
    """
    while True:
        port = secrets.randbelow(20_000) + 10_000
        if port in _given:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port
