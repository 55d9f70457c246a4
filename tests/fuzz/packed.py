"""Bodies inside other things: content codings and forms."""

import asyncio
import gzip
from collections.abc import Iterable, Iterator

from backports import zstd
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from app.http.body_limits import BodyLimits, BodyMiddleware
from app.http.body_memory import BodyMemory
from app.http.multipart import file_part
from app.problems.problem import Problem

_LIMITS = BodyLimits(max_bytes=1 << 20, timeout_s=5)
_STEPS = (1, 5, 100, 100_000)
_NAMES = ("gzip", "zstd")

_PLAIN = b"1.5,2.5\n" * 40
PACKED = [
    b"\x03" + gzip.compress(_PLAIN),
    b"\x02" + gzip.compress(b"a") + gzip.compress(_PLAIN),
    b"\x07" + zstd.compress(_PLAIN),
    b"\x06" + zstd.compress(b"a") + zstd.compress(_PLAIN),
]
MAGIC = [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\xff\xff\xff\xff"]
_DISPOSITION = b'Content-Disposition: form-data; name="file"; filename="a.csv"\r\n'
FORMS = [
    b"\x03--x\r\n" + _DISPOSITION + b"Content-Type: text/csv\r\n\r\na,b\n1,2\n\r\n--x--\r\n",
    b"\x00--x\r\n" + _DISPOSITION + b"\r\n\r\n--x\r\n\r\n\r\n--x--",
]
FORM_WORDS = [b"--x", b"--x--", b"\r\n", b"filename*=utf-8''%00", b'name="file"', b"Content-Type:"]


def check_coding(data: bytes) -> None:
    """A body that the usual unpackers unpack to the same, or a problem of the caller's.

    The first byte says in which coding and in which pieces it comes.
    """
    choice, body = (data[0] if data else 0), data[1:]
    name = _NAMES[choice // 4 % 2]
    try:
        plain = asyncio.run(_unpacked(_pieces(body, choice), name))
    except Problem as problem:
        assert 400 <= problem.status < 500, problem.type.slug  # noqa: PT017  not always raised
    else:
        assert len(plain) <= _LIMITS.max_bytes
        unpack = gzip.decompress if name == "gzip" else zstd.decompress
        assert plain == (unpack(body) if body else b"")


def check_form(data: bytes) -> None:
    """The content of a form's one file, or a problem of the caller's."""
    choice, body = (data[0] if data else 0), data[1:]
    try:
        name, content = asyncio.run(_file(_pieces(body, choice)))
    except Problem as problem:
        assert problem.type.slug == "multipart"  # noqa: PT017  not always raised
    else:
        assert len(content) <= len(body)
        (name or "").encode()


def _pieces(body: bytes, choice: int) -> list[bytes]:
    step = _STEPS[choice % 4] if len(body) < 1000 else 300
    return [body[i : i + step] for i in range(0, len(body), step)]


def _receiving(pieces: Iterable[bytes]) -> Receive:
    messages: Iterator[Message] = iter(
        [
            *({"type": "http.request", "body": piece, "more_body": True} for piece in pieces),
            {"type": "http.request", "body": b"", "more_body": False},
        ]
    )

    async def receive() -> Message:
        return next(messages)

    return receive


async def _unpacked(pieces: Iterable[bytes], coding: str) -> bytes:
    body = bytearray()

    async def app(scope: Scope, receive: Receive, _send: Send) -> None:
        if "packed_body" in scope["state"]:
            scope["state"]["packed_body"].allow(
                _LIMITS.max_bytes, BodyMemory(1 << 30).of("project")
            )
        more = True
        while more:
            message = await receive()
            body.extend(message["body"])
            more = message["more_body"]

    async def send(message: Message) -> None:
        raise AssertionError(message)

    headers = [(b"content-encoding", coding.encode()), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "state": {}, "headers": headers}
    await BodyMiddleware(app, limits=_LIMITS)(scope, _receiving(pieces), send)
    return bytes(body)


async def _file(pieces: Iterable[bytes]) -> tuple[str | None, bytes]:
    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    part = await file_part(Request({"type": "http", "headers": headers}, _receiving(pieces)))
    return part.file_name, b"".join([chunk async for chunk in part.chunks])
