"""The edge of a real server: large bodies, upgrades, stops, framings."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest
import uvicorn

from app.main import create_app
from app.server.http_protocol import HttpProtocol
from app.settings import ApiSettings
from tests.api.conftest import JSON, served
from tests.support.servers import free_port, tied
from tests.support.waiting import wait_until

ROWS = json.dumps({"rows": [[171.5, 68.2, 33.0]]}).encode()
UPLOAD = "/v1/datasets"
LIVE = b'{"status":"ok"}'


class Lingering(HttpProtocol):
    """The protocol with more time for a first request at the end than a test needs."""

    linger_s = 60.0


@contextmanager
def running(settings: ApiSettings, protocol: type[HttpProtocol]) -> Iterator[uvicorn.Server]:
    config = uvicorn.Config(
        create_app(settings),
        port=free_port(),
        http=protocol,
        loop="uvloop",
        ws="none",
        log_config=None,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        yield connection


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def up_to(connection: socket.socket, part: bytes) -> bytes:
    """What comes up to a part of it."""
    got = b""
    while part not in got:
        piece = connection.recv(1 << 16)
        assert piece, got
        got += piece
    return got


def to_the_end(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    pieces = []
    with suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    return b"".join(pieces)


def stop(server: uvicorn.Server) -> None:
    """Let a server stop, and wait until it listens no more."""
    server.should_exit = True
    wait_until(lambda: not server.servers[0].sockets)


def test_a_first_request_that_a_stop_overtakes_is_answered(settings):
    with running(settings, Lingering) as server, connected(server.config.port) as connection:
        wait_until(lambda: server.server_state.connections)
        stop(server)
        connection.sendall(head("GET", "/livez"))
        assert up_to(connection, LIVE).startswith(b"HTTP/1.1 200 ")


def test_silent_connections_do_not_keep_a_server_from_stopping(settings):
    with running(settings, HttpProtocol) as server, connected(server.config.port) as silent:
        wait_until(lambda: server.server_state.connections)
        stop(server)
        assert to_the_end(silent) == b""


@pytest.mark.parametrize("declared", [True, False])
def test_of_a_body_that_is_too_large_the_refusal_arrives(server, declared):
    size = 40 << 20
    framing = f"Content-Length: {size}" if declared else "Transfer-Encoding: chunked"
    piece = bytes(1 << 20)
    with connected(port_of(server)) as connection:
        connection.sendall(
            head("POST", "/v1/jobs/training", "Content-Type: application/json", framing)
        )
        for _ in range(size >> 20):
            connection.sendall(piece if declared else b"%x\r\n%b\r\n" % (len(piece), piece))
        if not declared:
            connection.sendall(b"0\r\n\r\n")
        assert up_to(connection, b"/problems/limit-body").startswith(b"HTTP/1.1 413 ")
        connection.sendall(head("GET", "/livez"))  # nothing of the body was taken for a request
        assert b"HTTP/1.1 200 " in up_to(connection, LIVE)


@pytest.mark.parametrize("together", [True, False])
def test_an_upgrade_has_no_effect_on_the_body_behind_it(server, together):
    """Such as that which Java's client asks for."""
    hop = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIA"]
    asked = head(
        "POST",
        "/v1/models/people/log_prob",
        "Content-Type: application/json",
        f"Content-Length: {len(ROWS)}",
        *hop,
    )
    with connected(port_of(server)) as connection:
        for _ in range(2):
            for piece in [asked + ROWS] if together else [asked, ROWS]:
                connection.sendall(piece)
            assert up_to(connection, b'"log_prob"').startswith(b"HTTP/1.1 200 ")
        connection.sendall(head("GET", "/livez", *hop, "Connection: close"))
        assert to_the_end(connection).startswith(b"HTTP/1.1 200 ")


def test_a_tunnel_and_two_framings_are_refused_and_nothing_behind_them_is_served(server):
    framings = head("POST", UPLOAD, "Content-Length: 4", "Transfer-Encoding: chunked")
    for sent in (head("CONNECT", "a:1"), framings + b"0\r\n\r\n"):
        with connected(port_of(server)) as connection:
            connection.sendall(sent + head("GET", "/livez"))
            answers = to_the_end(connection)
        assert answers.startswith(b"HTTP/1.1 400 ")
        assert answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.slow
def test_several_processes_serve_a_port_and_end_together(data_dir):
    with served(data_dir, DENSITYD_API_PROCESSES="2") as url:
        score = f"{url}/v1/models/people/log_prob"
        for _ in range(40):
            scored = httpx.post(score, content=ROWS, headers=JSON, timeout=60)
            assert scored.status_code == 200
        metrics = httpx.get(f"{url}/metrics", timeout=60).text
    line = next(text for text in metrics.splitlines() if "log_prob" in text and "_total" in text)
    assert float(line.split()[-1]) == 40


@pytest.mark.parametrize("proxy", [pytest.param("true", marks=pytest.mark.slow), "false"])
def test_a_start_on_another_address_without_a_proxy_warns_once(data_dir, proxy):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        variables = {
            "DENSITYD_DATA_DIR": str(data_dir),
            "DENSITYD_HOST": "0.0.0.0",  # noqa: S104 - which cannot be listened on here
            "DENSITYD_PORT": str(taken.getsockname()[1]),
            "DENSITYD_ALLOW_ANONYMOUS": "true",
            "DENSITYD_BEHIND_PROXY": proxy,
        }
        start = subprocess.run(  # noqa: S603 - our own module
            tied(sys.executable, "-P", "-m", "app"),
            env=os.environ | variables,
            capture_output=True,
            check=False,
        )
    assert start.returncode == 1
    assert start.stderr.count(b"put one before it") == (proxy == "false")
