"""Group D: callers who send or read slowly, or not at all. They are given up; others are served."""

import itertools
import resource
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flows import MafSpec
from tests.app.serving import registered
from tests.faults.invariants import MIB, resident_bytes
from tests.faults.service import MAX_CONNECTIONS, ROWS, Service
from tests.faults.wire import connect, drip, head, receive, seconds_held, talk
from tests.waiting import wait_until

GIVEN_UP_S = 60.0
LENGTH = "Content-Length: 500000"
JSON = "Content-Type: application/json"


def in_flight(service: Service) -> int:
    """Requests that are being served, without the one that asks."""
    with service.client() as client:
        lines = client.get("/metrics").text.splitlines()
    line = next(line for line in lines if line.startswith("densityd_http_requests_in_flight "))
    return int(float(line.split()[-1])) - 1


def at_once(attack: Callable[..., Any], cases: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """What comes of every case; all of them wait for their time-outs together."""
    with ThreadPoolExecutor(len(cases)) as pool:
        futures = {name: pool.submit(attack, *case) for name, case in cases.items()}
    return {name: future.result() for name, future in futures.items()}


def trickle(service: Service, start: bytes, piece: bytes) -> tuple[int, str, bool]:
    """Status and slug of the answer, and whether it came in time."""
    pieces = itertools.chain([start], drip(piece, every_s=0.2, for_s=2 * GIVEN_UP_S))
    answer = talk(service.port, pieces)
    return answer.status, answer.slug, answer.seconds < GIVEN_UP_S


def test_headers_that_trickle_are_given_up(service):
    start = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
    cases = {
        "headers": (service, start, b"A: x\r\n"),
        "bytes": (service, start + b"A: ", b"x"),
        "line ends": (service, b"", b"\r\n"),
        "path": (service, b"GET /", b"x"),
    }
    assert at_once(trickle, cases) == dict.fromkeys(cases, (408, "header-timeout", True))


def test_bodies_that_trickle_are_given_up(service):
    def start(path: str, media_type: str, body: bytes) -> bytes:
        return head("POST", path, f"Content-Type: {media_type}", LENGTH) + body

    log_prob = "/v1/models/people/log_prob"
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
    starts = {
        "table": start("/v1/datasets", "text/csv", b"a,b\n"),
        "form": start("/v1/datasets", "multipart/form-data; boundary=x", form),
        "job": start("/v1/jobs/training", "application/json", b"{"),
        "rows": start(log_prob, "application/json", b'{"rows": [[1'),
        "rows of text": start(log_prob, "text/csv", b"height,weight,age\n"),
    }
    cases = {name: (service, start, b"1") for name, start in starts.items()}
    assert at_once(trickle, cases) == dict.fromkeys(cases, (408, "body-timeout", True))


def test_what_nobody_reads_does_not_hold_a_connection(service):
    requests = {
        "no route": (head("POST", "/v1/nowhere", LENGTH), b"1"),
        "no body wanted": (head("GET", "/livez", LENGTH), b"1"),
        "no method": (head("PUT", "/v1/datasets", LENGTH), b"1"),
        "line ends after an answer": (head("GET", "/livez"), b"\r\n"),
    }
    cases = {name: (service.port, *case, 2 * GIVEN_UP_S) for name, case in requests.items()}
    held_s = at_once(seconds_held, cases)
    assert {name: s for name, s in held_s.items() if s > GIVEN_UP_S} == {}


@pytest.mark.parametrize("close", [True, False], ids=["close", "keep-alive"])
def test_a_reader_who_takes_nothing_of_a_huge_sample_is_given_up(service, close):
    before = resident_bytes(service.pid)
    body = b'{"n": 50000000, "seed": 1}'
    headers = [JSON, "Accept: text/csv", f"Content-Length: {len(body)}"]
    request = head("POST", "/v1/models/people/sample", *headers, *["Connection: close"] * close)
    with connect(service.port) as connection:
        connection.sendall(request + body)
        assert connection.recv(1 << 12).startswith(b"HTTP/1.1 200")
        most = 0

        def gone() -> bool:
            nonlocal most
            most = max(most, resident_bytes(service.pid))
            return in_flight(service) == 0

        wait_until(gone, within_s=120, what="the sample is still being sent")
        assert most - before < 50 * MIB
        assert not receive(connection, 0.0).body.endswith(b"0\r\n\r\n")


@pytest.mark.slow
def test_a_reader_who_takes_nothing_of_a_file_is_given_up(service):
    version = registered(
        service.database, service.blobs, name="large", spec=MafSpec(layers=2, hidden=[1600, 1600])
    )
    assert version.checkpoint_bytes > 15 * MIB
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", service.port))
        connection.sendall(head("GET", "/v1/models/large/versions/1/checkpoint"))
        assert connection.recv(1 << 10).startswith(b"HTTP/1.1 200")
        wait_until(
            lambda: in_flight(service) == 0, within_s=120, what="the file is still being sent"
        )
        assert len(receive(connection, 0.0).body) < version.checkpoint_bytes - MIB


def test_a_thousand_idle_connections_keep_nobody_out(service):
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(1_000, MAX_CONNECTIONS - 100, soft - 200)
    idle = [connect(service.port) for _ in range(number)]
    try:
        for connection in idle[::2]:
            connection.sendall(head("GET", "/livez"))
        before = service.log_prob("others")
        body = head("POST", "/v1/models/people/log_prob", JSON, f"Content-Length: {len(ROWS)}")
        answer = talk(
            service.port, [body.replace(b"Host: x", b"Host: x\r\nConnection: close") + ROWS]
        )
        assert answer.status == 200
        assert service.log_prob("others") == before
    finally:
        for connection in idle:
            connection.close()
