"""A way to an object store on which a chosen request goes wrong; the store behind it is real."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class Wrong(StrEnum):
    """Way in which a request goes wrong.

    Attributes:
        REFUSED: an error of the server, and no effect.
        LOST: it has its effect, and no response.
        SHORT: its response ends in the middle.
        HALVED: half of what was asked for is sent as if that were all.
        ALTERED: what was asked for is sent with a bit changed.
        OLD: a list as it was when the same one was asked for before, or empty.
    """

    REFUSED = "refused"
    LOST = "lost"
    SHORT = "short"
    HALVED = "halved"
    ALTERED = "altered"
    OLD = "old"


@dataclass(frozen=True)
class Fault:
    """A request that goes wrong.

    Attributes:
        at: number of the request, from 1.
        wrong: what becomes of it.
        lasting: so do all of the same method and path after it, until the way is mended.
    """

    at: int
    wrong: Wrong
    lasting: bool = False


@dataclass
class Way:
    """The way to a store.

    Args:
        upstream: URL of the server.
        fault: what goes wrong, once.
    """

    upstream: str
    fault: Fault | None = None
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._faulty: str | None = None
        self._lists: dict[str, bytes] = {}
        self.url = ""

    @contextmanager
    def open(self) -> Iterator["Way"]:
        """Take connections, on `url`."""
        way = self

        class Handler(_Handler):
            pass

        Handler.way = way
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            self.url = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def mend(self) -> None:
        """Let nothing more go wrong."""
        with self._lock:
            self.fault = self._faulty = None

    def wrong_with(self, request: str) -> Wrong | None:
        """Count a request, by method and path; what becomes of it."""
        with self._lock:
            self.requests.append(request)
            fault = self.fault
            if fault is None:
                return None
            if len(self.requests) == fault.at:
                self._faulty = request if fault.lasting else None
                return fault.wrong
            return fault.wrong if request == self._faulty else None

    def older_list(self, target: str, content: bytes) -> bytes:
        """A list as it was before; this one will be it the next time."""
        with self._lock:
            known = self._lists.get(target)
            self._lists[target] = content
        return known if known is not None else _without_entries(content)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    way: Way

    def do(self) -> None:
        """Pass a request on, or not, and its response."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        wrong = self.way.wrong_with(f"{self.command} {urlsplit(self.path).path}")
        if wrong is Wrong.REFUSED:
            self.answer(500, {}, b"")
            return
        status, headers, content = self.passed_on(body)
        is_list = self.command == "GET" and "list-type" in self.path
        if is_list and status == http.HTTPStatus.OK:
            older = self.way.older_list(self.path, content)
            content = older if wrong is Wrong.OLD else content
        if wrong is Wrong.LOST:
            self.close_connection = True
        elif wrong is Wrong.SHORT:
            self.answer(status, headers, content, sent=len(content) // 2)
            self.close_connection = True
        elif wrong is Wrong.HALVED and self.command == "GET" and not is_list:
            self.answer(status, headers, content[: len(content) // 2])
        elif wrong is Wrong.ALTERED and self.command == "GET" and not is_list:
            self.answer(status, headers, bytes([content[0] ^ 1]) + content[1:])
        else:
            self.answer(status, headers, content)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # of any method
            return self.do
        raise AttributeError(name)

    def passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Ask the store the same, with the headers that were signed."""
        host = urlsplit(self.way.upstream).netloc
        upstream = http.client.HTTPConnection(host, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            response = upstream.getresponse()
            headers = dict(response.getheaders())
            return response.status, headers, response.read()
        finally:
            upstream.close()

    def answer(
        self, status: int, headers: dict[str, str], content: bytes, *, sent: int | None = None
    ) -> None:
        """Send a response, or its first bytes."""
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        of_head = headers.get("Content-Length", "0")
        self.send_header("Content-Length", of_head if self.command == "HEAD" else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:sent])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _without_entries(content: bytes) -> bytes:
    """A list of objects without the objects."""
    while (start := content.find(b"<Contents>")) >= 0:
        stop = content.index(b"</Contents>", start) + len(b"</Contents>")
        content = content[:start] + content[stop:]
    return content
