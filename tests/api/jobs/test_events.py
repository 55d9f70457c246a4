import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from app.auth.callers import ANYBODY
from app.jobs import events
from app.jobs.events import EventFeed, stream_events
from app.limits import Caller as KeyHolder
from app.problems.problem import Problem
from app.root_path import RootPathMiddleware
from app.server.event_hub import EventHub
from models_store.job_states import Job
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from tests.api.conftest import assert_refused
from tests.store.makers import LEASE_S, PROJECT, claimed, submitted
from tests.support.waiting import until, wait_until

pytestmark = pytest.mark.anyio


class Keys:
    """Keys of callers, which are valid until they are revoked."""

    def __init__(self) -> None:
        self.revoked = False

    async def identify(self, _authorization: list[bytes], _scope: Any) -> KeyHolder:
        if self.revoked:
            raise Problem("unauthorized")
        return ANYBODY


def run(jobs: Jobs, work: JobWork, *, epochs: int) -> Job:
    """A job that runs and has done some epochs."""
    submitted(jobs)
    job = claimed(work)
    for epoch in range(1, epochs + 1):
        record(work, job, epoch)
    return job


def record(work: JobWork, job: Job, epoch: int) -> None:
    work.record_epoch(
        job.id,
        job.attempt,
        lease_s=LEASE_S,
        metrics={"epoch": epoch, "note": "one\nline"},
        progress={"epoch": epoch},
    )


def end(work: JobWork, job: Job) -> None:
    work.fail(job.id, job.attempt, code="diverged", detail="NaN")


