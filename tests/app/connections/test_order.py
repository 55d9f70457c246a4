"""Connections that come behind a crowd of another caller's are served before most of it."""

import asyncio
import socket
from contextlib import ExitStack

import pytest
import uvicorn
from uvicorn.server import ServerState

from app.connections.groups import ConnectionGroups
from app.connections.protocol import READS, READS_EACH, BoundedProtocol
from app.connections.request_heads import likely_caller
from app.fairness.pace import Pace

CROWD = 100


def request(path, *lines):
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def key(name):
    return f"Authorization: Bearer {name}"


async def order_of(requests):
    """Paths in the order in which their requests begin; all have come before the first one does."""
    begun, all_begun = list[str](), asyncio.Event()

    async def app(scope, _receive, send):
        begun.append(scope["path"])
        if len(begun) == len(requests):
            all_begun.set()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    class Protocol(BoundedProtocol):
        open_connections = ConnectionGroups(1_000)
        pace = Pace(each=READS_EACH, most=READS)

    config = uvicorn.Config(app, log_config=None)
    config.load()
    state = ServerState()
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0), backlog=1_000) as listening:
        for text in requests:
            client = stack.enter_context(socket.create_connection(listening.getsockname()))
            client.sendall(text)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Protocol(config=config, server_state=state, app_state={}), sock=listening
        )
        await all_begun.wait()
        server.close()
    while state.connections:  # noqa: ASYNC110 - nobody tells when they have seen the clients leave
        await asyncio.sleep(0)
    return begun


@pytest.mark.fault(317)
@pytest.mark.parametrize(
    ("path", "lines"), [("/livez", []), ("/readyz", []), ("/v1/models", [key("few")])]
)
def test_fault_317_who_comes_last_does_not_wait_for_a_crowd_with_one_key(path, lines):
    crowd = [request("/v1/jobs", key("many"))] * CROWD
    begun = asyncio.run(order_of([*crowd, request(path, *lines)]))
    assert len(begun) == CROWD + 1
    assert begun.index(path) < CROWD // 4


def test_one_caller_is_served_in_the_order_of_arrival():
    paths = [f"/{number}" for number in range(CROWD)]
    begun = asyncio.run(order_of([request(path, key("many")) for path in paths]))
    assert begun == paths


def test_the_likely_caller_is_told_by_the_key_or_else_by_the_first_line():
    assert likely_caller(request("/a", key("x"))) == likely_caller(request("/b", "A: b", key("x")))
    assert likely_caller(request("/a", key("x"))) != likely_caller(request("/a", key("y")))
    assert likely_caller(b"GET / HTTP/1.1\r\nAUTHORIZATION:  Bearer x\r\n\r\n") == likely_caller(
        request("/", key("x"))
    )
    assert likely_caller(request("/livez")) != likely_caller(request("/readyz"))
    assert likely_caller(b"GET /livez HTTP/1.1") == likely_caller(request("/livez", "A: b"))
