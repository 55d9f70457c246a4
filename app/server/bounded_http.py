"""Bounds on heads and silent bodies, for services without a proxy."""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

MAX_HEAD_BYTES = 64 * 1024


class _Parser(httptools.HttpRequestParser):
    """Parser to which an upgrade is a header as any other: httptools skips the body behind it."""

    def __init__(self, protocol: "BoundedProtocol") -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._protocol = protocol

    def feed_data(self, data: Any) -> None:  # noqa: ANN401 - any buffer
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            self._protocol.parse_without_upgrade(data[stopped.args[0] :])


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1 with bounds on heads and on silent bodies, and without upgrades."""

    head_timeout_s, body_timeout_s, linger_s = 10.0, 30.0, 1.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of uvicorn
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)
        self._head_bytes = 0
        self._in_body = self._in_head = self._lingers = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Wait for a first head."""
        super().connection_made(transport)
        self._await_head()
        self._look()

    def data_received(self, data: bytes) -> None:
        """Parse the data; more of a body extends its time, more of a head does not."""
        if self._in_body:
            self._deadline = self.loop.time() + self.body_timeout_s
        elif not self._in_head:
            self._await_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._end(431)

    def on_headers_complete(self) -> None:
        """Wait for a body, if there is any."""
        if not self.parser.should_upgrade():
            self._in_head, self._in_body = False, True
            self._deadline = self.loop.time() + self.body_timeout_s
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait for nothing until the response is complete."""
        if not self.parser.should_upgrade():
            self._in_body = False
            super().on_message_complete()
            if self.cycle.response_complete:  # before its body had come
                self._await_head()

    def shutdown(self) -> None:
        """Close an idle connection; one that is new a little later, as a request may be on its way."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None and not self._lingers:
            self._lingers = True
            self.loop.call_later(self.linger_s, self.shutdown)
        else:
            super().shutdown()

    def parse_without_upgrade(self, rest: bytes) -> None:
        """Parse the head that came once more, and what follows it."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise httptools.HttpParserError("there is nothing to connect to")
        hop = b"connection", b"upgrade"
        lines = [b"%b: %b" % header for header in self.headers if header[0] not in hop]
        self.parser = _Parser(self)
        head = b"%b %b HTTP/%b" % (method, self.url, version)
        self.parser.feed_data(b"\r\n".join([head, *lines, b"", rest]))

    def _await_head(self) -> None:
        self._in_head, self._head_bytes = True, 0
        self._deadline = self.loop.time() + self.head_timeout_s

    def _look(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        is_served = cycle is not None and not cycle.response_complete
        waits = self.flow.read_paused if self._in_body else (is_served or not self._in_head)
        if self.loop.time() >= self._deadline and not waits:
            self._end(408)
        elif not self.transport.is_closing():
            self.loop.call_later(self.head_timeout_s / 4, self._look)

    def _end(self, status: int) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            head = STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(head)
        self.transport.close()