def parse(text: str) -> list[tuple[int, str, Any]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "id" in fields:
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def test_an_ended_job_streams_its_events_without_gaps_and_closes(client, jobs, work):
    job = run(jobs, work, epochs=3)
    end(work, job)
    response = client.get(f"/v1/jobs/{job.id}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.text.startswith("retry: 2000\n\n")
    found = parse(response.text)
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    kinds = [kind for _, kind, _ in found]
    assert kinds.count("epoch") == 3
    assert (kinds[0], kinds[-1]) == ("state", "end")
    assert found[-1][2] == {"state": "failed"}
    assert found[2][2]["note"] == "one\nline"


@pytest.mark.parametrize("by", ["after", "header", "both"])
def test_a_client_that_reconnects_misses_nothing_and_gets_nothing_twice(client, jobs, work, by):
    job = run(jobs, work, epochs=5)
    end(work, job)
    whole = parse(client.get(f"/v1/jobs/{job.id}/events").text)
    query = {"after": "?after=4", "header": "", "both": "?after=1"}[by]
    headers = {} if by == "after" else {"Last-Event-ID": "4"}
    rest = parse(client.get(f"/v1/jobs/{job.id}/events{query}", headers=headers).text)
    assert rest == whole[4:]


def test_a_client_that_has_seen_the_end_is_told_not_to_come_back(client, jobs, work):
    job = run(jobs, work, epochs=1)
    end(work, job)
    last = parse(client.get(f"/v1/jobs/{job.id}/events").text)[-1][0]
    for ask in (client.get, client.head):
        response = ask(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": str(last)})
        assert (response.status_code, response.content) == (204, b"")


def test_events_are_sent_while_the_job_runs(client, jobs, work):
    job = run(jobs, work, epochs=1)

    def go_on() -> None:
        time.sleep(0.7)
        record(work, job, 2)
        time.sleep(0.7)
        end(work, job)

    worker = threading.Thread(target=go_on)
    worker.start()
    found = parse(client.get(f"/v1/jobs/{job.id}/events").text)
    worker.join()
    assert [data["epoch"] for _, kind, data in found if kind == "epoch"] == [1, 2]
    assert found[-1][1] == "end"


def test_a_stream_goes_on_through_the_end_of_an_attempt_that_was_resumed(client, jobs, work):
    job = run(jobs, work, epochs=1)
    end(work, job)
    jobs.resume(PROJECT, job.id)
    again = claimed(work)
    record(work, again, 2)
    end(work, again)
    found = parse(client.get(f"/v1/jobs/{job.id}/events").text)
    assert [kind for _, kind, _ in found].count("end") == 2
    assert [data["epoch"] for _, kind, data in found if kind == "epoch"] == [1, 2]


def test_the_same_events_come_as_pages_of_json(client, jobs, work, monkeypatch):
    monkeypatch.setattr(events, "PAGE", 4)
    job = run(jobs, work, epochs=6)
    end(work, job)
    after, pages = 0, []
    while True:
        page = client.get(f"/v1/jobs/{job.id}/events?format=json&after={after}").json()
        pages.append(page)
        after = page["next_after"]
        if page["ended"]:
            break
    found = [event for page in pages for event in page["items"]]
    assert [event["id"] for event in found] == list(range(1, len(found) + 1))
    assert found[-1]["event"] == "end"
    assert {len(page["items"]) for page in pages[:-1]} == {4}
    streamed = parse(client.get(f"/v1/jobs/{job.id}/events").text)
    assert [event["data"] for event in found] == [data for _, _, data in streamed]


def test_a_job_that_runs_has_a_page_that_is_not_the_last(client, jobs, work):
    job = run(jobs, work, epochs=1)
    page = client.get(f"/v1/jobs/{job.id}/events?format=json").json()
    assert not page["ended"]
    rest = client.get(f"/v1/jobs/{job.id}/events?format=json&after={page['next_after']}").json()
    assert (rest["items"], rest["next_after"]) == ([], page["next_after"])


@pytest.mark.parametrize("query", ["after=-1", "after=x", "format=xml", f"after={10**30}"])
def test_a_forged_place_is_refused(client, jobs, work, query):
    job = run(jobs, work, epochs=1)
    assert client.get(f"/v1/jobs/{job.id}/events?{query}").status_code == 422


class Caller:
    """An ASGI caller who may leave, and who keeps what was sent."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.body = b""
        self.closed = False

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.body += message.get("body", b"")
        self.closed |= message["type"] == "http.response.body" and not message["more_body"]


Follow = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture
def stopping() -> asyncio.Event:
    """The event that the server stops by."""
    return asyncio.Event()


@pytest.fixture
async def follow(jobs: Jobs, stopping: asyncio.Event) -> AsyncIterator[Follow]:
    """A function that streams the events of a job to a caller, beside a hub that looks."""
    hub = EventHub(jobs)
    looking = asyncio.create_task(hub.run(stopping))

    async def follow(caller: Caller, job: Job, after: int = 0, callers: Keys | None = None) -> None:
        state = SimpleNamespace(event_hub=hub, callers=callers or Keys())
        app = SimpleNamespace(state=state)
        known = {"app": app, "state": {"caller": ANYBODY}}
        scope = {"type": "http", "path": "/", "headers": [], **known}
        response = await stream_events(
            Request(scope), EventFeed(jobs, PROJECT, job.id, after=after)
        )
        below = RootPathMiddleware(response, root_path="/densityd")
        await below(scope, caller.receive, caller.send)

    yield follow
    looking.cancel()


async def test_every_stream_of_many_jobs_gets_each_of_its_events_once(jobs, work, follow):
    running = [run(jobs, work, epochs=1) for _ in range(3)]
    callers = [Caller() for _ in range(12)]
    streams = [
        asyncio.create_task(follow(caller, running[number % 3], after=number % 4))
        for number, caller in enumerate(callers)
    ]
    for epoch in (2, 3):
        for job in running:
            await asyncio.to_thread(record, work, job, epoch)
        text = b'"epoch":%d' % epoch
        await until(partial(lambda text: all(text in one.body for one in callers), text))
    for job in running:
        await asyncio.to_thread(end, work, job)
    await asyncio.gather(*streams)
    for number, caller in enumerate(callers):
        found = parse(caller.body.decode())
        assert [place for place, _, _ in found] == list(range(1 + number % 4, 7 + 1))
        assert found[-1][1] == "end"


@pytest.mark.parametrize("reason", ["stop", "leave", "delete"])
async def test_a_stream_ends_with_the_server_the_caller_or_the_job(
    jobs, work, reason, follow, stopping
):
    job, caller = run(jobs, work, epochs=1), Caller()
    stream = asyncio.create_task(follow(caller, job))
    await until(lambda: bool(caller.body))
    if reason == "delete":
        await asyncio.to_thread(end, work, job)
        await asyncio.to_thread(jobs.delete, PROJECT, job.id)
    else:
        (stopping if reason == "stop" else caller.left).set()
    async with asyncio.timeout(events.KEEP_ALIVE_S):
        await stream
    assert caller.closed == (reason != "leave")


async def test_a_quiet_stream_is_kept_alive_until_its_key_is_revoked(
    jobs, work, monkeypatch, follow
):
    monkeypatch.setattr(events, "KEEP_ALIVE_S", 0.1)
    job, caller, callers = run(jobs, work, epochs=1), Caller(), Keys()
    stream = asyncio.create_task(follow(caller, job, callers=callers))
    await until(lambda: caller.body.count(b"\n: keep-alive\n\n") >= 2)
    callers.revoked = True
    async with asyncio.timeout(60):
        await stream
    assert caller.closed
    assert len(parse(caller.body.decode())) >= 2
    assert caller.body.endswith(b"\n\n")
    told = json.loads(caller.body.rpartition(b"event: closed\ndata: ")[2])
    assert told["type"] == "/densityd/problems/unauthorized"


async def test_a_caller_may_name_an_event_that_is_not_there_yet(jobs, work, follow):
    job, caller = run(jobs, work, epochs=1), Caller()
    stream = asyncio.create_task(follow(caller, job, after=2**53))
    await until(lambda: bool(caller.body))
    await asyncio.to_thread(end, work, job)
    await stream
    assert parse(caller.body.decode()) == []


def test_a_wait_ends_with_the_job(client, jobs):
    url = f"/v1/jobs/{submitted(jobs).id}"
    seen = []
    thread = threading.Thread(target=lambda: seen.append(client.get(f"{url}?wait=60").json()))
    thread.start()
    wait_until(lambda: "requests_in_flight 2.0" in client.get("/metrics").text)
    client.post(f"{url}/cancel")
    thread.join(120)
    assert seen[0]["state"] == "cancelled"
    assert client.get(f"{url}?wait=60").json()["state"] == "cancelled"


def test_a_wait_is_bounded(client, jobs):
    url = f"/v1/jobs/{submitted(jobs).id}"
    tag = client.get(url).headers["ETag"]
    assert client.get(f"{url}?wait=1").json()["state"] == "queued"
    assert client.get(f"{url}?wait=1", headers={"If-None-Match": tag}).status_code == 304
    assert_refused(client.get(f"{url}?wait=61"), 422, "validation")
    assert_refused(client.get(f"{url[:-1]}_?wait=1"), 404, "not-found")


def test_waits_and_streams_are_bounded_together(client, jobs, work):
    url = f"/v1/jobs/{run(jobs, work, epochs=1).id}"
    bound = client.app.state.open_streams
    for _ in range(2):  # what has ended is not counted
        with ExitStack() as held:
            for _ in range(8 * client.app.state.settings.max_open_streams):
                held.enter_context(bound.hold(ANYBODY))
            assert_refused(client.get(f"{url}?wait=5"), 429, "limit-open-requests")
            assert_refused(client.get(f"{url}/events"), 429, "limit-open-requests")
            assert client.get(f"{url}/events?format=json").status_code == 200
        assert client.head(f"{url}/events").status_code == 200
        assert client.get(f"{url}?wait=1").status_code == 200
