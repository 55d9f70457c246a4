"""A link passes bytes on both ways, until it is told to fail."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.chaos.network import Link, Network
from tests.waiting import wait_until


class UnixEcho(socketserver.ThreadingUnixStreamServer):
    """Answers each piece, keeps all pieces, and notes when no more come."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.heard: list[bytes] = []
        self.path = path
        super().__init__(str(path), Echo)


class Echo(socketserver.BaseRequestHandler):
    server: UnixEcho

    def handle(self) -> None:
        with suppress(OSError):
            while piece := self.request.recv(1024):
                self.server.heard.append(piece)
                self.request.sendall(piece)
        self.server.heard.append(b"")


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[UnixEcho]:
    server = UnixEcho(tmp_path / "echo")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def heard(echo: UnixEcho) -> list[bytes]:
    return echo.heard


@pytest.fixture
def link(echo: UnixEcho) -> Iterator[Link]:
    network = Network()
    yield network.link("echo", echo.path)
    network.close()


@pytest.fixture
def wire(link: Link) -> Iterator[socket.socket]:
    with closing(connected(link)) as wire:
        wire.sendall(b"a")
        assert wire.recv(9) == b"a"
        yield wire


def connected(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=20)


def ended(wire: socket.socket) -> bool:
    try:
        return wire.recv(9) == b""
    except ConnectionResetError:
        return True


def test_an_end_is_passed_on_both_ways(wire, heard):
    wire.shutdown(socket.SHUT_WR)
    assert wire.recv(9) == b""
    wait_until(lambda: heard == [b"a", b""])


def test_a_cut_ends_the_connection_and_lets_another_through(link, wire, heard):
    link.cut()
    assert ended(wire)
    wait_until(lambda: b"" in heard)
    with closing(connected(link)) as other:
        other.sendall(b"b")
        assert other.recv(9) == b"b"


def test_refused_connections_end_at_once_and_only_for_a_while(link, wire):
    link.refuse(0.5)
    assert ended(wire)
    with closing(connected(link)) as other:
        assert ended(other)

    def passes() -> bool:
        with closing(connected(link)) as third:
            try:
                third.sendall(b"c")
                return third.recv(9) == b"c"
            except OSError:
                return False

    wait_until(passes)


def test_what_is_stalled_comes_later_and_whole(link, wire):
    link.stall(0.5)
    wire.settimeout(0.1)
    wire.sendall(b"b")
    with pytest.raises(TimeoutError):
        wire.recv(9)
    wire.settimeout(20)
    assert wire.recv(9) == b"b"


def test_lost_answers_are_of_requests_that_arrived(link, wire, heard):
    link.lose_answers(0.5)
    wire.sendall(b"b")
    wait_until(lambda: b"b" in heard)
    assert ended(wire)


def test_a_half_closed_connection_takes_requests_and_gives_no_answers(link, wire, heard):
    link.close_half()
    assert wire.recv(9) == b""
    wire.sendall(b"b")
    wait_until(lambda: b"b" in heard)


def test_without_a_target_connections_end(tmp_path):
    network = Network()
    link = network.link("nothing", tmp_path / "nothing")
    with closing(connected(link)) as wire:
        assert ended(wire)
    network.close()
