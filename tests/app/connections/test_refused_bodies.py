"""Answers that end before the body has come: they arrive, with whatever library they are awaited."""

import http.client
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections import deque
from contextlib import ExitStack

import pytest

from tests.faults.wire import drip
from tests.raw_http import answers_in, connected, exchange, received

LARGE = b" " * 24_000_000  # more than any buffer of a socket, and than the limit of JSON
JSON = {"Content-Type": "application/json"}
SCORE = "/v1/models/people/log_prob"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (SCORE, JSON, 413),
        (SCORE, {"Content-Type": "text/plain"}, 415),
        ("/v1/nothing", JSON, 404),
        ("/v1/datasets/ds_0", JSON, 405),
        (SCORE, {**JSON, "Content-Length": "24000000", "Host": "a b"}, 400),
    ],
    ids=["too large", "of a wrong type", "to nowhere", "of a wrong method", "of a bad head"],
)
def test_urllib_gets_every_answer(server, path, headers, status):
    """It says `Connection: close`, and sends all of the body before it reads."""
    got = []
    for _ in range(40):
        request = urllib.request.Request(server + path, LARGE, headers, method="POST")  # noqa: S310
        with pytest.raises(urllib.error.HTTPError) as answer:
            urllib.request.urlopen(request, timeout=60)  # noqa: S310 - the address is our own
        with answer.value as problem:
            got.append((problem.status, len(problem.read()) > 0))
    assert got == [(status, True)] * 40


def test_a_body_of_unknown_length_is_answered_too(server):
    for _ in range(10):
        connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=60)
        pieces = (LARGE[:1_000_000] for _ in range(24))
        connection.request("POST", SCORE, pieces, {**JSON, "Connection": "close"})
        answer = connection.getresponse()
        assert (answer.status, len(answer.read()) > 0) == (413, True)
        connection.close()


def test_a_connection_goes_on_after_a_body_that_nobody_read(server):
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=60)
    for _ in range(3):
        connection.request("POST", SCORE, LARGE, {"Content-Type": "text/plain"})
        answer = connection.getresponse()
        assert (answer.status, len(answer.read()) > 0) == (415, True)
        port = connection.sock.getsockname()[1]
        connection.request("GET", "/livez")
        assert connection.getresponse().read() == b'{"status":"ok"}'
        assert connection.sock.getsockname()[1] == port
    connection.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
def test_curl_gets_every_answer(server, tmp_path, expect):
    (tmp_path / "body").write_bytes(LARGE)
    for _ in range(5):
        command = ["curl", "-s", "-o", str(tmp_path / "answer"), "-w", "%{http_code}", "-H", expect]
        command += ["-H", "Content-Type: application/json", "-H", "Connection: close"]
        command += ["--data-binary", f"@{tmp_path / 'body'}", server + SCORE]
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)  # noqa: S603
        assert done.stdout == b"413"


def test_the_rest_of_a_refused_body_is_bounded_in_time(server):
    """The server waits for a second for what comes next, and resets the connection then."""
    with connected(server) as connection:
        connection.sendall(
            b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Length: 1000000000\r\n\r\n"
        )
        raw = received(connection)
        assert answers_in(raw)[0].status == 404
        drops = drip(b"x", every_s=1.5, for_s=60)
        with pytest.raises(ConnectionError):
            deque(map(connection.sendall, drops), maxlen=0)


def test_lingering_connections_do_not_keep_others_out(server):
    refused = b"GET /livez HTTP/1.1\r\n\r\n"
    with ExitStack() as stack:
        sockets = [stack.enter_context(connected(server)) for _ in range(300)]
        for connection in sockets:
            connection.sendall(refused)
        assert {answers_in(received(connection))[0].status for connection in sockets} == {400}
        last = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert exchange(server, last)[0].status == 200


def test_a_refused_connection_ends_when_the_caller_ends_it(server):
    with connected(server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        assert received(connection)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
