"""Request bodies in gzip or Zstandard, decompressed piece by piece while routes read them."""

import zlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from backports import zstd
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.limits import in_thread
from app.problems.problem import Problem

PACKED = "packed_body"
"""Key of a request's state that is true while its body is decompressed."""
_PIECE_BYTES = 256 * 1024
_INLINE_BYTES = 1024
_GZIP = 16 + zlib.MAX_WBITS
_MAX_WINDOW_LOG = 23  # 8 MiB: RFC 9659 bids senders use no larger window


class _Unpacker(Protocol):
    """Decompressor of one member or frame, after which another one may follow."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _gunzip() -> _Unpacker:
    return zlib.decompressobj(wbits=_GZIP)


def _unzstd() -> _Unpacker:
    options = {int(zstd.DecompressionParameter.window_log_max): _MAX_WINDOW_LOG}
    return zstd.ZstdDecompressor(options=options)


_CODINGS: dict[str, Callable[[], _Unpacker]] = {"zstd": _unzstd, "gzip": _gunzip}


class PackedBodyMiddleware:
    """Middleware that decompresses bodies; routes count what they read.

    Args:
        app: Application that reads the bodies.
        max_bytes: Most compressed bytes of a body of any route.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        coding = None
        if scope["type"] == "http" and any(
            name == b"content-encoding" for name, _ in scope["headers"]
        ):
            coding = _coding(Headers(scope=scope))
        if coding is None:
            await self._app(scope, receive, send)
            return
        framing = b"content-encoding", b"content-length"
        scope["headers"] = [header for header in scope["headers"] if header[0] not in framing]
        scope["state"][PACKED] = True
        pieces = _unpacked(receive, coding, self._max_bytes)

        async def receive_unpacked() -> Message:
            async for piece in pieces:
                return {"type": "http.request", "body": piece, "more_body": True}
            return await receive_end()

        ended = False

        async def receive_end() -> Message:
            nonlocal ended
            if ended:
                return await receive()
            ended = True
            return {"type": "http.request", "body": b"", "more_body": False}

        await self._app(scope, receive_unpacked, send)


async def _unpacked(receive: Receive, coding: str, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the decompressed body.

    Raises:
        Problem: `content-decoding`, or `limit-body`.
        ClientDisconnect: The caller has left.
    """
    members = _Members(coding)
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        more = message.get("more_body", False)
        members.feed(message.get("body", b""))
        if members.size > max_bytes:
            raise Problem("limit-body", f"No body may be larger than {max_bytes} bytes.")
        while members.has_more:
            inline = members.size <= _INLINE_BYTES
            if piece := members.step() if inline else await in_thread(members.step):
                yield piece
    members.check_end()


class _Members:
    """Members or frames of a body, one after the other.

    Attributes:
        size: Compressed bytes so far.
    """

    def __init__(self, coding: str) -> None:
        self.size = 0
        self._coding = coding
        self._unpacker = _CODINGS[coding]()
        self._waiting = b""

    def feed(self, data: bytes) -> None:
        """Add compressed bytes."""
        self.size += len(data)
        self._waiting += data

    @property
    def has_more(self) -> bool:
        """Whether a step may give something without more input."""
        unpacker = self._unpacker
        return bool(self._waiting) or not (unpacker.eof or getattr(unpacker, "needs_input", True))

    def step(self) -> bytes:
        """Return the next piece, which may be empty.

        Raises:
            Problem: `content-decoding`.
        """
        made = bytearray()
        try:
            while self.has_more and len(made) < _PIECE_BYTES:
                made += self._decompress()
        except (zlib.error, zstd.ZstdError) as error:
            detail = f"The body is not valid {self._coding} data."
            raise Problem("content-decoding", detail) from error
        return bytes(made)

    def _decompress(self) -> bytes:
        if self._unpacker.eof:
            self._unpacker = _CODINGS[self._coding]()
        unpacker = self._unpacker
        piece = unpacker.decompress(self._waiting, _PIECE_BYTES)
        rest = unpacker.unused_data if unpacker.eof else getattr(unpacker, "unconsumed_tail", b"")
        self._waiting = rest
        return piece

    def check_end(self) -> None:
        """Refuse what is cut off.

        Raises:
            Problem: `content-decoding`.
        """
        if self.size and not self._unpacker.eof:
            raise Problem("content-decoding", f"The {self._coding} data is cut off.")


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
    if len(encodings) == 1 and (coding := encodings[0].removeprefix("x-")) in _CODINGS:
        return coding
    supported = list(_CODINGS)
    raise Problem(
        "content-encoding",
        f"Send the body plain or with one layer of {' or '.join(supported)}.",
        headers={"Accept-Encoding": ", ".join(supported)},
        members={"supported": supported},
    )
