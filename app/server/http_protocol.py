"""HTTP/1.1 of uvicorn for clients that ask for an upgrade, and for requests that a stop overtakes."""

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class _Parser(httptools.HttpRequestParser):
    """Parser to which an upgrade is a header as any other: httptools skips the body behind it."""

    def __init__(self, protocol: "HttpProtocol") -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._protocol = protocol

    def feed_data(self, data: Any) -> None:  # noqa: ANN401 - any buffer
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            self._protocol.parse_without_upgrade(data[stopped.args[0] :])


class HttpProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1 without upgrades, such as that to HTTP/2 which Java's client asks for."""

    linger_s = 1.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of uvicorn
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)
        self._lingers = False

    def on_headers_complete(self) -> None:
        """Begin the request, unless it is parsed once more without its upgrade."""
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request, unless it is parsed once more without its upgrade."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

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
