"""Bounds on what a connection keeps, reads and waits for while its requests are served."""

import asyncio

import pytest

from app.connections.receiving.reading import LATE_HEADS
from app.fairness.pace import Pace
from tests.app.connections.line import Line, answer, answers, connecting, read, run

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"%x\r\n%b\r\n" % (60_000, b"x" * 60_000)


async def reading(_scope, receive, send):
    await read(receive)
    await answer(send)


async def refusing(_scope, _receive, send):
    await answer(send, status=401)


async def iterations(number):
    for _ in range(number):
        await asyncio.sleep(0)


def serving_for(seconds):
    """An application that answers after so many seconds."""

    async def application(_scope, _receive, send):
        await asyncio.sleep(seconds)
        await answer(send)

    return application


@pytest.mark.parametrize("application", [reading, refusing])
@pytest.mark.parametrize(
    "begin", [b"0\r\nX: ", b"0\r\n", b"1;"], ids=["value", "name", "extension"]
)
def test_a_large_body_does_not_pay_for_what_comes_behind_it(application, begin):
    async def main():
        _, line = connecting(application)(CHUNKED, *[LARGE] * 20, begin, *[b"y" * 8000] * 100)
        await asyncio.sleep(1)
        return line

    line = run(main())
    assert line.received < len(CHUNKED) + 20 * len(LARGE) + 2 * 64 * 1024 or line.half_closed
    assert [status for status, _ in answers(line.sent)] == [400 if application is reading else 401]


class LineFromElsewhere(Line):
    """Line of a caller at another address."""

    def get_extra_info(self, name, default=None):
        return ("198.51.100.1", 5) if name == "peername" else super().get_extra_info(name, default)


def test_one_caller_does_not_have_all_places_of_connections_that_close_slowly():
    begun = POST + b"Connection: close\r\nContent-Length: 1000\r\n\r\n"

    def line_of(parts):
        return LineFromElsewhere(parts) if parts[-1] == b"other" else Line(parts)

    async def main():
        connect = connecting(refusing, line_of=line_of)
        many = [connect(begun, b"x")[1] for _ in range(20)]
        await iterations(50)
        _, other = connect(begun, b"other")
        await iterations(50)
        return other, sum(line.half_closed and not line.closed for line in many)

    other, left = run(main())
    assert other.half_closed
    assert not other.closed
    assert [status for status, _ in answers(other.sent)] == [401]
    assert left == 5


def test_a_request_that_waited_for_its_turn_is_served_for_as_long_as_it_takes():
    async def main():
        goes_on = asyncio.Event()

        async def application(_scope, _receive, send):
            await goes_on.wait()
            await asyncio.sleep(8 if came else 0)
            await answer(send)

        came, pace = [], Pace(each=1, most=1)
        _, line = connecting(application, pace)(GET)
        await asyncio.sleep(1)
        for number in range(1000):
            pace.begin(f"another {number}", lambda: None)
        line.feed(GET)
        await iterations(10)
        goes_on.set()
        await iterations(10)
        assert line.received == 2 * len(GET)
        assert len(answers(line.sent)) == 1
        came.append(GET)
        await asyncio.sleep(20)
        return answers(line.sent)

    assert run(main()) == [(200, b"")] * 2


def test_a_connection_ends_that_sends_nothing_behind_a_body_that_nobody_read():
    async def main():
        head = POST + b"Content-Length: 2000\r\n\r\n"
        _, line = connecting(refusing)(head + b"x" * 1000, 1.0, b"x" * 1000)
        await asyncio.sleep(4)
        open_then = not line.closed
        await asyncio.sleep(60)
        return open_then, line.closed

    assert run(main()) == (True, True)


def test_the_rest_of_a_head_is_not_late_that_is_not_read_before_others_are_served():
    async def main():
        _, line = connecting(serving_for(12))(GET + GET + GET[:20], GET[20:])
        await asyncio.sleep(60)
        return answers(line.sent)

    assert run(main()) == [(200, b"")] * 3


def test_what_comes_behind_the_last_request_is_not_read_while_it_is_served():
    async def main():
        last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        _, line = connecting(serving_for(8))(last, *[b"x" * 60_000] * 100)
        await asyncio.sleep(1)
        came = line.received
        await asyncio.sleep(60)
        return came, answers(line.sent)

    came, answered = run(main())
    assert came < 200_000
    assert answered == [(200, b"")]


@pytest.mark.parametrize("sent", [GET, GET[:20], b"\r\n"], ids=["request", "part", "nothing"])
def test_a_request_that_waits_for_its_turn_is_answered_though_the_server_stops(sent):
    async def main():
        pace = Pace(each=1, most=1)
        for _ in range(100):
            pace.begin("another", lambda: None)
        protocol, line = connecting(reading, pace)(sent)
        await iterations(2)
        assert line.received > 0
        protocol.shutdown()
        await asyncio.sleep(2)
        return answers(line.sent), line.closed or line.half_closed

    answered, ends = run(main())
    assert answered == ([(200, b"")] if sent == GET else [])
    assert ends


def test_nothing_is_kept_of_a_body_whose_request_was_answered():
    async def main():
        head = POST + b"Content-Length: 1000000\r\n\r\n"
        protocol, line = connecting(refusing)(head + b"x" * 20_000)
        await asyncio.sleep(1)
        assert answers(line.sent) == [(401, b"")]
        return len(protocol.cycle.body)

    assert run(main()) == 0


def test_heads_that_are_late_at_once_are_refused_some_in_each_iteration():
    refused, in_one = [], []

    class LateLine(Line):
        def write(self, data):
            super().write(data)
            refused.append(self)
            if len(refused) == 1:  # what is called soon comes after all timers that have ended
                asyncio.get_running_loop().call_soon(lambda: in_one.append(len(refused)))

    async def main():
        connect = connecting(reading, line_of=LateLine)
        lines = [connect(GET[:-2], 11.0, b"\r\n")[1] for _ in range(100)]
        await asyncio.sleep(60)
        return [status for line in lines for status, _ in answers(line.sent)]

    assert run(main()) == [408] * 100
    assert in_one[0] <= 2 * LATE_HEADS  # with the turns that the next iteration begins with


def test_a_head_that_comes_before_its_refusal_has_its_turn_is_served():
    async def main():
        protocol, line = connecting(reading)(GET[:-2])
        crowded = type(protocol).late_heads = Pace(each=1, most=1)

        def come_late():
            for number in range(1000):
                crowded.begin(f"another {number}", lambda: None)
            line.feed(GET[-2:])

        # In the iteration in which the time is over, before that is noticed.
        asyncio.get_running_loop().call_at(protocol._header_timer.when() - 5e-10, come_late)
        await asyncio.sleep(60)
        return answers(line.sent)

    assert run(main()) == [(200, b"")]
