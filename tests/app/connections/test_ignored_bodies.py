"""A request that waits to be refused keeps nothing of its body, and its connection goes on afterwards."""

import asyncio
import time

import uvicorn
from uvicorn.server import ServerState

from app.auth.rates import Refusals
from app.connections.groups import CONNECTION, ConnectionGroups, group_of_address
from app.connections.protocol import BoundedProtocol
from app.connections.receiving.reading import READS, READS_EACH
from app.fairness.pace import Pace

BODY = b" " * 8_000_000
FEW = 64 * 1024
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)
GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def kept_of_a_body(*, waits):
    """Bytes of a body that are kept when its refusal waits and when it ends, and what the caller gets."""
    refusals, kept = Refusals(), list[int]()

    async def app(scope, _receive, send):
        connection = scope["state"][CONNECTION]
        if scope["method"] == "POST":
            while len(connection.cycle.body) < FEW:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.001)
            kept.append(len(connection.cycle.body))
            if waits:
                refusals._next[group_of_address(scope["client"])] = time.monotonic() + 0.3
            await refusals.pause(scope, 401)
            kept.append(len(connection.cycle.body))
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body"})

    class Protocol(BoundedProtocol):
        open_connections = ConnectionGroups(10)
        pace = Pace(each=READS_EACH, most=READS)

    config = uvicorn.Config(app, log_config=None)
    config.load()
    loop, state = asyncio.get_running_loop(), ServerState()
    server = await loop.create_server(
        lambda: Protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(POST + BODY + GET)
    async with asyncio.timeout(60):
        answers = await reader.read()
    writer.close()
    server.close()
    return kept, answers.count(b"HTTP/1.1 401")


def test_who_waits_to_be_refused_keeps_nothing_of_the_body():
    (before, after), answers = asyncio.run(kept_of_a_body(waits=True))
    assert (before >= FEW, after, answers) == (True, 0, 2)


def test_who_is_refused_at_once_goes_on_as_well():
    _, answers = asyncio.run(kept_of_a_body(waits=False))
    assert answers == 2
