"""Bounds on what a connection may do: their number, header bytes, waiting for headers and readers."""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from app.problem_types import PROBLEM_TYPES
from app.problems import PROBLEM_MEDIA_TYPE

MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 100
MIN_BYTES_PER_S = 1024
"""Bodies that come, and answers that are taken, more slowly than this are given up."""
# Pieces of bodies that come fast are passed on together: each time costs as much as copying half a
# megabyte.
_FAST_BYTES = 32 * 1024
_TOGETHER_BYTES = 256 * 1024
_TOGETHER_S = 0.001


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which lacks these bounds; what breaks them is answered and closed."""

    header_timeout_s = 10.0
    write_timeout_s = 30.0
    max_connections = 1_000

    _header_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _body_timer: asyncio.TimerHandle | None = None
    _unsent_bytes = 0
    _received_bytes = 0
    _header_bytes = 0
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Refuse connections beyond the limit; wait for headers of the others so long."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse("overloaded")
        else:
            self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_timer()
        self._stop_watching()
        if self._body_timer is not None:
            self._body_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the connection is being closed.

        Uvicorn ends a silent connection between two requests. One that is not silent, but sends
        line ends or a body that nobody reads, is given as long as headers are.
        """
        if self._refused:
            return
        self._received_bytes += len(data)
        cycle: RequestResponseCycle | None = self.cycle
        if self._header_timer is None and (cycle is None or cycle.response_complete):
            self._await_headers()
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins: its headers must come soon."""
        super().on_message_begin()
        self._header_bytes = 0
        if self._header_timer is None:
            self._await_headers()

    def on_url(self, url: bytes) -> None:
        """Count the path as header bytes."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """The request can be served, if its headers are not too many."""
        self._stop_timer()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass the body on, unless there is nobody to take it; of a fast one more at a time."""
        if self._refused:
            return
        cycle = self.cycle
        if len(body) < _FAST_BYTES or len(cycle.body) + len(body) >= _TOGETHER_BYTES:
            super().on_body(body)
        elif not cycle.response_complete:
            cycle.body += body
            if self._body_timer is None:
                self._body_timer = self.loop.call_later(_TOGETHER_S, self._pass_on, cycle)

    def on_message_complete(self) -> None:
        """Tell whoever serves the request."""
        if not self._refused:
            super().on_message_complete()

    def pause_writing(self) -> None:
        """The caller takes the answer more slowly than it is made: see that it is taken at all."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """The caller has taken what there was."""
        self._stop_watching()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """The last bytes of an answer must be taken too before the connection can close."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_writing()

    def timeout_keep_alive_handler(self) -> None:
        """No further request came."""
        super().timeout_keep_alive_handler()
        self._watch_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        if not self._refused and not self.transport.is_closing():
            self._refuse("bad-request", detail=msg)

    def _pass_on(self, cycle: RequestResponseCycle) -> None:
        self._body_timer = None
        if cycle.body:
            cycle.message_event.set()

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADERS:
            self._refuse("limit-headers")

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.header_timeout_s, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _on_timeout(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self._refuse("header-timeout")

    def _refuse(self, slug: str, *, detail: str = "") -> None:
        if self._refused:
            return
        self._refused = True
        self.transport.write(_answer(slug, detail))
        self.transport.close()
        self._watch_writing()

    def _watch_writing(self) -> None:
        if self._write_timer is None:
            self._unsent_bytes = self.transport.get_write_buffer_size()
            self._received_bytes = 0
            self._write_timer = self.loop.call_later(self.write_timeout_s, self._on_slow_reader)

    def _stop_watching(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _on_slow_reader(self) -> None:
        self._write_timer = None
        taken = self._unsent_bytes - self.transport.get_write_buffer_size()
        # An answer may begin before its body has come: the caller is then busy with sending.
        if taken + self._received_bytes < MIN_BYTES_PER_S * self.write_timeout_s:
            self.transport.abort()
        else:
            self._watch_writing()


def _answer(slug: str, detail: str) -> bytes:
    kind = PROBLEM_TYPES[slug]
    content: dict[str, Any] = {
        "type": kind.uri,
        "title": kind.title,
        "status": kind.status,
        "detail": detail or kind.explanation,
        "instance": "none",
    }
    body = json.dumps(content).encode()
    retry = b"" if kind.retry_after_s is None else b"retry-after: %d\r\n" % kind.retry_after_s
    return b"".join(
        [
            STATUS_LINE[kind.status],
            b"content-type: %s\r\n" % PROBLEM_MEDIA_TYPE.encode(),
            b"content-length: %d\r\n" % len(body),
            retry,
            b"connection: close\r\n\r\n",
            body,
        ]
    )
