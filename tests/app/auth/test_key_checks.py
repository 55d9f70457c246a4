"""Requests whose key is revoked while they are being served."""

import asyncio

import pytest

from app.auth import key_checks
from app.auth.key_checks import Lease, Leases
from app.problems.problem import Problem

START = {"type": "http.response.start", "status": 200, "headers": []}
MORE = {"type": "http.response.body", "body": b"1", "more_body": True}
LAST = {"type": "http.response.body", "body": b""}


class Line:
    """A connection that may be broken off, and lets nothing pass while its caller does not read."""

    def __init__(self):
        self.broken_off = False
        self.read, self.gone = asyncio.Event(), asyncio.Event()

    def break_off(self):
        self.broken_off = True
        self.gone.set()

    async def send(self, message):
        if message is not START:
            await self.read.wait()


def outcome(messages, *, told=False, reads=False):
    """Tell whether a connection was broken off after the end of a key, before or after a farewell."""

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


@pytest.mark.parametrize("last", [MORE, LAST])
def test_what_a_slow_caller_has_not_read_is_broken_off_at_once(last):
    assert outcome([START, last]) == (True, True)


@pytest.mark.parametrize("last", [MORE, LAST])
def test_a_stream_may_say_why_before_it_is_broken_off(last):
    assert outcome([START, last], told=True) == (False, True)


@pytest.mark.parametrize("told", [False, True])
def test_what_has_not_begun_or_is_complete_keeps_its_connection(told):
    assert outcome([], told=told) == (False, False)
    assert outcome([START, MORE, LAST], told=told, reads=True) == (False, False)


class Revoked:
    """Keys, none of which is valid."""

    async def identify(self, authorization):
        raise Problem("unauthorized", str(authorization))


class Failing(Line):
    """A connection that cannot be broken off."""

    def break_off(self):
        raise OSError


def test_keys_are_checked_for_ever_though_the_end_of_a_request_fails(monkeypatch):
    monkeypatch.setattr(key_checks, "_LOOK_S", 0.0)

    async def main():
        leases = Leases(Revoked())  # type: ignore[arg-type]  # it has what leases need
        checks = asyncio.create_task(leases.run())
        failing, line = Failing(), Line()
        with (
            leases.lease([b"1"], failing) as first,  # type: ignore[arg-type]  # as above
            leases.lease([b"2"], line) as second,  # type: ignore[arg-type]  # as above
        ):
            for lease, at in ((first, failing), (second, line)):
                at.read.set()
                await lease.sending(at.send)(START)
            broken_off = asyncio.create_task(line.gone.wait())
            await asyncio.wait({checks, broken_off}, return_when=asyncio.FIRST_COMPLETED)
        checks.cancel()
        broken_off.cancel()
        return line.broken_off

    assert asyncio.run(main())
