"""Listeners of one socket in one event loop, each with connections of its own."""

import asyncio
import os
import resource
import socket

import pytest
import uvicorn
import uvloop

from app.connections.groups import ConnectionGroups
from app.connections.protocol import BoundedProtocol
from app.server.connection_shares import ConnectionShares
from app.server.shared_listener import SharedListener


class Process:
    """What a process has: its listener, its connections and its row."""

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


def connected(sock, number):
    """Connections that were opened at once."""
    return [socket.create_connection(sock.getsockname()[:2]) for _ in range(number)]


async def until(condition):
    while not condition():  # noqa: ASYNC110 - there is nothing that tells
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("number", [8, 16, 40, 400])
def test_connections_opened_at_once_are_shared_evenly(sock, file, number):
    async def main():
        processes = [Process(sock, file, index) for index in range(2)]
        for _ in range(2):
            clients = connected(sock, number)
            await until(lambda: sum(len(process.open) for process in processes) == number)
            assert min(len(process.open) for process in processes) >= 0.4 * number
            for client in clients:
                client.close()
            await until(lambda: not any(len(process.open) for process in processes))
        for process in processes:
            process.listener.close()

    uvloop.run(main())


def test_the_share_of_one_that_died_or_hangs_is_taken_by_the_other(sock, file):
    async def main():
        process = Process(sock, file, 0)
        ConnectionShares(file, index=1).tell(2)  # its last word
        clients = connected(sock, 40)
        await until(lambda: len(process.open) == 40)
        process.listener.close()
        for client in clients:
            client.close()

    uvloop.run(main())


def test_one_that_closes_leaves_what_comes_to_the_other(sock, file):
    async def main():
        staying, leaving = [Process(sock, file, index) for index in range(2)]
        clients = connected(sock, 8)
        await until(lambda: len(staying.open) + len(leaving.open) == 8)
        leaving.listener.close()
        kept = len(leaving.open)
        clients += connected(sock, 40)
        await until(lambda: len(staying.open) + kept == 48)
        staying.listener.close()
        for client in clients:
            client.close()
        await until(lambda: len(staying.open) + len(leaving.open) == 0)

    uvloop.run(main())


def test_without_a_free_descriptor_connections_wait_and_others_are_not_waited_for(sock, file):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main():
        process = Process(sock, file, 0)
        other = ConnectionShares(file, index=1)
        other.tell(1_000)
        assert other.room() == 0
        clients = connected(sock, 1)
        free = os.dup(0)  # the lowest one
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            await until(lambda: other.room() > 0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await until(lambda: len(process.open) == 1)
        assert other.room() == 0
        process.listener.close()
        clients[0].close()

    uvloop.run(main())
