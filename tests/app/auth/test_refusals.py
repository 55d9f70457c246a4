"""Refusals by a route wait like those at the door, before the route has read anything."""

import asyncio
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Scope

from app.auth.open_requests import OpenBound
from app.auth.rates import Refusals
from app.datasets.upload_routes import Sender
from app.problems import problem
from app.problems.problem import Problem
from app.server.event_hub import EventFeed
from models_store.errors import LimitError
from tests.app.conftest import CSV, TABLE


class TooMuchWorkError(Exception):
    """Something was read for a request that is refused."""


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Statuses of the answers that waited, if they are refusals."""
    statuses: list[int] = []

    async def pause(_self: Refusals, _scope: Scope, status: int) -> None:
        statuses.append(status)

    monkeypatch.setattr(Refusals, "pause", pause)
    return statuses


@pytest.fixture
def full(monkeypatch):
    """Every bound but that of requests is reached, and reading anything is an error."""

    def check(bound, _caller):
        if bound._what != "requests":
            raise Problem("limit-open-requests")

    def read(*_args, **_options):
        raise TooMuchWorkError

    monkeypatch.setattr(OpenBound, "check", check)
    monkeypatch.setattr(EventFeed, "read", read)
    monkeypatch.setattr(Sender, "room", read)


@pytest.mark.usefixtures("full")
def test_a_stream_or_an_upload_too_many_is_refused_before_anything_is_read(client, paused):
    stream = client.get("/v1/jobs/job_0/events")
    upload = client.post("/v1/datasets", content=TABLE, headers=CSV)
    assert [stream.status_code, upload.status_code] == [429, 429]
    assert stream.headers["retry-after"]
    assert paused == [429, 429]


def test_a_refusal_of_the_database_waits_too(client, paused, monkeypatch):
    def room(*_args, **_options):
        raise LimitError("limit-queued-jobs", "Too many.")

    monkeypatch.setattr(Sender, "room", room)
    upload = client.post("/v1/datasets", content=TABLE, headers=CSV)
    assert upload.status_code == 429
    assert paused == [429]


@pytest.mark.usefixtures("full")
def test_no_upload_leaves_a_file_when_it_is_refused(client, blobs):
    for _ in range(3):
        assert client.post("/v1/datasets", content=TABLE, headers=CSV).status_code == 429
    assert [path for path in Path(blobs.root).rglob("*") if ".upload" in path.name] == []


def test_a_refusal_that_is_passed_on_is_not_kept_by_its_own_frames():
    refusal = Problem("limit-body")
    with pytest.raises(Problem) as raised:
        asyncio.run(problem._on_problem(Request({"type": "http"}), refusal))
    kept = [frame.frame.f_locals.get("error") for frame in raised.traceback[1:]]
    assert refusal not in kept


def test_all_addresses_of_an_ipv6_network_wait_together():
    async def waits(addresses):
        refusals = Refusals()
        for address in addresses:
            await refusals.pause({"client": (address, 1), "state": {}}, 401)
        return len(refusals._next)

    assert asyncio.run(waits(f"2001:db8::{n:x}" for n in range(20))) == 1
    assert asyncio.run(waits(f"192.0.2.{n}" for n in range(20))) == 20
