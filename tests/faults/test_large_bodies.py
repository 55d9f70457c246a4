"""Groups B and D: bodies that are large, or become large. None is held in memory."""

import gzip
import itertools
import json
import socket
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from backports import zstd

from app.connections.unread import UNREAD_BYTES
from tests.faults.invariants import MIB, resident_bytes
from tests.faults.service import MAX_BYTES
from tests.faults.wire import head, talk
from tests.tables.files import npy

CSV = "Content-Type: text/csv"
JSON = "Content-Type: application/json"
NPY = "Content-Type: application/x-npy"
CHUNKED = "Transfer-Encoding: chunked"
JOBS = "/v1/jobs/training"
LOG_PROB = "/v1/models/people/log_prob"
UPLOAD = "/v1/datasets"
_WINDOW_AT = 228  # tcpi_snd_wnd of Linux


def chunks(piece: bytes) -> Iterator[bytes]:
    """A body without end."""
    return itertools.repeat(b"%x\r\n%b\r\n" % (len(piece), piece))


@pytest.mark.parametrize(
    ("path", "media_type", "length"),
    [
        (UPLOAD, CSV, MAX_BYTES + MIB),
        (UPLOAD, "Content-Type: multipart/form-data; boundary=x", 1 << 40),
        (JOBS, JSON, MIB + 1),
        (LOG_PROB, JSON, MIB + 1),
        (LOG_PROB, NPY, 1 << 62),
    ],
)
def test_a_length_beyond_the_limit_is_refused_before_the_body_comes(
    service, path, media_type, length
):
    answer = talk(service.port, [head("POST", path, media_type, f"Content-Length: {length}")])
    assert (answer.status, answer.slug) == (413, "limit-body")
    assert "connection: close" in answer.head


@pytest.mark.parametrize(
    ("path", "media_type", "piece"),
    [
        (UPLOAD, CSV, b"1,2\n" * 20_000),
        (JOBS, JSON, b" " * 80_000),
        (LOG_PROB, JSON, b" " * 80_000),
        (LOG_PROB, "Content-Type: text/csv", b"1,2,3\n" * 20_000),
    ],
)
def test_a_body_without_end_is_cut_at_the_limit(service, path, media_type, piece):
    pieces = itertools.chain([head("POST", path, media_type, CHUNKED)], chunks(piece))
    answer = talk(service.port, pieces)
    assert answer.status in {0, 413}  # 0: what was on its way met a closed connection
    assert not answer.status or answer.slug == "limit-body"


def test_the_kernel_takes_little_of_a_body_in_advance(service):
    """The window that callers are told, though all before was read fast."""
    with socket.create_connection(("127.0.0.1", service.port)) as caller:
        caller.sendall(head("POST", "/v1/nothing", CSV, f"Content-Length: {1 << 30}"))
        windows = set()
        for _ in range(512):
            caller.sendall(bytes(1 << 16))
            info = caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
            windows.add(struct.unpack_from("I", info, _WINDOW_AT)[0])
    assert 2**16 < max(windows) <= 2 * UNREAD_BYTES


def text() -> bytes:
    return b"a,b\n" + b"1,2\n" * 25 * MIB


def array() -> bytes:
    return npy(np.zeros((300_000, 3)))


BOMBS = {
    "upload": (UPLOAD, CSV, "gzip", lambda: gzip.compress(text(), 1)),
    "upload zstd": (UPLOAD, CSV, "zstd", lambda: zstd.compress(text())),
    "upload of members": (UPLOAD, CSV, "gzip", lambda: gzip.compress(b"1,2\n" * MIB) * 25),
    "job": (JOBS, JSON, "gzip", lambda: gzip.compress(b" " * 100 * MIB, 1)),
    "job zstd": (JOBS, JSON, "zstd", lambda: zstd.compress(b" " * 100 * MIB)),
    "rows": (LOG_PROB, JSON, "gzip", lambda: gzip.compress(b" " * 100 * MIB, 1)),
    "array": (LOG_PROB, NPY, "gzip", lambda: gzip.compress(array())),
    "array zstd": (LOG_PROB, NPY, "zstd", lambda: zstd.compress(array())),
}


