"""Reading from connections in the turn of their callers, and their end, which leaves nothing."""

import asyncio
import gc
import json
import socket
import weakref
from collections import Counter

import pytest
import uvicorn
import uvloop

from app.connections.groups import CONNECTION, ConnectionGroups
from app.connections.protocol import BoundedProtocol
from app.connections.receiving.reading import IDLE_ENDS, LATE_HEADS
from app.connections.unread import LingeringTransport
from app.fairness.pace import Pace

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Transport(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.reads = True

    def pause_reading(self):
        self.reads = False

    def resume_reading(self):
        self.reads = True

    def write(self, data):
        """Drop it."""

    def get_write_buffer_size(self):
        return 0

    def is_closing(self):
        return False


def test_a_connection_is_read_once_it_is_neither_held_nor_paused():
    inner = Transport()
    transport = LingeringTransport(inner, lambda: None)
    reads = []
    for change in (
        transport.pause_reading,
        transport.hold_reading,
        transport.resume_reading,
        transport.release_reading,
        transport.hold_reading,
        transport.pause_reading,
        transport.release_reading,
        transport.resume_reading,
    ):
        change()
        reads.append(inner.reads)
    assert reads == [False, False, False, True, False, False, False, True]


async def answer(_scope, _receive, send):
    """Answer 204, as an ASGI application."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def serving(application, pace, *, header_timeout_s=10.0, open_connections=None):
    """A server on a free port, and the port."""
    config = uvicorn.Config(
        application, interface="asgi3", lifespan="off", ws="none", log_config=None
    )
    config.load()
    state = uvicorn.Server(config).server_state

    class Protocol(BoundedProtocol):
        pass

    Protocol.pace, Protocol.header_timeout_s = pace, header_timeout_s
    groups = ConnectionGroups(100) if open_connections is None else open_connections
    Protocol.open_connections = groups
    Protocol.idle_ends = Pace(each=IDLE_ENDS, most=IDLE_ENDS)
    Protocol.late_heads = Pace(each=LATE_HEADS, most=LATE_HEADS)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def ended(server, groups):
    """End a server and its open connections."""
    server.close()
    for connection in list(groups._group_of):
        connection._transport._transport.abort()
    await asyncio.sleep(0.02)


class Iterations:
    """Number of the iteration of the event loop, and of the requests that began in each."""

    def __init__(self):
        self.number = 0
        self.begun = Counter[int]()

    async def count(self):
        while True:
            await asyncio.sleep(0)
            self.number += 1

    async def application(self, scope, receive, send):
        self.begun[self.number] += 1
        await answer(scope, receive, send)


def test_what_many_send_at_once_is_read_some_in_each_iteration():
    iterations = Iterations()

    async def main():
        server, port = await serving(iterations.application, Pace(each=2, most=2))
        counting = asyncio.create_task(iterations.count())
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        for _ in range(3):
            for _, writer in pairs:
                writer.write(GET)
            for reader, _ in pairs:
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        for _, writer in pairs:
            writer.close()
        counting.cancel()
        server.close()

    asyncio.run(main())
    assert iterations.begun.total() == 120
    assert max(iterations.begun.values()) <= 2


def test_more_connections_without_a_request_end_in_an_iteration_than_are_accepted(
    monkeypatch,
):
    iterations = Iterations()
    ends = Counter[int]()
    leave = BoundedProtocol._leave

    def counted(protocol, exc):
        ends[iterations.number] += 1
        leave(protocol, exc)

    monkeypatch.setattr(BoundedProtocol, "_leave", counted)

    async def main():
        server, port = await serving(answer, Pace(each=1, most=1))
        counting = asyncio.create_task(iterations.count())
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        for _, writer in opened:
            writer.transport.abort()
        async with asyncio.timeout(10):
            while ends.total() < len(opened):  # noqa: ASYNC110 - what is waited for is no event
                await asyncio.sleep(0)
        counting.cancel()
        server.close()

    asyncio.run(main())
    assert 16 < max(ends.values()) <= IDLE_ENDS


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_little_is_read_of_a_connection_that_waits_for_its_turn(monkeypatch, runner):
    waiting = Counter[BoundedProtocol]()
    take, leave = BoundedProtocol.data_received, BoundedProtocol._take
    most = []

    def data_received(protocol, data):
        waiting[protocol] += len(data)
        most.append(waiting[protocol])
        take(protocol, data)

    def taken(protocol, data):
        waiting[protocol] -= len(data)
        leave(protocol, data)

    monkeypatch.setattr(BoundedProtocol, "data_received", data_received)
    monkeypatch.setattr(BoundedProtocol, "_take", taken)
    body = b"x" * 200_000
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + body

    async def main():
        server, port = await serving(answer, Pace(each=1, most=1))
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
        for _, writer in pairs:
            writer.write(request)
        for reader, _ in pairs:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        for _, writer in pairs:
            writer.transport.abort()
        await asyncio.sleep(0.05)
        server.close()

    runner(main())
    assert sum(most) > len(body)
    assert max(most) <= 64 * 1024


@pytest.mark.long
def test_a_closed_connection_leaves_no_cycles():
    async def main():
        server, port = await serving(answer, Pace(each=1, most=1))

        async def visit(*, resets):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
            if resets:
                writer.transport.abort()
            else:
                writer.close()
            await asyncio.sleep(0.05)

        await visit(resets=False)
        gc.collect()
        gc.disable()
        for number in range(6):
            await visit(resets=number % 2 == 0)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        left = [item for item in gc.garbage if isinstance(item, BoundedProtocol)]
        gc.garbage.clear()
        gc.enable()
        server.close()
        return left

    assert asyncio.run(main()) == []


def test_what_is_sent_to_a_caller_who_left_is_dropped_before_that_is_its_turn():
    """The transport of uvloop raises once it is closed, which would be an error with a traceback."""
    ends: list[object] = []

    async def main():
        came, left = asyncio.Event(), asyncio.Event()
        connections = []

        async def slow(scope, receive, send):
            connections.append(scope["state"][CONNECTION])
            came.set()
            await left.wait()
            try:
                await answer(scope, receive, send)
            except RuntimeError as error:
                ends.append(error)
            ends.append(scope["state"][CONNECTION].lost)

        server, port = await serving(slow, Pace(each=2, most=2))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await came.wait()
        protocol = connections[0]
        type(protocol).pace = Pace(each=0, most=0)  # its turn does not come
        writer.close()
        while len(protocol.open_connections):  # noqa: ASYNC110 - there is nothing that tells
            await asyncio.sleep(0.001)
        left.set()
        while not ends:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
        server.close()

    uvloop.run(main())
    assert ends == [True]


@pytest.mark.parametrize("sent", [GET, GET[:-2]])
def test_a_head_that_came_in_time_and_waited_for_its_turn_is_not_called_late(sent):
    async def main():
        server, port = await serving(answer, Pace(each=0, most=0), header_timeout_s=0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        writer.close()
        server.close()
        return head, json.loads(body)["type"]

    head, kind = asyncio.run(main())
    assert head.startswith(b"HTTP/1.1 503")
    assert b"\r\nretry-after: 1\r\n" in head
    assert kind == "/problems/overloaded"


@pytest.mark.parametrize(
    "loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"]
)
def test_the_kernel_takes_little_of_a_response_that_nobody_reads(loop):
    """The rest waits where it counts, and where a caller who reads nothing is noticed."""
    sent = 0

    async def long(_scope, _receive, send):
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(200):
            sent += 2**16
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def main():
        server, port = await serving(long, Pace(each=2, most=2))
        with socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.setblocking(False)
            await asyncio.get_running_loop().sock_connect(caller, ("127.0.0.1", port))
            await asyncio.get_running_loop().sock_sendall(caller, GET)
            before = -1
            while before < sent or not sent:
                before = sent
                await asyncio.sleep(0.2)
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    assert sent <= 2**19


def test_nothing_is_kept_of_a_lost_connection_whose_data_wait_for_their_turn():
    connections = weakref.WeakSet[BoundedProtocol]()

    class Noted(ConnectionGroups):
        def put(self, connection, group):
            connections.add(connection)
            super().put(connection, group)

    async def main():
        groups = Noted(5)
        server, port = await serving(answer, Pace(each=0, most=0), open_connections=groups)
        writers = []
        for _ in range(20):  # each of which makes room for the next
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            writers.append(writer)
            await asyncio.sleep(0.02)
        gc.collect()
        kept = len(connections)
        for writer in writers:
            writer.transport.abort()
        await ended(server, groups)
        return kept

    assert asyncio.run(main()) == 5
