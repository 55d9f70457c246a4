"""Bodies in the smallest chunks take no longer than others before the event loop goes on."""

import asyncio
from collections import Counter
from statistics import median

import pytest

from app.connections.groups import ConnectionGroups
from app.connections.protocol import BoundedProtocol
from app.fairness.pace import Pace
from tests.app.connections.test_reading import Iterations, ended, serving

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMALL = b"5\r\n12345\r\n" * 50_000
END = b"0\r\n\r\n"
MOST = 4096  # chunks in an iteration; a read holds 25,000


class Bodies(Iterations):
    """Bodies that were received, and the chunks that were parsed in each iteration."""

    def __init__(self, monkeypatch, *, reads):
        super().__init__()
        self.chunks = Counter[int]()
        self.bodies = list[bytes]()
        self._reads = reads
        parse = BoundedProtocol.on_body

        def on_body(protocol, body):
            self.chunks[self.number] += 1
            parse(protocol, body)

        monkeypatch.setattr(BoundedProtocol, "on_body", on_body)

    async def application(self, scope, receive, send):
        body, more = b"", self._reads
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})


async def exchanged(bodies, sent, answers):
    """Send bytes, and return the heads of so many answers."""
    groups, pace = ConnectionGroups(100), Pace(each=1, most=1)
    server, port = await serving(bodies.application, pace, open_connections=groups)
    counting = asyncio.create_task(bodies.count())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    heads = [await reader.readuntil(b"\r\n\r\n") for _ in range(answers)]
    writer.transport.abort()
    await asyncio.sleep(0.05)  # the connection is lost on the other side, too
    counting.cancel()
    await ended(server, groups)
    return [head.partition(b"\r\n")[0] for head in heads]


@pytest.mark.parametrize(
    "before",
    [b"", POST + b"Content-Length: 3\r\n\r\nabc", POST + b"Content-Length: 0\r\n\r\n"],
    ids=["first", "after another body", "after an empty body"],
)
def test_a_body_in_small_chunks_is_parsed_some_at_a_time(monkeypatch, before):
    bodies = Bodies(monkeypatch, reads=True)
    answers = 1 + bool(before)
    heads = asyncio.run(exchanged(bodies, before + CHUNKED + SMALL + END, answers))
    assert heads == [b"HTTP/1.1 200 OK"] * answers
    assert bodies.bodies[-1] == b"12345" * 50_000
    assert max(bodies.chunks.values()) < MOST


def test_chunks_that_nobody_reads_are_parsed_no_more_and_the_answer_arrives(monkeypatch):
    bodies = Bodies(monkeypatch, reads=False)
    assert asyncio.run(exchanged(bodies, CHUNKED + SMALL * 10, 1)) == [b"HTTP/1.1 200 OK"]
    assert bodies.chunks.total() < 2 * MOST


def test_what_a_refused_connection_sends_is_read_in_its_turn(monkeypatch):
    reads = Counter[int]()
    bodies = Bodies(monkeypatch, reads=False)
    take = BoundedProtocol.data_received

    def data_received(protocol, data):
        reads[bodies.number] += 1
        take(protocol, data)

    monkeypatch.setattr(BoundedProtocol, "data_received", data_received)

    async def main():
        groups, pace = ConnectionGroups(100), Pace(each=1, most=1)
        server, port = await serving(bodies.application, pace, open_connections=groups)
        counting = asyncio.create_task(bodies.count())
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        for _, writer in pairs:
            writer.write(b"BAD\r\n\r\n" + b" " * 4_000_000)
        heads = [await reader.readuntil(b"\r\n\r\n") for reader, _ in pairs]
        drained = (writer.drain() for _, writer in pairs)
        await asyncio.gather(*drained, return_exceptions=True)
        for _, writer in pairs:
            writer.transport.abort()
        counting.cancel()
        await ended(server, groups)
        return heads

    heads = asyncio.run(main())
    assert {head.partition(b"\r\n")[0] for head in heads} == {b"HTTP/1.1 400 Bad Request"}
    assert median(reads.values()) <= 2
