"""Callers who do not read the end of their responses, which the kernel does not take either."""

import asyncio

import pytest

from tests.app.connections.line import SlowLine, answer, connecting, run

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
SMALL, LARGE = 40_000, 100_000  # below and above what a caller is told to be slow for


def answering(size):
    """An application whose responses have so many bytes."""

    async def application(_scope, _receive, send):
        await answer(send, b"x" * size)

    return application


@pytest.mark.parametrize(
    "parts",
    [
        [GET],
        [LAST],
        [GET, 1.0, GET[:9]],
        [GET, 1.0, b"\r\n"],
        [GET, 1.0, b"what is no request\r\n\r\n"],
        [POST + b"Content-Length: 9\r\n\r\n", 1.0, b"x"],
        [POST + b"Content-Length: 9\r\n\r\n", *[1.0, b"x"] * 9],
        [POST + b"Transfer-Encoding: chunked\r\n\r\n", 1.0, b"1\r\nx\r\n" * 2000],
    ],
    ids=["idle", "last", "head", "line", "error", "body", "whole body", "chunks"],
)
def test_nobody_keeps_a_connection_who_does_not_read(parts):
    async def main():
        protocol, line = connecting(answering(SMALL), line_of=SlowLine)(*parts)
        await asyncio.sleep(300)
        return line.unread, line.lost, len(protocol.open_connections)

    assert run(main()) == (0, True, 0)


def test_nobody_keeps_a_connection_who_reads_all_but_the_last_bytes():
    async def main():
        _, line = connecting(answering(LARGE), line_of=SlowLine)(LAST)
        await asyncio.sleep(1)
        line.read(LARGE - 10_000)
        await asyncio.sleep(300)
        return line.lost

    assert run(main())


@pytest.mark.parametrize("parts", [[GET], [GET, 1.0, GET[:9]]], ids=["idle", "head"])
def test_a_connection_that_makes_room_does_not_wait_for_its_caller(parts):
    async def main():
        protocol, line = connecting(answering(SMALL), line_of=SlowLine)(*parts)
        await asyncio.sleep(2)
        assert protocol.open_connections.make_room()
        await asyncio.sleep(1)
        return line.lost

    assert run(main())


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_who_reads_slowly_gets_all_of_the_last_response(size):
    async def main():
        _, line = connecting(answering(size), line_of=SlowLine)(LAST)
        await asyncio.sleep(1)
        while line.unread:
            assert not line.lost
            line.read(min(1024, line.unread))
            await asyncio.sleep(0.9)

    run(main())
