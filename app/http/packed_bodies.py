"""Request bodies in gzip or Zstandard, decompressed piece by piece while routes read them."""

import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from backports import zstd
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from app.http.exchange import Exchange
from app.limits import in_thread
from app.problems.problem import Problem

_PIECE_BYTES = 256 * 1024
_INLINE_BYTES = 1024
_GZIP = 16 + zlib.MAX_WBITS
_MAX_WINDOW_LOG = 23  # 8 MiB: RFC 9659 bids senders use no larger window


def _gunzip() -> Any:  # noqa: ANN401 - of zlib, which does not name it
    return zlib.decompressobj(wbits=_GZIP)


def _unzstd() -> Any:  # noqa: ANN401 - beside that of zlib
    options = {int(zstd.DecompressionParameter.window_log_max): _MAX_WINDOW_LOG}
    return zstd.ZstdDecompressor(options=options)


_CODINGS: dict[str, Callable[[], Any]] = {"zstd": _unzstd, "gzip": _gunzip}


def unpack(exchange: Exchange, *, max_bytes: int) -> None:
    """Have the body of a request decompressed while it is read; routes count what they read.

    Args:
        max_bytes: Most compressed bytes of a body of any route.

    Raises:
        Problem: `content-encoding`: it is not compressed in a way that is known here.
    """
    coding = _coding(exchange.values(b"content-encoding"))
    if coding is None:
        return
    scope = exchange.scope
    framing = b"content-encoding", b"content-length"
    scope["headers"] = [header for header in scope["headers"] if header[0] not in framing]
    for name in framing:
        exchange.head.pop(name, None)
    exchange.is_packed = True
    receive = exchange.receive
    pieces = _unpacked(receive, coding, max_bytes)
    ended = False

    async def receive_unpacked() -> Message:
        nonlocal ended
        if ended:
            return await receive()
        piece = await anext(pieces, b"")
        ended = not piece
        return {"type": "http.request", "body": piece, "more_body": not ended}

    exchange.receive = receive_unpacked


async def _unpacked(receive: Receive, coding: str, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the decompressed body.

    Raises:
        Problem: `content-decoding`, or `limit-body`.
        ClientDisconnect: The caller has left.
    """
    unpacker, size, more = _Unpacker(coding), 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        more = message.get("more_body", False)
        unpacker.waiting += message.get("body", b"")
        size += len(message.get("body", b""))
        if size > max_bytes:
            raise Problem("limit-body", f"No body may be larger than {max_bytes} bytes.")
        while unpacker.has_more:
            inline = size <= _INLINE_BYTES
            if piece := unpacker.step() if inline else await in_thread(unpacker.step):
                yield piece
    if size and not unpacker.ended:
        raise Problem("content-decoding", f"The {coding} data is cut off.")


class _Unpacker:
    """Decompressor of members or frames that follow each other.

    Attributes:
        waiting: Compressed bytes that are still to be read.
    """

    def __init__(self, coding: str) -> None:
        self.waiting = b""
        self._coding = coding
        self._member = _CODINGS[coding]()

    @property
    def ended(self) -> bool:
        """Whether the last member is complete."""
        return bool(self._member.eof)

    @property
    def has_more(self) -> bool:
        """Whether a step may give something without more input."""
        return bool(self.waiting) or not (self.ended or getattr(self._member, "needs_input", True))

    def step(self) -> bytes:
        """Return the next piece, which may be empty.

        Raises:
            Problem: `content-decoding`.
        """
        made = bytearray()
        try:
            while self.has_more and len(made) < _PIECE_BYTES:
                if self.ended:
                    self._member = _CODINGS[self._coding]()
                made += self._member.decompress(self.waiting, _PIECE_BYTES)
                rest = "unused_data" if self.ended else "unconsumed_tail"
                self.waiting = getattr(self._member, rest, b"")
        except (zlib.error, zstd.ZstdError) as error:
            detail = f"The body is not valid {self._coding} data."
            raise Problem("content-decoding", detail) from error
        return bytes(made)


def _coding(values: Sequence[bytes]) -> str | None:
    """Return the coding that `Content-Encoding` headers name; None if the body is not compressed."""
    encodings = [
        coding.strip().lower()
        for value in values
        for coding in value.decode("latin-1").split(",")
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
