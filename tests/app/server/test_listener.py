"""Listeners of one socket in one event loop, each with connections of its own."""

import asyncio
import os
import resource
import socket
import struct
import sys
import warnings
from contextlib import ExitStack

import pytest
import uvicorn
import uvloop

from app.connections.arrivals import Arrivals
from app.connections.groups import ConnectionGroups
from app.connections.protocol import BoundedProtocol
from app.connections.receiving.reading import READS, READS_EACH
from app.fairness.pace import Pace
from app.server.connection_shares import ConnectionShares
from app.server.listener import AT_ONCE, Listener, open_listeners
from app.server.shared_memory import make_shared


class Process:
    """Side of a process: its listener, its connections and its row."""

    def __init__(self, sock, memory=None, index=0, reads=None):
        config = uvicorn.Config(
            print, interface="asgi3", lifespan="off", ws="none", log_config=None
        )
        config.load()
        state = uvicorn.Server(config).server_state
        self.open = ConnectionGroups(1_000)
        self.protocols = []

        class Protocol(BoundedProtocol):
            open_connections = self.open
            header_timeout_s = 600.0
            pace = reads or Pace(each=READS_EACH, most=READS)

        self.make_protocol = lambda: Protocol(config, state, {})
        self.shares = None if memory is None else ConnectionShares(memory, index=index)
        self.listener = Listener(
            [socket.fromfd(sock.fileno(), sock.family, sock.type)],
            self.make,
            shares=self.shares,
            open_connections=self.open,
            known_key=lambda header: header.decode() if header.startswith(b"Known") else None,
        )

    def make(self):
        self.protocols.append(self.make_protocol())
        return self.protocols[-1]

    @property
    def made(self):
        return len(self.protocols)

    def has_one_of(self, client):
        """Return whether the connection of a socket is open."""
        return any(open_.client == client.getsockname()[:2] for open_ in self.protocols)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


@pytest.fixture
def memory():
    memory = make_shared(ConnectionShares.size(2))
    yield memory
    os.close(memory)


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def sock(request):
    host = "127.0.0.1" if request.param == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=request.param, backlog=2048) as sock:
        yield sock


@pytest.fixture
def connect(sock):
    """Open connections at once; all are closed in the end."""
    with ExitStack() as opened:

        def connect(number):
            new = [socket.create_connection(sock.getsockname()[:2]) for _ in range(number)]
            for one in new:
                opened.callback(one.close)
                one.send(b"G")  # the kernel keeps one that is silent to itself for a second
            return new

        yield connect


