import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import httpx2
import numpy as np
import pytest
from backports import zstd
from starlette.types import Message, Receive, Scope, Send

from app.http.packed_bodies import PACKED, PackedBodyMiddleware
from app.problems.problem import Problem

LIMIT = 4_000_000


def read(pieces: Iterable[bytes], limit: int = LIMIT, **headers: str) -> tuple[bytes, Scope]:
    """The body that a route gets, and its scope."""
    return asyncio.run(_read(_messages(pieces), limit, headers))


async def _messages(pieces: Iterable[bytes]) -> AsyncIterator[Message]:
    for piece in pieces:
        yield {"type": "http.request", "body": piece, "more_body": True}
    yield {"type": "http.request", "body": b"", "more_body": False}


async def _read(
    messages: AsyncIterator[Message], limit: int, headers: dict[str, str]
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
        while True:
            message = await receive()
            assert message["type"] == "http.request"
            body.extend(message["body"])
            if len(body) > limit:  # as routes do
                raise Problem("limit-decoded-bytes" if PACKED in scope["state"] else "limit-body")
            if not message["more_body"]:
                return

    async def receive() -> Message:
        return await anext(messages)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    await PackedBodyMiddleware(app, max_bytes=limit)(scope, receive, send)
    return bytes(body), scope


def slug_of(pieces: Iterable[bytes], limit: int = LIMIT, **headers: str) -> str:
    with pytest.raises(Problem) as caught:
        read(pieces, limit, **headers)
    return caught.value.type.slug


def test_a_plain_body_passes_unchanged():
    assert read([b"ab", b"", b"cd"])[0] == b"abcd"


def random_text(size: int) -> bytes:
    return np.random.default_rng(0).integers(65, 75, size, np.uint8).tobytes()


PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("coding", PACK)
def test_a_packed_body_is_unpacked_in_whatever_pieces_it_comes(coding):
    for size, step in ((0, 1), (1, 1), (500, 1), (300_000, 1000), (3_999_999, 10**9)):
        packed = PACK[coding](random_text(size))
        pieces = [packed[i : i + step] for i in range(0, len(packed), step)]
        length = str(len(packed))
        body, scope = read(pieces, 4_000_000, content_encoding=coding, content_length=length)
        assert body == random_text(size)
        assert [name for name, _ in scope["headers"]] == [b"transfer-encoding"]


@pytest.mark.parametrize("coding", PACK)
def test_members_and_frames_may_follow_each_other(coding):
    packed = PACK[coding](b"a" * 1000) + PACK[coding](b"b")
    assert read([packed], content_encoding=f"x-{coding}")[0] == b"a" * 1000 + b"b"
    single = [packed[i : i + 1] for i in range(len(packed))]
    assert read(single, content_encoding=coding)[0] == b"a" * 1000 + b"b"


def test_a_bomb_is_stopped_by_its_size():
    assert (
        slug_of([gzip.compress(b"\0" * 100_000_000, 1)], content_encoding="gzip")
        == "limit-decoded-bytes"
    )


def test_other_and_stacked_encodings_are_refused_and_none_by_another_name_is_accepted():
    for encoding in ("br", "gzip, gzip", "br, gzip", "deflate", "x-zstd, gzip", "nonsense"):
        assert slug_of([b""], content_encoding=encoding) == "content-encoding"
    for encoding in ("identity", "", "identity, identity"):
        assert read([b"ab"], content_encoding=encoding)[0] == b"ab"


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


def test_a_zstandard_bomb_is_stopped_early_by_its_size():
    bomb = zstd.compress(bytes(1 << 30))
    assert len(bomb) < 200_000
    tracemalloc.start()
    try:
        assert slug_of([bomb], content_encoding="zstd") == "limit-decoded-bytes"
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_a_window_larger_than_any_browser_takes_is_refused():
    compressor = zstd.ZstdCompressor(options={int(zstd.CompressionParameter.window_log): 27})
    packed = compressor.compress(random_text(100_000)) + compressor.flush()
    assert slug_of([packed], content_encoding="zstd") == "content-decoding"


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


def post(server: str, path: str, coding: str, body: bytes, media_type: str) -> httpx2.Response:
    headers = {"Content-Type": media_type, "Content-Encoding": coding}
    return httpx2.post(server + path, content=body, headers=headers, timeout=60)


def test_a_body_that_no_route_reads_is_not_unpacked(server):
    """What is no gzip at all does not matter, as nobody looks."""
    headers = {"Content-Encoding": "gzip"}
    url = server + "/v1/models"
    assert httpx2.request("GET", url, content=b"no gzip" * 100, headers=headers).status_code == 200


def test_flushes_after_each_row_are_read(server):
    packer = zlib.compressobj(wbits=31)
    rows = [b"%d,%d\n" % (i, i * i) for i in range(20_000)]
    pieces = [packer.compress(row) + packer.flush(zlib.Z_SYNC_FLUSH) for row in [b"a,b\n", *rows]]
    response = post(server, "/v1/datasets", "gzip", b"".join(pieces) + packer.flush(), "text/csv")
    assert response.status_code == 201
