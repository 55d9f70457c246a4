"""Closed-loop load on a local server: each connection sends its next request after a response."""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_WARM_UP_S = 0.3


def post(
    path: str,
    body: bytes,
    *,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return the bytes of an HTTP request."""
    further = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n"
        f"Accept: {media_type}\r\nContent-Length: {len(body)}\r\n{further}\r\n"
    )
    return head.encode() + body


@dataclass
class Load:
    """Result of a load.

    Args:
        seconds: Time from the first request to the last response.
        warm_up_s: Time of load before that.
        latencies_s: Latency of each request.
    """

    seconds: float
    warm_up_s: float
    latencies_s: list[float]

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies_s) / self.seconds


@dataclass(frozen=True)
class Answer:
    """HTTP response."""

    status: int
    body: bytes


async def ask(port: int, request: bytes) -> Answer:
    """Send one request on a connection of its own."""
    client = await _connect(port, request)
    try:
        client.until = 0.0
        client.send()
        await client.finished
        return Answer(client.status, client.body)
    finally:
        client.transport.close()


async def loads(port: int, requests: list[list[bytes]], *, seconds: float) -> list[Load]:
    """Load the server and measure.

    Args:
        requests: Requests of each connection; one list of them for each `Load` of the result.
        seconds: Time after which no request begins.

    Raises:
        RuntimeError: The status of a response was not 200.
    """
    groups = [[await _connect(port, request) for request in group] for group in requests]
    everyone = [client for group in groups for client in group]
    try:
        warmed = time.perf_counter()
        await _round(everyone, _WARM_UP_S)
        began = time.perf_counter()
        await _round(everyone, seconds)
        return [
            Load(
                max(client.last for client in group) - began,
                began - warmed,
                [latency for client in group for latency in client.latencies_s],
            )
            for group in groups
        ]
    finally:
        for client in everyone:
            client.transport.close()


async def _round(clients: "list[_Client]", seconds: float) -> None:
    # A server may have closed connections that waited too long for slower ones of the last round.
    for client in clients:
        if client.transport.is_closing():
            await client.connect()
    until = time.perf_counter() + seconds
    for client in clients:
        client.until = until
        client.latencies_s = []
        client.finished = asyncio.get_running_loop().create_future()
        client.send()
    await asyncio.gather(*(client.finished for client in clients))
    for client in clients:
        if client.status != 200:
            raise RuntimeError(f"answered {client.status}: {client.body[:200]!r}")


async def _connect(port: int, request: bytes) -> "_Client":
    client = _Client(port, request, asyncio.get_running_loop().create_future())
    await client.connect()
    return client


@dataclass(eq=False)
class _Client(asyncio.Protocol):
    port: int
    request: bytes
    finished: "asyncio.Future[None]"
    until: float = 0.0
    status: int = 0
    body: bytes = b""
    last: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    _received: bytearray = field(default_factory=bytearray)
    _wanted: int | None = None
    _began: float = 0.0

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self) -> None:
        self._began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._wanted is None:
            self._read_head()
        if self._wanted is not None and len(self._received) >= self._wanted:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.finished.done():
            self.finished.set_exception(exc or ConnectionError("the server closed the connection"))

    def _read_head(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._received, 0, end + 2)
        if length is None:
            raise RuntimeError("the answer has no Content-Length")
        self._head_end = end + 4
        self._wanted = self._head_end + int(length[1])

    def _end(self) -> None:
        self.last = time.perf_counter()
        self.latencies_s.append(self.last - self._began)
        self.status = int(self._received[9:12])
        self.body = bytes(self._received[self._head_end :])
        self._received.clear()
        self._wanted = None
        if self.last < self.until and self.status == 200:
            self.send()
        else:
            self.finished.set_result(None)
