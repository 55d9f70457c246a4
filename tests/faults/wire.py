"""Requests that no client library would send."""

import json
import selectors
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

WAIT_S = 120.0


@dataclass(frozen=True)
class Answer:
    """What came back until the server closed the connection.

    Args:
        status: 0 if nothing came.
        head: the status line and the headers, in lower case.
        body: the rest.
        seconds: from the connection's beginning to its end.
    """

    status: int
    head: str
    body: bytes
    seconds: float

    @property
    def slug(self) -> str:
        """The problem's type."""
        document: dict[str, Any] = json.loads(self.body)
        return str(document["type"]).removeprefix("/problems/")


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def talk(port: int, pieces: Iterable[bytes]) -> Answer:
    """Send pieces until there is an answer, and read until the server closes the connection."""
    began = time.monotonic()
    with connect(port) as connection, selectors.DefaultSelector() as answers:
        answers.register(connection, selectors.EVENT_READ)
        with suppress(ConnectionError):
            for piece in pieces:
                if answers.select(0):
                    break
                connection.sendall(piece)
        return receive(connection, began)


def receive(connection: socket.socket, began: float) -> Answer:
    """Read until the server closes the connection."""
    received = b""
    with suppress(ConnectionError):
        while data := connection.recv(1 << 16):
            received += data
    top, _, body = received.partition(b"\r\n\r\n")
    status = int(top.split()[1]) if top.startswith(b"HTTP/") else 0
    return Answer(status, top.decode("latin-1").lower(), body, time.monotonic() - began)


def drip(piece: bytes, *, every_s: float, for_s: float) -> Iterable[bytes]:
    """The same piece again and again, slowly."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        yield piece
        time.sleep(every_s)


def seconds_held(port: int, request: bytes, piece: bytes, at_most_s: float) -> float:
    """How long the server lets a connection live on which a request and then drops come."""
    began = time.monotonic()
    with connect(port) as connection, suppress(ConnectionError):
        connection.sendall(request)
        for drop in drip(piece, every_s=0.2, for_s=at_most_s):
            connection.sendall(drop)
    return time.monotonic() - began
