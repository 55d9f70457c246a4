"""Listeners of one socket in one event loop, each with connections of its own."""

import asyncio
import os
import resource
import socket
import warnings
from contextlib import ExitStack

import pytest
import uvicorn
import uvloop

from app.connections.groups import ConnectionGroups
from app.connections.protocol import BoundedProtocol
from app.server.connection_shares import ConnectionShares
from app.server.shared_listener import SharedListener


class Process:
    """Side of a process: its listener, its connections and its row."""

    def __init__(self, sock, file, index):
        config = uvicorn.Config(
            print, interface="asgi3", lifespan="off", ws="none", log_config=None
        )
        config.load()
        state = uvicorn.Server(config).server_state
        self.open = ConnectionGroups(1_000)

        class Protocol(BoundedProtocol):
            open_connections = self.open
            header_timeout_s = 600.0

        self.shares = ConnectionShares(file, index=index)
        self.listener = SharedListener(
            socket.fromfd(sock.fileno(), sock.family, sock.type),
            lambda: Protocol(config, state, {}),
            shares=self.shares,
            open_connections=self.open,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "connections"
    ConnectionShares.create(file, processes=2)
    return file


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
            return new

        yield connect


def run(main):
    """Run a test; what it leaves open is no error, with which the loop would never close."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        uvloop.run(main())


async def until(condition):
    while not condition():  # noqa: ASYNC110 - there is nothing that tells
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("number", [8, 16, 40, 400])
def test_connections_opened_at_once_are_shared_evenly(sock, file, connect, number):
    async def main():
        with Process(sock, file, 0) as first, Process(sock, file, 1) as second:
            for _ in range(2):
                clients = connect(number)
                await until(lambda: len(first.open) + len(second.open) == number)
                assert min(len(first.open), len(second.open)) >= 0.4 * number
                for client in clients:
                    client.close()
                await until(lambda: len(first.open) + len(second.open) == 0)

    run(main)


def test_the_share_of_one_that_died_or_hangs_is_taken_by_the_other(sock, file, connect):
    async def main():
        with Process(sock, file, 0) as process:
            ConnectionShares(file, index=1).tell(2)  # its last word
            connect(40)
            await until(lambda: len(process.open) == 40)

    run(main)


def test_one_that_closes_leaves_what_comes_to_the_other(sock, file, connect):
    async def main():
        with Process(sock, file, 0) as staying:
            with Process(sock, file, 1) as leaving:
                connect(8)
                await until(lambda: len(staying.open) + len(leaving.open) == 8)
            kept = len(leaving.open)
            connect(40)
            await until(lambda: len(staying.open) + kept == 48)

    run(main)


def test_without_a_free_descriptor_connections_wait_and_others_are_not_waited_for(
    sock, file, connect
):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        with Process(sock, file, 0) as process:
            other = ConnectionShares(file, index=1)
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
