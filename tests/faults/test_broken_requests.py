"""Groups B and D: requests that break HTTP or mean two things. They are refused and closed."""

import time

import pytest

from tests.faults.service import Service
from tests.faults.wire import head, talk

CSV = "Content-Type: text/csv"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "request_head",
    [
        head("GET", "/livez", "A: " + "x" * (1 << 20)),
        head("GET", "/livez", *[f"A{i}: x" for i in range(5_000)]),
        head("GET", "/livez", *["A: x"] * 5_000),
        head("GET", "/livez?" + "x" * (1 << 20)),
        head("POST", "/v1/datasets", "Content-Type: multipart/form-data; boundary=" + "x" * 10**6),
    ],
    ids=["1 MiB", "5000", "5000 equal", "path", "boundary"],
)
def test_headers_beyond_the_limits_are_refused(service, request_head):
    answer = talk(service.port, [request_head])
    assert answer.status in {0, 431}  # 0: the rest of the header met a closed connection
    assert not answer.status or answer.slug == "limit-headers"


@pytest.mark.parametrize(
    "request_bytes",
    [
        head("POST", "/v1/datasets", CSV, "Content-Length: 4", "Transfer-Encoding: chunked")
        + b"0\r\n\r\n",
        head("POST", "/v1/datasets", CSV, "Transfer-Encoding: chunked", "Content-Length: 4")
        + b"0\r\n\r\n",
        head("POST", "/v1/datasets", CSV, "Content-Length: 3", "Content-Length: 4") + b"abcd",
        head("POST", "/v1/datasets", CSV, "Content-Length: 3, 4") + b"abcd",
        head("POST", "/v1/datasets", CSV, "Content-Length: -1"),
        head("POST", "/v1/datasets", CSV, "Content-Length: 99999999999999999999999"),
        head("POST", "/v1/datasets", CSV, "Transfer-Encoding: chunked") + b"zz\r\nabc\r\n",
        head("POST", "/v1/datasets", CSV, "Transfer-Encoding: chunked")
        + b"ffffffffffffffffff\r\nabc\r\n",
        head("POST", "/v1/datasets", CSV, "Transfer-Encoding: gzip") + b"abc",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    ],
    ids=range(12),
)
def test_an_ambiguous_request_is_refused_and_nothing_after_it_is_served(service, request_bytes):
    before = dataset_ids(service)
    answer = talk(service.port, [request_bytes + SMUGGLED])
    assert answer.status in {400, 505}
    assert answer.body.count(b"HTTP/1.1") == 0
    assert "connection: close" in answer.head
    assert dataset_ids(service) == before


@pytest.mark.parametrize(
    ("count", "statuses"), [(100_000, {0, 431}), (9_000, {431}), (4_000, {200, 206, 400, 416})]
)
def test_very_many_ranges_cost_nothing(service, count, statuses):
    ranges = ",".join(f"{i % 50}-{i % 50}" for i in range(count))
    request = head(
        "GET",
        "/v1/models/people/versions/1/checkpoint",
        f"Range: bytes={ranges}",
        "Connection: close",
    )
    began = time.monotonic()
    answer = talk(service.port, [request])
    assert answer.status in statuses
    assert len(answer.body) < 1 << 20
    assert time.monotonic() - began < 60


def dataset_ids(service: Service) -> list[str]:
    with service.client() as client:
        return [item["id"] for item in client.get("/v1/datasets").json()["items"]]
