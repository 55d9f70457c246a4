"""Bodies that are much work to unpack, and little or no data."""

import asyncio
import gzip
import json
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import numpy as np
import pytest
from backports import zstd

from app.http import content_codings
from app.http.body_limits import BodyLimits, PackedBody
from app.http.content_codings import Decompressor
from app.limits import BodyMemory
from app.problems.problem import Problem

MIB = 1024 * 1024
ROWS = json.dumps({"rows": [[171.5, 68.2, 33.0]]}).encode()
SKIPPABLE = struct.pack("<II", 0x184D2A50, 0)
GZIP_HEAD = bytes.fromhex("1f8b0800000000000003")
ZSTD_HEAD = bytes.fromhex("28b52ffd0058")  # a window of 2 MiB, no size


def deflated(block: bytes, size: int) -> bytes:
    """One gzip member of this many bytes of blocks that hold nothing."""
    last = b"\x01\x00\x00\xff\xff"
    return GZIP_HEAD + block * (size // len(block)) + last + struct.pack("<II", 0, 0)


def with_field(flag: int, field: bytes) -> bytes:
    """A gzip member whose header has a large field."""
    deflater = zlib.compressobj(wbits=-15)
    body = deflater.compress(ROWS) + deflater.flush()
    head = GZIP_HEAD[:3] + bytes([flag]) + GZIP_HEAD[4:]
    return head + field + body + struct.pack("<II", zlib.crc32(ROWS), len(ROWS))


def repeated(part: bytes, size: int) -> bytes:
    return part * (size // len(part))


# Coding, and what makes a body of about a number of bytes that unpacks to nothing, or to one row.
EMPTY: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "skippable frames": ("zstd", lambda size: repeated(SKIPPABLE, size)),
    "one skippable frame": (
        "zstd",
        lambda size: struct.pack("<II", 0x184D2A50, size) + bytes(size),
    ),
    "empty frames": ("zstd", lambda size: repeated(zstd.compress(b""), size)),
    "empty blocks of zstd": ("zstd", lambda size: ZSTD_HEAD + repeated(bytes(3), size) + b"\1\0\0"),
    "empty members": ("gzip", lambda size: repeated(gzip.compress(b""), size)),
    "empty stored blocks": ("gzip", lambda size: deflated(b"\x00\x00\x00\xff\xff", size)),
    "a long name": ("gzip", lambda size: with_field(8, b"x" * size + b"\0")),
    "a long comment": ("gzip", lambda size: with_field(16, b"x" * size + b"\0")),
    "members of one byte": ("gzip", lambda size: repeated(gzip.compress(b" "), size)),
    "frames of one byte": ("zstd", lambda size: repeated(zstd.compress(b" "), size)),
}
LARGE, SMALL = 24 * MIB, 3 * MIB
FORM_REFUSALS = {(400, "content-decoding"), (400, "multipart")}


@contextmanager
def pulse(url: str) -> Iterator[list[float]]:
    """How long `/livez` takes, again and again."""
    seconds: list[float] = []
    ended = threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=url, timeout=60) as client:
            while not seconds or not ended.is_set():
                began = time.monotonic()
                assert client.get("/livez").status_code == 200
                seconds.append(time.monotonic() - began)

    with ThreadPoolExecutor(1) as executor:
        asking = executor.submit(ask)
        try:
            yield seconds
        finally:
            ended.set()
            asking.result()


def post(server: str, path: str, coding: str, body: bytes, media_type: str) -> httpx2.Response:
    headers = {"Content-Type": media_type, "Content-Encoding": coding}
    return httpx2.post(server + path, content=body, headers=headers, timeout=60)


def slug_of(response: httpx2.Response) -> str:
    return str(response.json()["type"]).removeprefix("/problems/")


@pytest.mark.parametrize(("coding", "make"), EMPTY.values(), ids=list(EMPTY))
def test_packed_bytes_are_bounded_by_the_route(server, coding, make):
    """JSON takes 4 MiB; no other route's limit matters, nor what it unpacks to."""
    body = make(LARGE)
    response = post(server, "/v1/models/people/log_prob", coding, body, "application/json")
    assert (response.status_code, slug_of(response)) == (413, "limit-body")


@pytest.mark.parametrize(("coding", "make"), EMPTY.values(), ids=list(EMPTY))
def test_empty_frames_and_members_are_refused_early(server, coding, make):
    body = make(SMALL)
    response = post(server, "/v1/models/people/log_prob", coding, body, "application/json")
    assert (response.status_code, slug_of(response)) == (400, "content-decoding")


