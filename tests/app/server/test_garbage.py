"""When garbage is collected, and that requests leave none that only a full collection frees."""

import asyncio
import gc
import io
import json
import socket
import sys
import time
from collections import Counter

import numpy as np
import pytest
import uvicorn
from backports import zstd

from app.main import create_app
from app.serve import Server
from app.server import garbage
from app.server.garbage import GarbageCollection
from app.server.limits import resident_bytes, return_memory
from app.server.startup import Shutdown
from tests.app.serving import registered

JSON = "application/json"
NPY = "application/x-npy"
SCORE = "/v1/models/people/log_prob"
ROW = json.dumps({"rows": [[170.0, 70.0, 40.0]]}).encode()


def bomb():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((200_000, 3), np.float32))
    return zstd.compress(buffer.getvalue())


# Method, path, body, media type, content coding, status, and whether the caller leaves in the body.
REQUESTS = {
    "a score": ("POST", SCORE, ROW, JSON, "", 200, False),
    "bad JSON": ("POST", SCORE, b"{", JSON, "", 400, False),
    "a bomb": ("POST", SCORE, bomb(), NPY, "zstd", 413, False),
    "an unknown model": ("POST", "/v1/models/none/log_prob", ROW, JSON, "", 404, False),
    "an unknown route": ("GET", "/v1/none", b"", JSON, "", 404, False),
    "a list": ("GET", "/v1/jobs", b"", JSON, "", 200, False),
    "a HEAD": ("HEAD", "/v1/jobs", b"", JSON, "", 200, False),
    "a wrong method": ("PUT", "/v1/jobs", b"", JSON, "", 405, False),
    "a bad table": ("POST", SCORE, b"1,2,x\n", "text/csv", "", 422, False),
    "no Parquet": ("POST", SCORE, b"1,2", "application/vnd.apache.parquet", "", 415, False),
    "no Arrow": ("POST", SCORE, b"1,2", "application/vnd.apache.arrow.stream", "", 415, False),
    "a bad upload": ("POST", "/v1/datasets", b"a,b\n1", "text/csv", "", 422, False),
    "an upload cut off": ("POST", "/v1/datasets", b"a,b\n1", "text/csv", "", None, True),
    "JSON cut off": ("POST", SCORE, ROW[:5], JSON, "", None, True),
    "a table cut off": ("POST", SCORE, b"1,2,3\n", "text/csv", "", None, True),
    "a bomb cut off": ("POST", SCORE, bomb()[:20], NPY, "zstd", None, True),
}


async def ask(app, method, path, body, media_type, coding, leaves):
    """The status of a response; None if there is none."""
    messages = [{"type": "http.request", "body": body, "more_body": leaves}]
    statuses = []

    async def receive():
        if not messages and not leaves:
            await asyncio.Event().wait()
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message):
        statuses.extend([message["status"]] if "status" in message else [])

    headers = [(b"host", b"localhost"), (b"content-type", media_type.encode())]
    headers += [(b"content-encoding", coding.encode())] * bool(coding)
    headers += [(b"content-length", b"%d" % (len(body) + leaves))] * bool(body)
    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "state": {}}
    scope |= {"raw_path": path.encode(), "query_string": b"", "headers": headers, "scheme": "http"}
    scope |= {"client": ("127.0.0.1", 1), "server": ("localhost", 80), "root_path": ""}
    await asyncio.create_task(app(scope, receive, send))
    return statuses[0] if statuses else None


@pytest.mark.long
def test_no_request_leaves_cycles_that_only_a_full_collection_frees(settings):
    async def main():
        app = create_app(settings)
        left = {}
        async with app.router.lifespan_context(app):
            registered(app.state.database, app.state.blobs)
            for name, (method, path, body, media_type, coding, status, leaves) in REQUESTS.items():
                request = (method, path, body, media_type, coding, leaves)
                assert await ask(app, *request) == status, name  # what the first one makes stays
                await asyncio.sleep(0.05)
                gc.collect()
                gc.disable()
                for _ in range(5):
                    await ask(app, *request)
                await asyncio.sleep(0.05)
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                gc.set_debug(0)
                left[name] = Counter(type(item).__name__ for item in gc.garbage)["frame"]
                gc.garbage.clear()
                gc.enable()
        return left

    # What other tests have left is not looked through again for each request.
    gc.collect()
    gc.freeze()
    assert asyncio.run(main()) == dict.fromkeys(REQUESTS, 0)


