import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import numpy as np
import pytest
from backports import zstd
from starlette.types import Message, Receive, Scope, Send

from app.http.body_limits import BodyLimits, BodyMiddleware
from app.limits import BodyMemory
from app.problems.problem import Problem

LIMITS = BodyLimits(max_bytes=4_000_000)


def read(
    pieces: Iterable[bytes], limits: BodyLimits = LIMITS, **headers: str
) -> tuple[bytes, Scope]:
    """The body that a route gets, and its scope."""
    return asyncio.run(_read(_messages(pieces), limits, headers))


async def _messages(pieces: Iterable[bytes]) -> AsyncIterator[Message]:
    for piece in pieces:
        yield {"type": "http.request", "body": piece, "more_body": True}
    yield {"type": "http.request", "body": b"", "more_body": False}


async def _read(
    messages: AsyncIterator[Message], limits: BodyLimits, headers: dict[str, str]
) -> tuple[bytes, Scope]:
    scope: dict[str, Any] = {
        "type": "http",
        "state": {},
        "headers": [
            (name.replace("_", "-").encode(), value.encode())
            for name, value in ({"transfer_encoding": "chunked"} | headers).items()
        ],
    }
    body = bytearray()

    async def app(scope: Scope, receive: Receive, _send: Send) -> None:
        if "packed_body" in scope["state"]:
            scope["state"]["packed_body"].allow(limits.max_bytes, BodyMemory(1 << 30), "project")
        while True:
            message = await receive()
            assert message["type"] == "http.request"
            assert len(message["body"]) <= 4_000_000
            body.extend(message["body"])
            if not message["more_body"]:
                return

    async def receive() -> Message:
        return await anext(messages)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    await BodyMiddleware(app, limits=limits)(scope, receive, send)
    return bytes(body), scope


def slug_of(pieces: Iterable[bytes], limits: BodyLimits = LIMITS, **headers: str) -> str:
    with pytest.raises(Problem) as caught:
        read(pieces, limits, **headers)
    return caught.value.type.slug


def test_a_plain_body_passes_unchanged():
    assert read([b"ab", b"", b"cd"])[0] == b"abcd"


def test_a_declared_length_over_the_limit_is_refused_before_reading():
    pieces = iter([b"not read"])
    assert slug_of(pieces, content_length="4000001") == "limit-body"
    assert list(pieces) == [b"not read"]


def test_an_undeclared_length_is_counted():
    assert slug_of([b"x" * 1_000_000] * 5) == "limit-body"


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_999_999])
@pytest.mark.parametrize("step", [1000, 10**9])
def test_a_gzipped_body_is_unpacked(size, step):
    text = bytes(i * i % 251 for i in range(1000)) * (size // 1000 + 1)
    packed = gzip.compress(text[:size], 1)
    if size > 100 * len(packed):
        step = 10**9
    pieces = [packed[i : i + step] for i in range(0, len(packed), step)]
    body, scope = read(
        pieces, BodyLimits(4_000_000), content_encoding="gzip", content_length=str(len(packed))
    )
    assert body == text[:size]
    assert [name for name, _ in scope["headers"]] == [b"transfer-encoding"]


def test_a_gzipped_body_in_single_bytes_is_unpacked():
    packed = gzip.compress(b"hello" * 100)
    assert (
        read([packed[i : i + 1] for i in range(len(packed))], content_encoding="gzip")[0]
        == b"hello" * 100
    )


def test_gzip_members_may_follow_each_other():
    assert read([gzip.compress(b"a") + gzip.compress(b"b")], content_encoding="x-gzip")[0] == b"ab"


def test_a_bomb_is_stopped_by_its_size():
    assert (
        slug_of([gzip.compress(b"\0" * 100_000_000, 1)], content_encoding="gzip")
        == "limit-decoded-bytes"
    )


def test_a_bomb_is_stopped_by_its_ratio():
    limits = BodyLimits(max_bytes=10**9)
    packed = gzip.compress(b"\0" * 20_000_000)
    assert slug_of([packed], limits, content_encoding="gzip") == "limit-decoded-bytes"


@pytest.mark.parametrize(
    "encoding", ["br", "gzip, gzip", "br, gzip, gzip", "deflate", "x-zstd, gzip", "nonsense"]
)
def test_other_and_stacked_encodings_are_refused(encoding):
    assert slug_of([b""], content_encoding=encoding) == "content-encoding"


def random_text(size: int) -> bytes:
    return np.random.default_rng(0).integers(65, 75, size, np.uint8).tobytes()


@pytest.mark.parametrize("size", [0, 1, 300_000, 3_999_999])
@pytest.mark.parametrize("step", [1000, 10**9])
def test_a_body_of_zstandard_is_unpacked(size, step):
    packed = zstd.compress(random_text(size))
    pieces = [packed[i : i + step] for i in range(0, len(packed), step)]
    body, _ = read(pieces, BodyLimits(4_000_000), content_encoding="zstd")
    assert body == random_text(size)


def test_zstandard_frames_may_follow_each_other_in_single_bytes():
    packed = zstd.compress(b"a" * 1000) + zstd.compress(b"b")
    pieces = [packed[i : i + 1] for i in range(len(packed))]
    assert read(pieces, content_encoding="zstd")[0] == b"a" * 1000 + b"b"


@pytest.mark.parametrize(
    "packed",
    [
        b"no zstd at all",
        zstd.compress(b"hello")[:-3],
        zstd.compress(b"hello") + b"junk",
        zstd.compress(b"a" * 10, options={zstd.CompressionParameter.checksum_flag: 1})[:-1] + b"x",
        gzip.compress(b"hello"),
    ],
    ids=range(5),
)
def test_corrupt_and_cut_zstandard_is_refused(packed):
    assert slug_of([packed], content_encoding="zstd") == "content-decoding"


@pytest.mark.long
def test_a_zstandard_bomb_is_stopped_early_by_its_size_and_its_ratio():
    bomb = zstd.compress(bytes(1 << 30))
    assert len(bomb) < 200_000
    tracemalloc.start()
    try:
        assert slug_of([bomb], content_encoding="zstd") == "limit-decoded-bytes"
        limits = BodyLimits(max_bytes=10**10)
        assert slug_of([bomb], limits, content_encoding="zstd") == "limit-decoded-bytes"
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_a_window_larger_than_any_browser_takes_is_refused():
    compressor = zstd.ZstdCompressor(options={int(zstd.CompressionParameter.window_log): 27})
    packed = compressor.compress(random_text(100_000)) + compressor.flush()
    assert slug_of([packed], content_encoding="zstd") == "content-decoding"


@pytest.mark.parametrize("encoding", ["identity", "", "identity, identity"])
def test_no_encoding_by_another_name_is_accepted(encoding):
    assert read([b"ab"], content_encoding=encoding)[0] == b"ab"


@pytest.mark.parametrize(
    "packed",
    [
        b"no gzip",
        gzip.compress(b"hello")[:-3],
        gzip.compress(b"hello")[:5],
        zlib.compress(b"hello"),
        gzip.compress(b"a") + b"junk",
    ],
    ids=range(5),
)
def test_corrupt_and_cut_gzip_data_is_refused(packed):
    assert slug_of([packed], content_encoding="gzip") == "content-decoding"