@pytest.mark.parametrize(("coding", "make"), EMPTY.values(), ids=list(EMPTY))
def test_uploads_of_nothing_are_refused_and_nobody_waits(server, coding, make):
    body = make(LARGE)
    with pulse(server) as seconds:
        response = post(server, "/v1/datasets", coding, body, "text/csv")
        assert (response.status_code, slug_of(response)) == (400, "content-decoding")
        form = post(server, "/v1/datasets", coding, body, "multipart/form-data; boundary=x")
        assert (form.status_code, slug_of(form)) in FORM_REFUSALS
    assert max(seconds) < 10  # it was 64 s


def test_a_body_that_no_route_reads_is_not_unpacked(server):
    """What is no gzip at all does not matter, as nobody looks."""
    headers = {"Content-Encoding": "gzip"}
    url = server + "/v1/models"
    assert httpx2.request("GET", url, content=b"no gzip" * 100, headers=headers).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_few_bytes_that_become_many_are_unpacked_off_the_event_loop(coding, monkeypatch):
    body = b"0" * 200_000
    packed = gzip.compress(body) if coding == "gzip" else zstd.compress(body)
    assert len(packed) < 1024
    unpacked: dict[int, int] = Counter()  # bytes by thread
    step = content_codings.Decompressor.step

    def counting(self, *args):
        piece = step(self, *args)
        unpacked[threading.get_ident()] += len(piece)
        return piece

    monkeypatch.setattr(content_codings.Decompressor, "step", counting)

    async def main() -> bytes:
        async def receive():
            return {"type": "http.request", "body": packed, "more_body": False}

        limits = BodyLimits(max_bytes=10**6)
        reader = PackedBody(receive, limits, coding, len(packed))
        reader.allow(10**6, BodyMemory(10**8), "p")
        pieces = []
        while (message := await reader.receive()).get("more_body"):
            pieces.append(message["body"])
        return b"".join(pieces)

    assert asyncio.run(main()) == body
    assert unpacked[threading.get_ident()] <= 16 * 1024


async def read_packed(packed: bytes, coding: str, memory: BodyMemory) -> list[bytes]:
    async def receive():
        return {"type": "http.request", "body": packed, "more_body": False}

    reader = PackedBody(receive, BodyLimits(max_bytes=10**7), coding, len(packed))
    try:
        reader.allow(10**7, memory, "p")
        pieces = []
        while (message := await reader.receive()).get("more_body"):
            pieces.append(message["body"])
        return pieces
    finally:
        reader.close()
        assert memory.held == 0


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_what_a_decompressor_takes_counts_before_it_takes_it(coding, monkeypatch):
    packed = (gzip if coding == "gzip" else zstd).compress(np.random.default_rng(0).bytes(3 * MIB))
    memory, step = BodyMemory(600 * 1024 if coding == "zstd" else 30 * 1024), Decompressor.step
    made = list[int]()

    def counting(self, most):
        made.append(most)
        assert memory.held >= self.held_bytes(sum(made))
        return step(self, most)

    monkeypatch.setattr(Decompressor, "step", counting)
    with pytest.raises(Problem) as refused:
        asyncio.run(read_packed(packed, coding, memory))
    assert refused.value.type.slug == "overloaded"
    assert sum(made) <= 200 * 1024


@pytest.mark.long
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_blocks_as_bgzip_makes_them_are_read(server, coding):
    """Many members are welcome as long as each brings something."""
    table = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(1_500_000))
    pack = gzip.compress if coding == "gzip" else zstd.compress
    body = b"".join(pack(table[i : i + 65_280], 1) for i in range(0, len(table), 65_280))
    assert len(table) > 200 * 65_280
    response = post(server, "/v1/datasets", coding, body, "text/csv")
    assert response.status_code == 201
    assert response.json()["rows"] == 1_500_000


def test_flushes_after_each_row_are_read(server):
    packer = zlib.compressobj(wbits=31)
    rows = [b"%d,%d\n" % (i, i * i) for i in range(20_000)]
    pieces = [packer.compress(row) + packer.flush(zlib.Z_SYNC_FLUSH) for row in [b"a,b\n", *rows]]
    response = post(server, "/v1/datasets", "gzip", b"".join(pieces) + packer.flush(), "text/csv")
    assert response.status_code == 201
