"""Bounds on every request body: bytes, waiting time, and what it may decompress to."""

import asyncio
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.connections import MIN_BYTES_PER_S
from app.content_codings import CODINGS, Decompressor
from app.problems import Problem

_PIECE_BYTES = 256 * 1024
_MAX_RATIO = 250
_OF_BODIES = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
_RATIO_FREE_BYTES = 1024 * 1024  # below this, any ratio is harmless


@dataclass(frozen=True)
class BodyLimits:
    """What the largest body of any route may be; routes set tighter limits themselves.

    Args:
        max_bytes: bytes on the wire, and bytes once decompressed.
        timeout_s: longest wait for the next piece.
    """

    max_bytes: int
    timeout_s: float


class BodyMiddleware:
    """Gives the routes a plain body within the limits, or raises a `Problem` as they read it."""

    def __init__(self, app: ASGIApp, *, limits: BodyLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value for name, value in scope["headers"] if name in _OF_BODIES}
        coding = _coding(Headers(scope=scope)) if b"content-encoding" in headers else None
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            await self._app(scope, receive, send)  # no body
            return
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > self._limits.max_bytes:
            raise _too_large(self._limits.max_bytes)
        body = _BoundedBody(receive, self._limits)
        if coding is None:
            await self._app(scope, body.receive, send)
            return
        scope["headers"] = [
            (name, value)
            for name, value in scope["headers"]
            if name not in (b"content-encoding", b"content-length")
        ]
        scope["state"]["body_was_encoded"] = True
        await self._app(scope, _UnpackedBody(body.receive, self._limits, coding).receive, send)


def _coding(headers: Headers) -> str | None:
    """The one coding of a body that is not plain."""
    encodings = [
        coding.strip().lower()
        for value in headers.getlist("content-encoding")
        for coding in value.split(",")
        if coding.strip().lower() not in ("", "identity")
    ]
    if not encodings:
        return None
    if len(encodings) == 1 and (coding := encodings[0].removeprefix("x-")) in CODINGS:
        return coding
    supported = list(CODINGS)
    raise Problem(
        "content-encoding",
        f"Send the body plain or with one layer of {' or '.join(supported)}.",
        headers={"Accept-Encoding": ", ".join(supported)},
        members={"supported": supported},
    )


def _too_large(limit: int) -> Problem:
    return Problem("limit-body", f"No body may be larger than {limit} bytes.")


class _BoundedBody:
    """The body as it comes, counted and timed; only the time spent waiting for it counts."""

    def __init__(self, receive: Receive, limits: BodyLimits) -> None:
        self._receive = receive
        self._limits = limits
        self._complete = False
        self._received = 0
        self._waited_s = 0.0

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        loop = asyncio.get_running_loop()
        grace_s = self._limits.timeout_s
        earned_s = grace_s + self._received / MIN_BYTES_PER_S - self._waited_s
        began = loop.time()
        try:
            async with asyncio.timeout(min(grace_s, earned_s)):
                message = await self._receive()
        except TimeoutError:
            raise Problem("body-timeout") from None
        self._waited_s += loop.time() - began
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._received > self._limits.max_bytes:
                raise _too_large(self._limits.max_bytes)
        return message


class _UnpackedBody:
    """The decompressed body, in pieces of bounded size."""

    def __init__(self, receive: Receive, limits: BodyLimits, coding: str) -> None:
        self._receive = receive
        self._limits = limits
        self._coding = coding
        self._unpacker: Decompressor = CODINGS[coding].decompressor()
        self._last = False
        self._ended = False
        self._bytes_in = 0
        self._bytes_out = 0

    async def receive(self) -> Message:
        while not self._ended:
            if piece := self._unpack():
                return {"type": "http.request", "body": piece, "more_body": True}
            if self._last:
                return self._end()
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._unpacker.feed(message.get("body", b""))
            self._bytes_in += len(message.get("body", b""))
            self._last = not message.get("more_body", False)
        return await self._receive()

    def _end(self) -> Message:
        if self._bytes_in == 0 or self._unpacker.complete:
            self._ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        raise Problem("content-decoding", f"The {self._coding} data is cut off.")

    def _unpack(self) -> bytes:
        try:
            piece = self._unpacker.take(_PIECE_BYTES)
        except ValueError as error:
            detail = f"The body is not valid {self._coding} data."
            raise Problem("content-decoding", detail) from error
        if piece:
            self._count(len(piece))
        return piece

    def _count(self, size: int) -> None:
        self._bytes_out += size
        if self._bytes_out > self._limits.max_bytes:
            raise Problem(
                "limit-decoded-bytes",
                f"No body may unpack to more than {self._limits.max_bytes} bytes.",
            )
        if self._bytes_out > max(_RATIO_FREE_BYTES, _MAX_RATIO * self._bytes_in):
            raise Problem("limit-decoded-bytes", f"The body expands more than {_MAX_RATIO} times.")
