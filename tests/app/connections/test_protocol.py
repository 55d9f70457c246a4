import json
import socket
import time

import pytest

from app.connections.receiving.framing import MAX_HEADERS


def talk(
    server: str, *pieces: bytes, wait_s: float = 120.0, pause_s: float = 0.0
) -> tuple[int, bytes, float]:
    """Status, body, and seconds until the server closed the connection."""
    host, port = server.removeprefix("http://").split(":")
    began = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        received = b""
        try:
            while data := connection.recv(65536):
                received += data
        except ConnectionResetError:
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body, time.monotonic() - began


def slug_of(body: bytes) -> str:
    return str(json.loads(body)["type"]).removeprefix("/problems/")


def test_slow_headers_are_given_up(server):
    status, body, seconds = talk(server, b"GET /livez HTTP/1.1\r\nHost: x\r\nA:")
    assert (status, slug_of(body)) == (408, "header-timeout")
    assert seconds < 60


def test_a_silent_connection_is_given_up(server):
    assert talk(server)[0] == 408


def test_a_slow_body_is_given_up(server):
    request = b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 99\r\n\r\na,b"
    status, body, seconds = talk(server, request)
    assert (status, slug_of(body)) == (408, "body-timeout")
    assert seconds < 60


@pytest.mark.parametrize(
    "headers",
    [
        b"A: " + b"x" * 1_000_000 + b"\r\n",
        b"".join(b"A%d: x\r\n" % i for i in range(MAX_HEADERS + 1)),
    ],
)
def test_too_many_and_too_large_headers_are_refused(server, headers):
    status, body, _ = talk(server, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
    assert (status, slug_of(body)) == (431, "limit-headers")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"nonsense\r\n\r\n",
    ],
)
def test_ambiguous_requests_are_refused(server, head):
    status, body, _ = talk(server, head)
    assert (status, slug_of(body)) == (400, "bad-request")


def test_a_bad_chunk_has_no_effect(server):
    head = b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert talk(server, head + b"zz\r\nabc\r\n")[0] == 400


def test_a_body_shorter_than_declared_has_no_effect(server):
    listing = b"GET /v1/datasets HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    _, before, _ = talk(server, listing)
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Content-Length: 99\r\n\r\na,b\n1,2\n3,5\n4,9\n"
        )
    time.sleep(0.3)
    assert talk(server, listing)[1] == before


def test_many_idle_connections_do_not_keep_others_out(server):
    host, port = server.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(200)]
    try:
        status, _, seconds = talk(
            server, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
    finally:
        for connection in idle:
            connection.close()
    assert status == 200
    assert seconds < 60


def test_headers_in_single_bytes_are_the_same_headers(server):
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    status, body, _ = talk(server, *[request[i : i + 1] for i in range(len(request))])
    assert (status, body) == (200, b'{"status":"ok"}')
