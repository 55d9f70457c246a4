"""HTTP over plain sockets: requests that no client library sends, and answers told apart."""

import json
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_WAIT_S = 120.0


@dataclass(frozen=True)
class Answer:
    """One answer of a connection.

    Args:
        status: its code; interim answers (1xx) count as answers.
        headers: lower-case names.
        body: without its chunks' framing.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def slug(self) -> str:
        """The problem's type."""
        assert self.headers["content-type"] == "application/problem+json", self
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return str(document["type"]).removeprefix("/problems/")


class CutOffError(Exception):
    """The bytes end within an answer."""


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A connection to a server."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=_WAIT_S) as connection:
        yield connection


def exchange(
    url: str, *pieces: bytes, pause_s: float = 0.0, methods: Iterable[str] = ()
) -> list[Answer]:
    """Send pieces on one connection, and read what comes until the server closes it.

    Args:
        url: the server's.
        pieces: sent one by one.
        pause_s: between them.
        methods: of the requests, where one is HEAD.
    """
    with connected(url) as connection:
        for piece in pieces:
            connection.sendall(piece)
            if pause_s:
                time.sleep(pause_s)
        return answers_in(received(connection), methods)


def received(connection: socket.socket) -> bytes:
    """All bytes up to the end of the connection, which a time-out would be no end of."""
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def answers_in(raw: bytes, methods: Iterable[str] = ()) -> list[Answer]:
    """Take a stream of answers apart.

    Raises:
        CutOffError: the last one is not complete.
    """
    answers = []
    asked = iter(methods)
    while raw:
        answer, raw = _first(raw, asked)
        answers.append(answer)
    return answers


def _first(raw: bytes, asked: Iterator[str]) -> tuple[Answer, bytes]:
    head, end, rest = raw.partition(b"\r\n\r\n")
    if not end:
        raise CutOffError(raw)
    lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = lines[0].split(" ")
    assert version == "HTTP/1.1", lines[0]
    headers = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:])
    }
    code = int(status)
    if code < 200:
        return Answer(code, headers, b""), rest
    if next(asked, "GET") == "HEAD" or code in (204, 304):
        return Answer(code, headers, b""), rest
    if headers.get("transfer-encoding") == "chunked":
        body, rest = _chunked(rest)
    else:
        size = int(headers["content-length"])
        body, rest = rest[:size], rest[size:]
        if len(body) < size:
            raise CutOffError(raw)
    return Answer(code, headers, body), rest


def _chunked(raw: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, end, raw = raw.partition(b"\r\n")
        if not end:
            raise CutOffError(raw)
        size = int(line, 16)
        if len(raw) < size + 2:
            raise CutOffError(raw)
        body, raw = body + raw[:size], raw[size + 2 :]
        if size == 0:
            return body, raw