@pytest.mark.parametrize(("path", "media_type", "coding", "make"), BOMBS.values(), ids=list(BOMBS))
def test_a_bomb_is_stopped_while_it_unpacks(service, path, media_type, coding, make):
    body = make()
    headers = [media_type, f"Content-Encoding: {coding}", f"Content-Length: {len(body)}"]
    answer = talk(service.port, [head("POST", path, *headers) + body])
    assert answer.status == 413
    assert answer.slug in {"limit-decoded-bytes", "limit-body"}


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "deflate", "compress", "gzip, zstd"])
def test_other_codings_and_more_than_one_are_refused(service, coding):
    body = gzip.compress(gzip.compress(text(), 1)) if "," in coding else zlib.compress(b"a,b\n")
    request = head(
        "POST", UPLOAD, CSV, f"Content-Encoding: {coding}", f"Content-Length: {len(body)}"
    )
    close = request.replace(b"Host: x", b"Host: x\r\nConnection: close")
    answer = talk(service.port, [close + body])
    assert (answer.status, answer.slug) == (415, "content-encoding")


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"[" * 100_000, 400, "json-depth"),
        (b'{"a":' * 100_000, 400, "json-depth"),
        (b"[" * 900 + b"]" * 900, 422, "validation"),
        (b'{"model_name": %b}' % (b"7" * 5_000), 400, "json-number"),
        (b'{"model_name": "%b"}' % (b"x" * 1_000_000), 422, "validation"),
        (json.dumps({f"tag{i}": i for i in range(40_000)}).encode(), 422, "unknown-field"),
        (b'{"flow": {"family": "maf", "hidden": [%b0]}}' % (b"0," * 400_000), 422, "validation"),
        (json.dumps({"flow": {f"tag{i}": i for i in range(40_000)}}).encode(), 422, "validation"),
    ],
    ids=["lists", "objects", "900 lists", "digits", "string", "keys", "values", "inner keys"],
)
def test_json_that_is_deep_or_huge_gets_a_short_answer(service, body, status, slug):
    before = resident_bytes(service.pid)
    with service.client() as client:
        headers = {"Content-Type": "application/json"}
        response = client.post(JOBS, content=body, headers=headers)
    assert resident_bytes(service.pid) - before < 50 * MIB
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{slug}")
    assert len(response.content) <= 8192


FILE = b'Content-Disposition: form-data; name="file"; filename="a.csv"\r\n'
FORMS = {
    "100000 parts": (b"--x\r\n\r\n\r\n" * 100_000, {400}),
    "100000 files": ((b"--x\r\n" + FILE + b"\r\na\r\n") * 100_000, {400}),
    "no closing boundary": (b"--x\r\n" + FILE + b"\r\na,b\n1,2\n3,5\n4,9\n", {400}),
    "giant part header": (b"--x\r\nX: " + b"x" * 4_000_000, {400}),
    "almost boundaries": (b"--x\r\n" + FILE + b"\r\n" + b"\r\n--" * 1_000_000, {400, 415, 422}),
    "no boundary at all": (b"\r" * 4_000_000, {400}),
}


@pytest.mark.parametrize(("form", "statuses"), FORMS.values(), ids=list(FORMS))
def test_an_abusive_form_is_refused(service, form, statuses):
    media_type = "Content-Type: multipart/form-data; boundary=x"
    request = head("POST", UPLOAD, media_type, f"Content-Length: {len(form)}", "Connection: close")
    answer = talk(service.port, [request + form])
    assert answer.status in {0, *statuses}


@pytest.mark.parametrize("path", [UPLOAD, JOBS, LOG_PROB])
def test_a_form_of_fields_is_not_read(service, path):
    body = b"&".join(b"a%d=1" % i for i in range(90_000))
    media_type = "Content-Type: application/x-www-form-urlencoded"
    request = head("POST", path, media_type, f"Content-Length: {len(body)}", "Connection: close")
    answer = talk(service.port, [request + body])
    assert answer.status in {0, 415}
    assert not answer.status or answer.slug == "media-type"
