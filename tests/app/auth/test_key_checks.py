"""Requests whose key is revoked while they are being served."""

import asyncio

import pytest

from app.auth import key_checks
from app.auth.key_checks import Lease
from app.problems.problem import Problem

START = {"type": "http.response.start", "status": 200, "headers": []}
MORE = {"type": "http.response.body", "body": b"1", "more_body": True}
LAST = {"type": "http.response.body", "body": b""}


class Line:
    """A connection that may be broken off, and lets nothing pass while its caller does not read."""

    def __init__(self):
        self.broken_off = False
        self.read = asyncio.Event()

    def break_off(self):
        self.broken_off = True

    async def send(self, message):
        if message is not START:
            await self.read.wait()


def outcome(messages, *, told=False, reads=False):
    """Whether a connection is broken off after the end of a key, before or after a farewell."""

    async def main():
        line = Line()
        lease = Lease(line)  # type: ignore[arg-type]  # it has what a lease needs
        if told:
            lease.on_end(lambda: None)
        send = lease.sending(line.send)

        async def respond():
            for message in messages:
                await send(message)

        if reads:
            line.read.set()
        responding = asyncio.create_task(respond())
        await asyncio.sleep(0)
        lease.end(Problem("unauthorized", "Revoked."))
        at_once = line.broken_off
        await asyncio.sleep(0.01)
        responding.cancel()
        return at_once, line.broken_off

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def short_farewell(monkeypatch):
    monkeypatch.setattr(key_checks, "_FAREWELL_S", 0.0)


@pytest.mark.fault(480)
@pytest.mark.parametrize("last", [MORE, LAST])
def test_fault_480_what_a_slow_caller_has_not_read_is_broken_off_at_once(last):
    assert outcome([START, last]) == (True, True)


@pytest.mark.fault(480)
@pytest.mark.parametrize("last", [MORE, LAST])
def test_fault_480_a_stream_may_say_why_before_it_is_broken_off(last):
    assert outcome([START, last], told=True) == (False, True)


@pytest.mark.parametrize("told", [False, True])
def test_what_has_not_begun_or_is_complete_keeps_its_connection(told):
    assert outcome([], told=told) == (False, False)
    assert outcome([START, MORE, LAST], told=told, reads=True) == (False, False)
