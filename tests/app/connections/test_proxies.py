"""Attacks on the framing of requests, straight and through real proxies that share connections.

Others ask on the same connections meanwhile: each must get the answer to its own request.
"""

import itertools
import json
import select
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import httpx2
import pytest

from tests.http_attacks import SCORE, attack
from tests.proxies import HAPROXY, NGINX, haproxy_before, nginx_before
from tests.raw_http import CutOffError, answers_in, connected

ROWS = [[171.5, 68.2, 33.0], [180.1, 80.9, 51.0], [160.2, 55.0, 20.5]]
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="needs HAProxy")


def port_of(server: str) -> int:
    return int(server.rpartition(":")[2])


@pytest.fixture(params=["straight", "haproxy", "nginx", "streaming nginx"])
def front(request: pytest.FixtureRequest, server: str) -> Iterator[str]:
    """The address that callers see."""
    if request.param == "straight":
        yield server
    elif request.param == "haproxy":
        if HAPROXY is None:
            pytest.skip("needs HAProxy")
        with haproxy_before(port_of(server)) as port:
            yield f"http://127.0.0.1:{port}"
    else:
        if NGINX is None:
            pytest.skip("needs nginx")
        with nginx_before(port_of(server)) as nginx:
            port = nginx.buffering if request.param == "nginx" else nginx.streaming
            yield f"http://127.0.0.1:{port}"


class Callers:
    """Who asks for what everybody may, and checks that it gets that."""

    def __init__(self, front: str) -> None:
        self._front = front
        self._ended = Event()
        self._threads = ThreadPoolExecutor(3)
        with httpx2.Client(base_url=front, timeout=60) as client:
            self._expected = [self._score(client, rows, f"first-{rows}") for rows in range(3)]

    def __enter__(self) -> "Callers":
        self._running = [self._threads.submit(self._ask, number) for number in range(3)]
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for running in self._running:
            assert running.result() > 0
        self._threads.shutdown()

    def _ask(self, number: int) -> int:
        with httpx2.Client(base_url=self._front, timeout=60) as client:
            for count in itertools.count():
                if self._ended.is_set():
                    return count
                rows = (number + count) % 3
                own = f"caller-{number}-{count}"
                # Rows of several callers are computed together, in another order of sums.
                assert self._score(client, rows, own) == pytest.approx(self._expected[rows])
        return 0

    @staticmethod
    def _score(client: httpx2.Client, rows: int, own: str) -> list[float]:
        body = json.dumps({"rows": [ROWS[rows]]})
        headers = {"Content-Type": "application/json", "X-Request-ID": own}
        answer = client.post(SCORE.decode(), content=body, headers=headers)
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, own), answer.text
        scores: list[float] = answer.json()["log_prob"]
        return scores


def answered(front: str, pieces: Sequence[bytes]) -> bytes:
    """What comes back until the connection is closed, or nothing has come since the first answer."""
    came = b""
    with connected(front) as connection, suppress(ConnectionError, TimeoutError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            select.select([connection], [], [], 0.03)  # the server reads it, or even answers
        connection.settimeout(10)
        while piece := connection.recv(1 << 16):
            came += piece
            connection.settimeout(0.15)
    return came


def check(front: str, seed: int) -> str | None:
    """What is wrong with the answers to an attack."""
    sent = attack(seed)
    came = answered(front, sent.pieces)
    if sent.hidden is not None and sent.hidden.encode() in came:
        return f"{sent.name}: the hidden request was served: {came!r}"
    try:
        method = sent.pieces[0].split(b" ")[0].decode("latin-1")
        answers = answers_in(came, [method])
    except CutOffError:
        return None  # the time was too short
    except (AssertionError, KeyError, ValueError):
        return None if sent.hidden is None else f"{sent.name}: no HTTP: {came!r}"
    final = [answer.status for answer in answers if answer.status >= 200]
    if sent.hidden is not None and len(final) > 1:
        return f"{sent.name}: {len(final)} answers: {came!r}"
    if any(status == 500 for status in final):
        return f"{sent.name}: {came!r}"
    return None


def attack_all(front: str, seeds: range) -> list[str]:
    with Callers(front), ThreadPoolExecutor(8) as threads:
        return [wrong for wrong in threads.map(lambda seed: check(front, seed), seeds) if wrong]


@pytest.mark.long
def test_every_answer_belongs_to_its_request(front):
    assert attack_all(front, range(120)) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_answer_belongs_to_its_request_at_length(front):
    assert attack_all(front, range(1_000, 11_000)) == []


@needs_haproxy
@pytest.mark.parametrize("gap_s", [0.0, 0.05])
def test_nobody_gets_the_answer_to_a_request_that_another_one_hid(server, gap_s):
    """What is hidden takes a while to serve: whoever comes next on the connection would get it."""
    body = b'{"n": 200000}'
    hidden = (
        b"POST /v1/models/people/sample HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"X-Request-ID: hidden\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    head = (
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Connection: Upgrade\r\nUpgrade: anything\r\nContent-Length: %d\r\n\r\n"
        % (SCORE, len(hidden))
    )
    got = []
    with haproxy_before(port_of(server), connections=1) as port:
        front = f"http://127.0.0.1:{port}"
        for number in range(8):
            with connected(front) as attacker:
                attacker.sendall(head)
                time.sleep(gap_s)
                attacker.sendall(hidden)
                attacker.recv(1 << 16)
                headers = {"X-Request-ID": f"victim-{number}"}
                answer = httpx2.get(front + "/livez", headers=headers, timeout=60)
                got.append((answer.headers.get("x-request-id"), answer.content))
    assert got == [(f"victim-{number}", b'{"status":"ok"}') for number in range(8)]
