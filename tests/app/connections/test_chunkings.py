"""Answers to requests that come one after the other are those to each alone, however they are cut."""

import asyncio
from hashlib import sha256
from random import Random

import pytest

from app.connections.groups import CONNECTION
from app.fairness.pace import Pace
from tests.app.connections.line import answer, answers, connecting, read, run

SIZES = [0, 1, 5, 100, 1000, 5000, 20_000, 70_000, 200_000]


async def digest(scope, receive, send):
    """Answer with the path and the hash of the body, in one of several ways that the path tells of."""
    _, kind, how, _ = scope["path"].split("/")
    if "a" in how:
        scope["state"][CONNECTION].assign(f"key {how}")
    if "w" in how:
        await asyncio.sleep(7)
    if "i" in how:
        await asyncio.sleep(0)
    content = ""
    if kind == "read":
        content = sha256(await read(receive)).hexdigest()
    elif kind == "begin":
        await receive()
    await answer(send, f"{scope['path']} {content}".encode())


def request(random, number, kinds):
    """A request with a body in one of the codings, some of which is in very small chunks."""
    how = "".join(letter for letter in "awi" if random.random() < 0.3)
    kind = random.choice(kinds)
    body = random.randbytes(random.choice(SIZES))
    lines = [b"POST /%b/%b/%d HTTP/1.1" % (kind.encode(), how.encode(), number), b"Host: x"]
    lines += [b"Upgrade: h2c\r\nConnection: Upgrade"] * (random.random() < 0.1)
    lines += [b"Expect: 100-continue"] * (random.random() < 0.1)
    head = b"\r\n".join([b""] * (random.random() < 0.05) + lines)
    if random.random() < 0.5:
        return head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    smallest = 5 if kind == "read" else 4000
    most = random.choice([smallest, 64, 4000, 100_000])
    chunks, at = [], 0
    while at < len(body):
        size = max(smallest, random.randint(most // 2, most))
        chunk, at = body[at : at + size], at + size
        extension = b";a=b" * (random.random() < 0.01)
        chunks.append(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk))
    trailer = b"X: y\r\n" * (random.random() < 0.1)
    return (
        head
        + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(chunks)
        + b"0\r\n%b\r\n" % trailer
    )


def cut(random, data, *, pauses):
    """The same bytes in parts, with pauses between some of them."""
    sizes = random.choice([[len(data)], [len(data) // 3 + 1], [1, 2, 10, 1000, 65536], [3000]])
    if len(data) < 3000:
        sizes.append(1)
    parts, at = [], 0
    while at < len(data):
        size = random.randint(1, random.choice(sizes))
        parts.append(data[at : at + size])
        at += size
        if pauses and random.random() < 0.02:
            parts.append(random.choice([0.001, 0.5, 2.0]))
    return parts


async def sent_for(parts, pace):
    """All that a connection sends for some parts, and whether it is closed then."""
    _, line = connecting(digest, pace)(*parts)
    await asyncio.sleep(300)
    return answers(line.sent)


@pytest.mark.parametrize("kinds", [["read"], ["read", "begin", "ignore"]], ids="-".join)
def test_requests_are_answered_as_if_each_came_alone_and_whole(kinds):
    for seed in range(150):
        random = Random(seed)  # noqa: S311 - of cases
        requests = [request(random, number, kinds) for number in range(random.randint(1, 6))]
        parts = cut(random, b"".join(requests), pauses=kinds == ["read"])
        each = random.choice([1, 2])
        alone = [run(sent_for([one], Pace(each=2, most=64))) for one in requests]
        found = run(sent_for(parts, Pace(each=each, most=each)))
        assert found == [answered for [answered] in alone], seed


async def patient(scope, receive, send):
    """Answer as `digest`, or after a while that the body did not come."""
    try:
        async with asyncio.timeout(40):
            await digest(scope, receive, send)
    except TimeoutError:
        await answer(send, status=408)


def end(how, protocol, line):
    """End a connection in one of the ways in which it may end, if it has not ended yet."""
    if line.closed:
        return
    if how == "left":
        protocol.eof_received()
        line.close()
    elif how == "lost":
        line.close()
    elif how == "dropped":
        protocol.open_connections.remove(protocol)
        protocol.drop()
    elif how == "broken off":
        protocol.break_off()
    elif how == "stopped":
        protocol.shutdown()


async def left_of_a_connection(random, how):
    """End a connection some time after it began; return what is left of it in the end."""
    requests = [request(random, number, ["read", "begin", "ignore"]) for number in range(3)]
    data = b"".join(requests)[: random.randint(1, 400_000)]
    pace = Pace(each=1, most=random.choice([1, 64]))
    protocol, line = connecting(patient, pace)(*cut(random, data, pauses=True))
    await asyncio.sleep(random.choice([0, 0.1, 3, 6, 11, 20]))
    for number in range(random.choice([0, 40])):
        pace.begin(f"another {number % 7}", lambda: None)
    for _ in range(random.randint(0, 4)):
        await asyncio.sleep(0)
    end(how, protocol, line)
    await asyncio.sleep(300)
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # of asyncio's
    timers = [timer for timer in scheduled if not timer.cancelled()]
    known = len(protocol.open_connections), len(protocol.lingering)
    return line.closed, *known, len(protocol.connections), len(protocol.tasks), timers


@pytest.mark.parametrize("how", ["left", "lost", "dropped", "broken off", "stopped", "late"])
def test_nothing_is_left_of_a_connection_whenever_it_ends(how):
    for seed in range(25):
        random = Random(seed)  # noqa: S311 - of cases
        assert run(left_of_a_connection(random, how)) == (True, 0, 0, 0, 0, []), seed


@pytest.mark.parametrize("others", [0, 3000])
def test_chunks_behind_a_body_that_nobody_read_are_taken_in_their_order(others):
    bodies = []
    digits = b"".join(b"%06d" % number for number in range(24_000))
    small = b"".join(b"6\r\n%b\r\n" % digits[at : at + 6] for at in range(0, len(digits), 6))
    first = b"POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n"
    second = b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def application(scope, receive, send):
        for _ in range(5):
            await asyncio.sleep(0)  # its key is looked at
        scope["state"][CONNECTION].assign(f"key of {scope['path']}")
        if scope["path"] == "/read":
            bodies.append(await read(receive))
        await answer(send)

    async def main():
        pace = Pace(each=1, most=1)
        _, line = connecting(application, pace)(first + b"x" * 10)
        await asyncio.sleep(0.1)
        for _ in range(others):  # pieces of work of another caller
            pace.begin("another", lambda: None)
        line.feed(b"x" * 2990 + second + small + b"0\r\n\r\n")
        await asyncio.sleep(1)
        return answers(line.sent)

    assert run(main()) == [(200, b"")] * 2
    assert bodies == [digits]