@pytest.fixture
def collections(monkeypatch):
    """Collections that were made; many objects are there since the last one."""
    made = []
    monkeypatch.setattr(gc, "collect", lambda: made.append(1))
    monkeypatch.setattr(gc, "get_count", lambda: (0, 0, 10))
    return made


def test_garbage_is_collected_once_it_has_been_quiet_for_a_while(collections):
    connections = list(range(2_000))
    began = time.monotonic()
    collection = GarbageCollection(connections)
    assert not any(collection.look(began + second) for second in range(100))
    connections.clear()
    assert not any(collection.look(began + second) for second in range(100, 110))
    assert not collections
    assert sum(collection.look(began + second) for second in range(110, 150)) == 4
    assert len(collections) == 4


def test_after_a_long_collection_the_next_one_waits_longer(monkeypatch):
    def collect():
        end = time.thread_time() + 0.03
        while time.thread_time() < end:
            pass

    monkeypatch.setattr(gc, "collect", collect)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "get_count", lambda: (0, 0, 10))
    began = time.monotonic()
    collection = GarbageCollection([])
    assert sum(collection.look(began + second) for second in range(100)) in {2, 3}


@pytest.mark.parametrize("connections", [3, 2_000])
def test_what_a_long_collection_finds_in_use_is_excluded_from_the_next(monkeypatch, connections):
    done = []

    def collect():
        end = time.thread_time() + 0.03
        while time.thread_time() < end:
            pass
        done.append("collected")

    monkeypatch.setattr(gc, "collect", collect)
    monkeypatch.setattr(gc, "freeze", lambda: done.append("excluded"))
    collection = GarbageCollection(range(connections))
    began = time.monotonic()
    collection.look(began)
    assert collection.look(began + 601)
    assert done == ["collected", "excluded"][: 2 if connections == 3 else 1]


def test_what_a_server_is_made_of_is_excluded_when_it_starts(settings, monkeypatch):
    excluded = []

    async def startup(self, _sockets=None):
        self.servers = []

    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    monkeypatch.setattr(gc, "freeze", lambda: excluded.append(1))

    async def main():
        server = Server(create_app(settings), settings, Shutdown(), None)
        threshold = gc.get_threshold()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            await server.startup([listening])
            server._collecting.cancel()
            for listener in server.servers:
                listener.close()
        gc.set_threshold(*threshold)

    asyncio.run(main())
    assert excluded == [1]


def test_a_quiet_service_is_not_stopped_where_few_objects_were_made(collections, monkeypatch):
    monkeypatch.setattr(gc, "get_count", lambda: (700, 3, 9))
    began = time.monotonic()
    collection = GarbageCollection([])
    assert not any(collection.look(began + second) for second in range(590))
    assert collection.look(began + 601)  # in the end, whatever is there
    assert len(collections) == 1


def test_garbage_is_collected_in_the_end_though_it_never_gets_quiet(collections):
    began = time.monotonic()
    collection = GarbageCollection(range(2_000))
    for second in range(1_000):
        collection.look(began + second)
    assert len(collections) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no such pieces")
def test_memory_that_few_requests_leave_in_pieces_is_returned(monkeypatch):
    for name, seconds in {"_LOOK_S": 0.01, "_QUIET_S": 0, "_PAUSE_S": 0}.items():
        monkeypatch.setattr(garbage, name, seconds)
    monkeypatch.setattr(gc, "get_count", lambda: (700, 3, 9))  # few objects were made
    return_memory()  # what earlier tests left free would hold the blocks
    before = resident_bytes()
    threshold = gc.get_threshold()

    async def main():
        collecting = asyncio.create_task(GarbageCollection([]).run())
        blocks = [b"x" * (100_000 + place) for place in range(1_000)]
        kept = blocks[9::10]  # all over the heap, and on top of it
        full = resident_bytes()
        del blocks
        async with asyncio.timeout(60):
            while resident_bytes() > (before + full) / 2:  # noqa: ASYNC110 - the system tells nobody
                await asyncio.sleep(0.02)
        collecting.cancel()
        return full, kept

    try:
        full, _ = asyncio.run(main())
    finally:
        gc.set_threshold(*threshold)
    assert full > before + 90_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="as above")
def test_memory_is_returned_once_more_for_what_was_still_in_use(monkeypatch):
    monkeypatch.setattr(garbage, "_QUIET_S", 0)
    collection = GarbageCollection([])
    now = time.monotonic() + 10
    block = b"x" * (64 << 20)
    assert collection._has_grown(now)
    collection._note_return(now)
    del block
    assert not collection._has_grown(now + 9)
    assert collection._has_grown(now + 10)
    collection._note_return(now + 10)
    assert not collection._has_grown(now + 20)
