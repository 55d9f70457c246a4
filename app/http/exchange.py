"""Exchange: a request whose head is read once, and the way back to its caller."""

import re
from collections.abc import Iterable
from random import Random
from typing import Any

from fastapi import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.limits import Caller

CLIENT_LEFT = 499
Headers = Iterable[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_SECURITY_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
_ids = Random()  # noqa: S311  ids tell requests apart; nothing rests on their being secret


class Answer(Response):
    """Response of which all bytes are there, with headers that need no further look.

    Args:
        body: Bytes of the body.
        headers: Headers beside its type and length, with names in lower case.
    """

    def __init__(self, body: bytes, *, media_type: str, headers: Headers = ()) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.media_type = media_type
        self.raw_headers = [
            (b"content-type", _content_type(media_type)),
            (b"content-length", b"%d" % len(body)),
            *headers,
        ]


def _content_type(media_type: str) -> bytes:
    known = _CONTENT_TYPES.get(media_type)
    if known is None:
        charset = "; charset=utf-8" if media_type.startswith("text/") else ""
        known = _CONTENT_TYPES[media_type] = f"{media_type}{charset}".encode()
    return known


_CONTENT_TYPES: dict[str, bytes] = {}


class Exchange:
    """Request and its response.

    Attributes:
        state: State of the application.
        receive: Channel of the body, which is decompressed where it has to be.
        head: Headers by their names in lower case; of one that comes twice the first counts.
        repeats: True if a header comes twice.
        request_id: Id that the request brought, or was given.
        traceparent: W3C trace context of the request; None without a valid one.
        caller: Caller who was let in; None on the way there, and for routes that are open to all.
        is_packed: True if the body comes compressed.
        ref: Reference to the model of a request for scores.
        route: Template of the path, of a request for scores.
        status: Status of the response, or of the error that ended it.
        started: True once its headers were sent.
        complete: True once all of it was sent.
        rate_headers: What is left of the caller's rate.
    """

    __slots__ = (
        "_last",
        "_send",
        "caller",
        "complete",
        "head",
        "is_packed",
        "rate_headers",
        "receive",
        "ref",
        "repeats",
        "request_id",
        "route",
        "scope",
        "started",
        "state",
        "status",
        "traceparent",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, last: bool = False) -> None:
        """Read the head of a request.

        Args:
            last: True if the connection ends with the response.
        """
        self.scope, self.receive = scope, receive
        self.state: Any = scope["app"].state  # `app.state.AppState`, which imports this module
        headers = scope["headers"]
        self.head: dict[bytes, bytes] = dict(reversed(headers))
        self.repeats = len(self.head) != len(headers)
        self.request_id = f"{_ids.getrandbits(128):032x}"
        if (given := self.text(b"x-request-id")) and _REQUEST_ID.fullmatch(given):
            self.request_id = given
        self.traceparent: str | None = None
        if (given := self.text(b"traceparent")) and _TRACEPARENT.fullmatch(given):
            self.traceparent = given
        self.caller: Caller | None = None
        self.ref: str | None = None
        self.route = "unmatched"
        self.status = CLIENT_LEFT
        self.rate_headers: Headers = ()
        self.started = self.complete = self.is_packed = False
        self._send, self._last = send, last
        scope.setdefault("state", {})["exchange"] = self

    @property
    def project(self) -> str:
        """Project of the caller."""
        assert self.caller is not None  # noqa: S101  the routes that ask are open to nobody
        return self.caller.project

    def text(self, name: bytes) -> str | None:
        """Return a header as text; None if there is none."""
        value = self.head.get(name)
        return None if value is None else value.decode("latin-1")

    def values(self, name: bytes) -> list[bytes]:
        """Return all headers of a name."""
        if not self.repeats:
            return [self.head[name]] if name in self.head else []
        return [value for other, value in self.scope["headers"] if other == name]

    def listed(self, name: bytes) -> str | None:
        """Return a list header, its lines joined (RFC 9110, 5.3); None if there is none."""
        if not self.repeats:
            return self.text(name)
        lines = self.values(name)
        return b", ".join(lines).decode("latin-1") if lines else None

    async def answer(self, answer: Answer) -> None:
        """Send a response whole."""
        self.started, self.status = True, answer.status_code
        headers = [
            *answer.raw_headers,
            (b"x-request-id", self.request_id.encode()),
            *_SECURITY_HEADERS,
            *self.rate_headers,
        ]
        if self._last:
            headers.append((b"connection", b"close"))
        start = {"type": "http.response.start", "status": self.status, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": answer.body})
        self.complete = True

    async def send(self, message: Message) -> None:
        """Pass on an ASGI message of any other response, with the headers that all have."""
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            headers = list(message.get("headers", ()))
            given = {name for name, _ in headers}
            headers.append((b"x-request-id", self.request_id.encode()))
            headers += [header for header in _SECURITY_HEADERS if header[0] not in given]
            headers += self.rate_headers
            if self._last:
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True


def exchange_of(request: Request) -> Exchange:
    """Return the exchange that a request of FastAPI belongs to."""
    exchange: Exchange = request.scope["state"]["exchange"]
    return exchange
