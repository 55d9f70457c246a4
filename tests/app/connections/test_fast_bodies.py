"""Bodies that come fast are passed on as a whole, of which all bytes count before they have come."""

import asyncio
from types import SimpleNamespace

import pytest
import uvicorn
from starlette.requests import Request
from uvicorn.server import ServerState

from app.auth.callers import ANYBODY
from app.connections.groups import ConnectionGroups
from app.connections.protocol import BoundedProtocol
from app.connections.receiving.reading import READS, READS_EACH
from app.fairness.pace import Pace
from app.http.body_memory import BodyMemory
from app.http.json_body import read_body
from app.problems.problem import Problem

BODY = bytes(range(256)) * 4096
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


class Reading:
    """Reading of a body by a route once some of it has come: its messages, and what it counts."""

    def __init__(self, after, *, max_bytes=2**30):
        self.memory = BodyMemory(max_bytes)
        self.asked, self.first = asyncio.Event(), asyncio.Event()
        self.sizes = list[int]()
        self.held = list[int]()
        self.body = b""
        self._after = after

    async def application(self, scope, receive, send):
        async def noted():
            if not self.asked.is_set():
                self.asked.set()
                self.held.append(self.memory.held)
            message = await receive()
            self.sizes.append(len(message["body"]))
            self.first.set()
            return message

        connection = scope["state"]["connection"]
        while len(connection.cycle.body) + connection._bodies._size < self._after:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
        scope["state"]["caller"] = ANYBODY
        scope["app"] = SimpleNamespace(state=SimpleNamespace(body_memory=self.memory))
        status = 204
        try:
            with self.memory.of("one").share() as share:
                self.body = await read_body(Request(scope, noted), limit=len(BODY), share=share)
        except Problem as problem:
            status = problem.type.status
        self.held.append(self.memory.held)
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body"})


async def read(reading, head, parts):
    """Send parts of a body, the second one once a route reads it, the third once it got something; a status."""

    class Protocol(BoundedProtocol):
        open_connections = ConnectionGroups(10)
        pace = Pace(each=READS_EACH, most=READS)

    config = uvicorn.Config(reading.application, interface="asgi3", log_config=None)
    config.load()
    loop, state = asyncio.get_running_loop(), ServerState()
    server = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        async with asyncio.timeout(20):
            writer.write(head)
            for part, event in zip(parts, (None, reading.asked, reading.first), strict=False):
                if event is not None:
                    await event.wait()
                writer.write(part)
                await writer.drain()
            return int((await reader.read())[9:12])
    finally:
        writer.close()
        server.close()


def run(after, head, parts, **options):
    """A body whose parts were sent, after its first bytes have come to a route; and the status."""

    async def main():
        reading = Reading(after, **options)
        return reading, await read(reading, head, parts)

    return asyncio.run(main())


@pytest.mark.parametrize("came", [len(BODY) // 8, len(BODY) // 5])
def test_a_body_that_comes_fast_is_one_message_and_counts_before_it_has_come(came, monkeypatch):
    monkeypatch.setattr(
        "app.connections.receiving.fast_bodies._WHOLE_S", 60.0
    )  # however slow the machine
    reading, status = run(came, HEAD, (BODY[:came], BODY[came:]))
    assert (reading.body, status) == (BODY, 204)
    assert reading.sizes == [len(BODY)]
    assert reading.held == [len(BODY), 0]


def test_a_body_of_which_less_than_an_eighth_has_come_counts_as_it_comes():
    came = len(BODY) // 8 - 1
    reading, status = run(came, HEAD, (BODY[:came], BODY[came:]))
    assert (reading.body, status) == (BODY, 204)
    assert len(reading.sizes) > 1
    assert reading.held == [0, 0]


def test_a_body_without_room_for_all_of_it_is_not_waited_for():
    came = len(BODY) // 5
    parts = BODY[:came], b"", BODY[came:]
    reading, status = run(came, HEAD, parts, max_bytes=2 * len(BODY) - 2)
    assert status == 503
    assert reading.sizes[0] == came
    assert reading.held == [0, 0]


def test_a_body_that_stops_coming_is_passed_on_and_no_longer_counts_as_a_whole():
    came = len(BODY) // 5
    reading, status = run(came, HEAD, (BODY[:came], b"", BODY[came:]))
    assert (reading.body, status) == (BODY, 204)
    assert reading.sizes[0] == came
    assert reading.held == [len(BODY), 0]


def test_thousands_of_small_chunks_are_the_same_body():
    small = BODY[:30_000]
    parts = b"".join(b"%x\r\n%b\r\n" % (3, small[at : at + 3]) for at in range(0, 30_000, 3))
    reading, status = run(0, CHUNKED, (parts + b"0\r\n\r\n",))
    assert (reading.body, status) == (small, 204)
