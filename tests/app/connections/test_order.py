"""Connections that come behind a crowd of another caller's are served before most of it."""

import asyncio
import socket
from contextlib import ExitStack

import pytest
import uvicorn
from uvicorn.server import ServerState

from app.connections.groups import ConnectionGroups
from app.connections.protocol import BoundedProtocol
from app.connections.receiving.reading import READS, READS_EACH
from app.connections.receiving.request_heads import LIKELY_BYTES, likely_caller
from app.fairness.pace import Pace

CROWD = 100
KNOWN = {b"Bearer few": "key_few", b"Bearer many": "key_many"}


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

        @staticmethod
        def known_key(authorization):
            return KNOWN.get(authorization)

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


@pytest.mark.parametrize(
    ("path", "lines"), [("/livez", []), ("/readyz", []), ("/v1/models", [key("few")])]
)
def test_who_comes_last_does_not_wait_for_a_crowd_with_one_key(path, lines):
    crowd = [request("/v1/jobs", key("many"))] * CROWD
    begun = asyncio.run(order_of([*crowd, request(path, *lines)]))
    assert len(begun) == CROWD + 1
    assert begun.index(path) < CROWD // 4


@pytest.mark.parametrize(
    ("path", "lines"), [("/livez", []), ("/x/readyz", []), ("/v1/models", [key("few")])]
)
@pytest.mark.parametrize("with_keys", [True, False])
def test_who_comes_last_does_not_wait_for_a_crowd_that_never_looks_the_same(with_keys, path, lines):
    crowd = [
        request(f"/v1/jobs/{n}", *[key(f"forged-{n}")] if with_keys else []) for n in range(CROWD)
    ]
    begun = asyncio.run(order_of([*crowd, request(path, *lines)]))
    assert len(begun) == CROWD + 1
    assert begun.index(path) < CROWD // 4


def test_one_caller_is_served_in_the_order_of_arrival():
    paths = [f"/{number}" for number in range(CROWD)]
    begun = asyncio.run(order_of([request(path, key("many")) for path in paths]))
    assert begun == paths


def test_the_likely_caller_is_told_by_a_known_key_or_a_health_check():
    def likely(data):
        return likely_caller(data, KNOWN.get)

    assert likely(request("/a", key("few"))) == likely(request("/b", "A: b", key("few")))
    assert likely(request("/a", key("few"))) != likely(request("/a", key("many")))
    lower = b"GET / HTTP/1.1\r\nauthorization:  Bearer few\r\n\r\n"
    assert likely(lower) == likely(request("/", key("few")))
    assert likely(request("/livez")) != likely(request("/readyz"))
    assert likely(b"GET /livez HTTP/1.1") == likely(request("/livez", "A: b"))


def test_strangers_are_a_few_likely_callers_however_many_they_are():
    lines = ["/v1/jobs?{}", "/livez?{}", "/{}livez"]
    seen = {likely_caller(request(line.format(n)), KNOWN.get) for line in lines for n in range(999)}
    seen |= {likely_caller(request("/", key(f"forged-{n}")), KNOWN.get) for n in range(999)}
    assert len(seen) <= 8


def test_no_more_of_the_first_bytes_is_looked_through_than_may_have_a_key():
    long = b"GET " + b"/" * LIKELY_BYTES + b"livez HTTP/1.1\r\n\r\n"
    assert likely_caller(long, KNOWN.get) in range(8)
    assert likely_caller(request("/a/livez"), KNOWN.get) == b"livez"
