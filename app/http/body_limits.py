"""Bounds on every request body: bytes, waiting time, and decompressed bytes."""

from contextlib import ExitStack
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth.callers import project_of
from app.http.content_codings import CODINGS, Decompressor
from app.limits import BodyMemory, Share, in_thread
from app.problems.problem import Problem

_PIECE_BYTES = 512 * 1024
_MAX_RATIO = 250
_MIN_RATIO = 0.25
_EMPTY_FREE_BYTES = 64 * 1024  # compressed bytes that may decompress to nothing
_MAX_MEMBERS = 100
_MEMBER_BYTES = 32 * 1024  # one more member for each: bgzip makes members of 64 KiB
# So many compressed bytes become so many others on the event loop.
_INLINE_BYTES, _INLINE_OUT_BYTES = 1024, 16 * 1024
_OF_BODIES = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
_RATIO_FREE_BYTES = 1024 * 1024  # below this, any ratio is harmless


@dataclass(frozen=True)
class BodyLimits:
    """Limits of the largest body of any route; routes set tighter limits themselves.

    Args:
        max_bytes: Most bytes on the wire, and once decompressed.
    """

    max_bytes: int


class BodyMiddleware:
    """Middleware that decompresses bodies and enforces the limits while routes read them."""

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
        unpacked = PackedBody(body.receive, self._limits, coding, int(declared or 0))
        scope["state"]["packed_body"] = unpacked
        try:
            await self._app(scope, unpacked.receive, send)
        finally:
            unpacked.close()


def limit_packed_body(request: Request, limit: int) -> None:
    """Allow the body of a request to be decompressed, if it is compressed.

    Args:
        request: Request with a body that is about to be read.
        limit: Most bytes that the route takes, compressed and decompressed.

    Raises:
        Problem: `limit-body`, when the announced length is larger.
    """
    packed: PackedBody | None = getattr(request.state, "packed_body", None)
    if packed is not None:
        packed.allow(limit, request.app.state.body_memory, project_of(request))


def _coding(headers: Headers) -> str | None:
    """Return the coding of a body; None if it is not compressed."""
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
    """Body on the wire, counted."""

    def __init__(self, receive: Receive, limits: BodyLimits) -> None:
        self._receive = receive
        self._limits = limits
        self._complete = False
        self._received = 0

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._received > self._limits.max_bytes:
                raise _too_large(self._limits.max_bytes)
        return message


class PackedBody:
    """Decompressed body, in chunks of bounded size.

    Nothing is decompressed, and no byte of the body passed on, before a route has said how much it
    takes. Most routes take no body.

    Args:
        receive: Receiver of the compressed body.
        limits: Limits of the largest body.
        coding: Content coding of the body.
        declared: Content-Length of the compressed body; 0 if there is none.
    """

    def __init__(self, receive: Receive, limits: BodyLimits, coding: str, declared: int) -> None:
        self._receive = receive
        self._max_bytes = limits.max_bytes
        self._coding = coding
        self._declared = declared
        self._unpacker: Decompressor = CODINGS[coding].decompressor()
        self._memory = ExitStack()
        self._window: Share | None = None
        self._last = False
        self._ended = False
        self._bytes_in = 0
        self._bytes_out = 0

    def allow(self, limit: int, memory: BodyMemory, project: str) -> None:
        """Decompress from now on, at most `limit` bytes from at most as many.

        Raises:
            Problem: `limit-body`, when the announced length is larger.
        """
        self._max_bytes = min(self._max_bytes, limit)
        if self._declared > self._max_bytes:
            raise _too_large(self._max_bytes)
        if self._window is None:
            self._window = self._memory.enter_context(memory.share(project))

    def close(self) -> None:
        """Release the memory of the decompressor, whoever still refers to this body."""
        self._ended = True
        self._unpacker = CODINGS[self._coding].decompressor()
        self._memory.close()

    async def receive(self) -> Message:
        """Receive the next chunk of the decompressed body."""
        while not self._ended:
            while not self._unpacker.hungry:
                if piece := await self._unpack():
                    return {"type": "http.request", "body": piece, "more_body": True}
            if self._last:
                return self._end()
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._last = not message.get("more_body", False)
            if self._window is None:
                self._ended = self._last
                return {**message, "body": b""}
            body = message.get("body", b"")
            self._bytes_in += len(body)
            if self._bytes_in > self._max_bytes:
                raise _too_large(self._max_bytes)
            self._unpacker.feed(body)
        return await self._receive()

    def _end(self) -> Message:
        if self._bytes_in == 0 or self._unpacker.complete:
            self.close()
            return {"type": "http.request", "body": b"", "more_body": False}
        raise Problem("content-decoding", f"The {self._coding} data is cut off.")

    async def _unpack(self) -> bytes:
        piece = b""
        try:
            if (
                self._bytes_out < _INLINE_OUT_BYTES
                and self._unpacker.waiting_bytes <= _INLINE_BYTES
            ):
                self._hold(_INLINE_OUT_BYTES)
                piece = self._unpacker.step(_INLINE_OUT_BYTES)
            else:
                most = _PIECE_BYTES
                self._hold(most)
                piece = await in_thread(self._unpacker.step, most)
            self._bytes_out += len(piece)
            self._hold(0)
            self._check_work()
            self._check_size()
        except ValueError as error:
            detail = f"The body is not valid {self._coding} data."
            raise Problem("content-decoding", detail) from error
        except Problem:
            piece = b""  # the error keeps this frame until its response is sent
            self.close()
            raise
        return piece

    def _hold(self, more: int) -> None:
        """Count what the decompressor has, once it has made so many bytes more."""
        if self._window is not None:
            self._window.hold(self._unpacker.held_bytes(self._bytes_out + more))

    def _check_work(self) -> None:
        """Refuse bodies that take much work and hold little data."""
        unpacker = self._unpacker
        if unpacker.members > _MAX_MEMBERS + self._bytes_out / _MEMBER_BYTES:
            detail = f"The body is made of more than {_MAX_MEMBERS} small members or frames."
            raise Problem("content-decoding", f"{detail} Pack it as one.")
        if unpacker.bytes_in * _MIN_RATIO > _EMPTY_FREE_BYTES + self._bytes_out:
            raise Problem("content-decoding", "The body unpacks to far less than was sent.")

    def _check_size(self) -> None:
        if self._bytes_out > self._max_bytes:
            raise Problem(
                "limit-decoded-bytes",
                f"The body may unpack to at most {self._max_bytes} bytes.",
            )
        if self._bytes_out > max(_RATIO_FREE_BYTES, _MAX_RATIO * self._bytes_in):
            raise Problem("limit-decoded-bytes", f"The body expands more than {_MAX_RATIO} times.")