def run(main):
    """Run a test; what it leaves open is no error, with which the loop would never close."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        uvloop.run(main())


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def was_closed(client):
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


async def until(condition):
    while not condition():  # noqa: ASYNC110 - there is nothing that tells
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("number", [8, 16, 40, 400])
def test_connections_opened_at_once_are_shared_evenly(sock, memory, connect, number):
    async def main():
        with Process(sock, memory, 0) as first, Process(sock, memory, 1) as second:
            for _ in range(2):
                clients = connect(number)
                await until(lambda: len(first.open) + len(second.open) == number)
                assert min(len(first.open), len(second.open)) >= 0.4 * number
                for client in clients:
                    client.close()
                await until(lambda: len(first.open) + len(second.open) == 0)

    run(main)


def test_the_share_of_one_that_died_or_hangs_is_taken_by_the_other(sock, memory, connect):
    async def main():
        with Process(sock, memory, 0) as process:
            ConnectionShares(memory, index=1).tell(2)  # its last word
            connect(40)
            await until(lambda: len(process.open) == 40)

    run(main)


def test_one_that_closes_leaves_what_comes_to_the_other(sock, memory, connect):
    async def main():
        with Process(sock, memory, 0) as staying:
            with Process(sock, memory, 1) as leaving:
                connect(8)
                await until(lambda: len(staying.open) + len(leaving.open) == 8)
            kept = len(leaving.open)
            connect(40)
            await until(lambda: len(staying.open) + kept == 48)

    run(main)


def test_without_a_free_descriptor_connections_wait_and_others_are_not_waited_for(
    sock, memory, connect
):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        with Process(sock, memory, 0) as process:
            other = ConnectionShares(memory, index=1)
            other.tell(1_000)
            assert other.room() == 0
            connect(1)
            free = os.dup(0)  # the lowest one
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            try:
                await until(lambda: other.room() > 0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await until(lambda: len(process.open) == 1)
            assert other.room() == 0

    run(main)


def test_what_was_accepted_before_the_descriptors_ran_out_begins(sock, connect):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        connect(3)
        with Process(sock) as process:
            free = [os.dup(0) for _ in range(2)]  # the lowest ones
            for descriptor in free:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1] + 1, limits[1]))
            try:
                await until(lambda: len(process.open) > 0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await until(lambda: len(process.open) == 3)

    run(main)


def test_connections_that_were_reset_while_they_waited_cost_nothing_more(sock, connect):
    """Fault 690: each was made ready for requests, sixteen an iteration, before who came next."""

    async def main():
        for client in connect(300):
            reset(client)
        connect(1)
        with Process(sock) as process:
            await until(lambda: len(process.open) == 1)
            assert process.made == 1

    run(main)


def test_connections_that_ended_without_a_byte_cost_nothing_more(sock, connect):
    async def main():
        for _ in range(300):
            socket.create_connection(sock.getsockname()[:2]).close()
        connect(1)
        with Process(sock) as process:
            await until(lambda: len(process.open) == 1)
            assert process.made == 1

    run(main)


def test_nobody_waits_behind_the_connections_of_another_address(connect, sock):
    if sock.family == socket.AF_INET6:
        pytest.skip("IPv6 has one address on the loopback interface")

    async def main():
        connect(300)
        address = sock.getsockname()
        with socket.create_connection(address, source_address=("127.0.0.9", 0)) as other:
            other.send(b"G")
            with Process(sock) as process:
                await until(lambda: process.has_one_of(other))
                assert process.made < 100

    run(main)


def test_nor_behind_those_of_another_key_at_the_same_address(connect, sock):
    async def main():
        connect(300)
        with socket.create_connection(sock.getsockname()[:2]) as other:
            other.send(b"GET / HTTP/1.1\r\nAuthorization: Known\r\n")
            with Process(sock) as process:
                await until(lambda: process.has_one_of(other))
                assert process.made < 100

    run(main)


def test_few_begin_before_what_they_sent_has_its_turn(connect, sock):
    async def main():
        clients = connect(100)
        with Process(sock, reads=Pace(each=0, most=0)) as process:  # nobody's turn
            await until(lambda: process.made == AT_ONCE)
            for _ in range(100):
                await asyncio.sleep(0)
            assert process.made == AT_ONCE
            for client in clients[:50]:  # those that began, and others that wait
                reset(client)
        assert process.made == AT_ONCE + 50  # what was accepted is served

    run(main)


def test_those_that_wait_for_their_turn_keep_no_other_caller_from_beginning(connect, sock):
    async def main():
        connect(100)
        with Process(sock, reads=Pace(each=0, most=0)) as process:  # nobody's turn
            await until(lambda: process.made == AT_ONCE)
            with socket.create_connection(sock.getsockname()[:2]) as other:
                other.send(b"GET / HTTP/1.1\r\nAuthorization: Known\r\n")
                await until(lambda: process.has_one_of(other))
            assert process.made == AT_ONCE + 1

    run(main)


def test_what_was_reset_takes_no_room_while_it_waits(connect, sock):
    arrivals = Arrivals(lambda _header: None, most=1_000)
    for round_ in range(20):
        clients = connect(50)
        for _ in clients:
            arrivals.put(*sock.accept())
        for client in clients:
            reset(client)
        assert len(arrivals) < 200, round_
    while (place := arrivals.next_place(())) is not None:
        assert arrivals.take(place) is None


def test_nobody_waits_in_the_kernel_behind_those_of_another_caller(connect, sock):
    async def main():
        many = connect(600)  # half as many as may be open wait
        with socket.create_connection(sock.getsockname()[:2]) as other:
            other.send(b"GET / HTTP/1.1\r\nAuthorization: Known\r\n")
            with Process(sock, reads=Pace(each=0, most=0)) as process:  # nobody's turn
                await until(lambda: process.has_one_of(other))
                assert process.made == AT_ONCE + 1
                closed = sum(map(was_closed, many))
                assert 600 - AT_ONCE - 500 <= closed <= 600 + 1 - 500

    run(main)


def test_a_burst_loses_none_and_a_crowd_those_that_came_first(connect, sock, monkeypatch):
    arrivals = Arrivals(lambda _header: None, most=8)
    crowd = connect(12)

    def put(number):
        for _ in range(number):
            arrivals.put(*sock.accept())

    def take():
        place = arrivals.next_place(())
        assert place is not None
        taken = arrivals.take(place)
        assert taken is not None
        taken.close()

    put(8)
    assert arrivals.room() == 0  # the others wait in the kernel for now
    monkeypatch.setattr("app.connections.arrivals._FULL_S", -1.0)  # it lasts
    assert arrivals.room() == 8
    put(4)
    assert [was_closed(one) for one in crowd] == [True] * 4 + [False] * 8
    while len(arrivals) > 4:
        assert arrivals.room() == 8
        take()
    assert arrivals.room() == 4
    connect(4)
    put(3)
    assert arrivals.room() == 1
    while arrivals:
        take()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked for this on Linux alone")
def test_connections_on_which_nothing_came_are_never_seen(sock, connect):
    """Fault 690."""

    async def main():
        with Process(sock) as process:
            for _ in range(3_000):  # more than the kernel keeps for the process
                reset(socket.create_connection(sock.getsockname()[:2]))
            connect(1)
            await until(lambda: len(process.open) == 1)
            assert process.made == 1

    run(main)


def test_a_silent_connection_is_accepted_in_the_end(sock):
    async def main():
        with Process(sock) as process, socket.create_connection(sock.getsockname()[:2]):
            await until(lambda: len(process.open) == 1)

    run(main)


def test_all_addresses_of_a_host_are_listened_on(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    known = [(socket.AF_INET, host) for host in ("127.0.0.1", "127.0.0.2", "192.0.2.1")]
    found = [(family, socket.SOCK_STREAM, 6, "", (host, port)) for family, host in known]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with ExitStack() as opened:
        sockets = open_listeners("some-host", port)
        for listening in sockets:
            opened.enter_context(listening)
        assert [one.getsockname()[0] for one in sockets] == ["127.0.0.1", "127.0.0.2"]
        with pytest.raises(OSError, match="in use"):
            open_listeners("some-host", port)
    found[:] = found[2:]
    with pytest.raises(OSError, match="assign"):
        open_listeners("some-host", port)
