import asyncio
import json
import threading
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from app.auth.callers import ANYBODY, Caller as KeyHolder
from app.jobs import events
from app.jobs.events import EventStream
from app.limits import OpenBound
from app.problems.problem import Problem
from app.server import event_hub
from app.server.event_hub import EventFeed, EventHub
from models_store.database.database import Database
from models_store.job_states import Job
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.keys import Scope
from tests.models_store.makers import LEASE_S, PROJECT, submitted


class Keys:
    """Keys of callers, which are valid until they are revoked."""

    def __init__(self) -> None:
        self.revoked = False

    async def identify(self, _authorization: list[bytes]) -> KeyHolder:
        if self.revoked:
            raise Problem("unauthorized")
        return ANYBODY


OPEN = SimpleNamespace(state=SimpleNamespace(callers=Keys()))
STRANGER = KeyHolder(PROJECT, Scope.READ, key_id="key_1")


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def work(database: Database) -> JobWork:
    return JobWork(database)


def run(jobs: Jobs, work: JobWork, *, epochs: int) -> Job:
    """A job that runs and has done some epochs."""
    submitted(jobs)
    job = work.claim("tester", lease_s=LEASE_S)
    assert job is not None
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
    again = work.claim("tester", lease_s=LEASE_S)
    assert again is not None
    record(work, again, 2)
    end(work, again)
    found = parse(client.get(f"/v1/jobs/{job.id}/events").text)
    assert [kind for _, kind, _ in found].count("end") == 2
    assert [data["epoch"] for _, kind, data in found if kind == "epoch"] == [1, 2]


def test_the_same_events_come_as_pages_of_json(client, jobs, work, monkeypatch):
    monkeypatch.setattr(event_hub, "PAGE", 4)
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


def test_the_events_of_no_job_are_not_found(client):
    assert client.get(f"/v1/jobs/job_{'0' * 32}/events").status_code == 404


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

    async def send(self, message: dict[str, Any]) -> None:
        self.body += message.get("body", b"")
        self.closed |= message["type"] == "http.response.body" and not message["more_body"]


@pytest.fixture
def follow(jobs: Jobs, work: JobWork) -> Callable[..., Any]:
    """Streams the events of a job that runs, until something ends the stream."""
    job = run(jobs, work, epochs=1)

    async def follow(caller: Caller, stopping: asyncio.Event, app: Any = OPEN) -> None:
        hub = EventHub(jobs)
        looks = asyncio.create_task(hub.run(stopping))
        feed = EventFeed(jobs, PROJECT, job.id, after=0)
        stream = EventStream(feed, hub=hub, streams=OpenBound("streams", 1))
        scope = {"type": "http", "headers": [], "app": app, "state": {"caller": ANYBODY}}
        await stream(scope, caller.receive, caller.send)  # type: ignore[arg-type]
        looks.cancel()

    return follow


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that the event loop does."""
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - what happens tells nobody
            await asyncio.sleep(0.01)


def have_all(callers: list["Caller"], text: bytes) -> bool:
    return all(text in caller.body for caller in callers)


def is_past(topic: Any, number: int) -> bool:
    return bool(topic.last > number)


class CountedJobs(Jobs):
    """Jobs that count the transactions of those who follow them."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.looks: list[int] = []
        self.pages = 0

    def event_news(self, known, **bounds):
        self.looks.append(len(known))
        return super().event_news(known, **bounds)

    def event_page(self, *args, **kwargs):
        self.pages += 1
        return super().event_page(*args, **kwargs)


@pytest.mark.parametrize("count", [1, 8])
def test_streams_cost_one_transaction_a_look_however_many_and_of_however_many_jobs(
    jobs, work, count
):
    running = [run(jobs, work, epochs=1) for _ in range(count)]
    counted = CountedJobs(jobs._database)

    async def main() -> list[Caller]:
        stopping, hub = asyncio.Event(), EventHub(counted)
        looking = asyncio.create_task(hub.run(stopping))
        callers = [Caller() for _ in range(40)]
        bound = OpenBound("streams", len(callers))

        async def follow(number: int) -> None:
            job = running[number % count]
            feed = EventFeed(counted, PROJECT, job.id, after=number // count % 3)
            stream = EventStream(feed, hub=hub, streams=bound)
            scope = {"type": "http", "headers": [], "app": OPEN, "state": {"caller": ANYBODY}}
            caller = callers[number]
            await stream(scope, caller.receive, caller.send)  # type: ignore[arg-type]

        streams = [asyncio.create_task(follow(number)) for number in range(len(callers))]
        await until(lambda: sum(len(topic.woken) for topic in hub._topics.values()) == 40)
        for epoch in (2, 3):
            for job in running:
                await asyncio.to_thread(record, work, job, epoch)
            await until(partial(have_all, callers, b'"epoch":%d' % epoch))
        for job in running:
            await asyncio.to_thread(end, work, job)
        await asyncio.gather(*streams)
        looking.cancel()
        return callers

    callers = asyncio.run(main())
    for number, caller in enumerate(callers):
        found = parse(caller.body.decode())
        assert [place for place, _, _ in found] == list(range(1 + number // count % 3, 7 + 1))
        assert found[-1][1] == "end"
    assert max(counted.looks) == count
    assert counted.pages == len(callers), "each stream reads its own first page alone"


def test_a_stream_that_cannot_keep_up_reads_what_it_missed(jobs, work):
    job = run(jobs, work, epochs=1)

    class Slow(Caller):
        def __init__(self) -> None:
            super().__init__()
            self.go_on = asyncio.Event()

        async def send(self, message):
            await super().send(message)
            await self.go_on.wait()

    async def main() -> bytes:
        stopping, caller = asyncio.Event(), Slow()
        hub = EventHub(jobs)
        looking = asyncio.create_task(hub.run(stopping))
        feed = EventFeed(jobs, PROJECT, job.id, after=0)
        stream = EventStream(feed, hub=hub, streams=OpenBound("streams", 1))
        scope = {"type": "http", "headers": [], "app": OPEN, "state": {"caller": ANYBODY}}
        following = asyncio.create_task(stream(scope, caller.receive, caller.send))
        await until(lambda: bool(hub._topics))
        topic = hub._topics[job.id]
        for epoch in (2, 3, 4):
            last = topic.last
            await asyncio.to_thread(record, work, job, epoch)
            await until(partial(is_past, topic, last))
        caller.go_on.set()
        await asyncio.to_thread(end, work, job)
        await following
        looking.cancel()
        return caller.body

    found = parse(asyncio.run(main()).decode())
    assert [place for place, _, _ in found] == list(range(1, len(found) + 1))
    assert [data["epoch"] for _, kind, data in found if kind == "epoch"] == [1, 2, 3, 4]


def test_the_hub_does_not_read_again_what_a_stream_read_page_by_page(jobs, work, monkeypatch):
    """It would send nothing new until it had come as far, half a second a page."""
    monkeypatch.setattr(event_hub, "STREAMED", 10)
    job = run(jobs, work, epochs=30)

    async def main() -> None:
        caller, hub = Caller(), EventHub(jobs)  # which does not look
        feed = EventFeed(jobs, PROJECT, job.id, after=0)
        stream = EventStream(feed, hub=hub, streams=OpenBound("streams", 1))
        scope = {"type": "http", "headers": [], "app": OPEN, "state": {"caller": ANYBODY}}
        following = asyncio.create_task(stream(scope, caller.receive, caller.send))  # type: ignore[arg-type]
        await until(lambda: b'"epoch":30' in caller.body)
        assert hub._topics[job.id].last == parse(caller.body.decode())[-1][0]
        caller.left.set()
        await following

    asyncio.run(main())


@pytest.mark.parametrize("ahead_first", [True, False])
def test_a_caller_whose_last_event_is_not_there_yet_hides_none_from_others(jobs, work, ahead_first):
    job = run(jobs, work, epochs=1)
    ahead, usual = Caller(), Caller()

    async def main() -> None:
        hub = EventHub(jobs)
        looking = asyncio.create_task(hub.run(asyncio.Event()))

        async def follow(caller: Caller, after: int) -> None:
            feed = EventFeed(jobs, PROJECT, job.id, after=after)
            stream = EventStream(feed, hub=hub, streams=OpenBound("streams", 1))
            scope = {"type": "http", "headers": [], "app": OPEN, "state": {"caller": ANYBODY}}
            await stream(scope, caller.receive, caller.send)  # type: ignore[arg-type]

        streams: list[asyncio.Task[None]] = []
        places = [(ahead, 2**53), (usual, 0)]
        for number, place in enumerate(places if ahead_first else places[::-1], 1):
            streams.append(asyncio.create_task(follow(*place)))
            await until(lambda n=number: sum(len(t.woken) for t in hub._topics.values()) == n)  # type: ignore[misc]
        for epoch in (2, 3):
            await asyncio.to_thread(record, work, job, epoch)
            await until(partial(have_all, [usual], b'"epoch":%d' % epoch))
        await asyncio.to_thread(end, work, job)
        await asyncio.gather(*streams)
        looking.cancel()

    asyncio.run(main())
    found = parse(usual.body.decode())
    assert [place for place, _, _ in found] == list(range(1, len(found) + 1))
    assert (found[-1][1], parse(ahead.body.decode())) == ("end", [])


def test_a_stream_too_many_reads_nothing_while_another_one_reads(jobs, work):
    job = run(jobs, work, epochs=1)
    go_on = threading.Event()

    class Held(CountedJobs):
        def event_page(self, *args, **kwargs):
            page = super().event_page(*args, **kwargs)
            go_on.wait(120)
            return page

    held = Held(jobs._database)

    async def main() -> None:
        hub, bound = EventHub(held), OpenBound("streams", 1)

        def stream(caller: Caller) -> Any:
            feed = EventFeed(held, PROJECT, job.id, after=0)
            scope = {"type": "http", "headers": [], "app": OPEN, "state": {"caller": STRANGER}}
            return EventStream(feed, hub=hub, streams=bound)(scope, caller.receive, caller.send)  # type: ignore[arg-type]

        caller = Caller()
        first = asyncio.create_task(stream(caller))
        await until(lambda: held.pages == 1)
        second = asyncio.create_task(stream(Caller()))
        try:
            done, _ = await asyncio.wait({second}, timeout=10)
        finally:
            go_on.set()
        assert done == {second}
        with pytest.raises(Problem, match="limit-open-requests"):
            second.result()
        caller.left.set()
        await first

    asyncio.run(main())
    assert held.pages == 1


def test_a_stream_holds_few_events_of_a_caller_who_does_not_read(jobs, work, monkeypatch):
    monkeypatch.setattr(event_hub, "STREAMED", 3)
    job = run(jobs, work, epochs=9)

    async def main() -> list[str]:
        feed, texts = EventFeed(jobs, PROJECT, job.id, after=0), list[str]()
        while not texts or feed.more:
            text, ended = await feed.read_text()
            texts.append(text.decode())
            assert not ended
        return texts

    texts = asyncio.run(main())
    assert [len(parse(text)) for text in texts[:-1]] == [3] * (len(texts) - 1)
    assert "".join(texts).count("event: epoch") == 9


@pytest.mark.parametrize("reason", ["stop", "leave"])
def test_a_stream_ends_when_the_server_stops_or_the_caller_leaves(follow, reason):
    async def main() -> None:
        caller, stopping = Caller(), asyncio.Event()
        stream = asyncio.create_task(follow(caller, stopping))
        await until(lambda: bool(caller.body))
        assert not stream.done()
        (stopping if reason == "stop" else caller.left).set()
        async with asyncio.timeout(events._KEEP_ALIVE_S):
            await stream
        assert caller.closed

    asyncio.run(main())


def test_a_quiet_stream_is_kept_alive_by_comments(follow, monkeypatch):
    monkeypatch.setattr(events, "_KEEP_ALIVE_S", 0.1)

    async def main() -> bytes:
        caller, stopping = Caller(), asyncio.Event()
        stream = asyncio.create_task(follow(caller, stopping))
        await until(lambda: caller.body.count(b"\n: keep-alive\n\n") >= 2)
        stopping.set()
        await stream
        return caller.body

    assert len(parse(asyncio.run(main()).decode())) >= 2


def test_a_stream_ends_at_the_keep_alive_after_its_key_was_revoked(follow, monkeypatch):
    monkeypatch.setattr(events, "_KEEP_ALIVE_S", 0.1)

    async def main() -> Caller:
        caller, keys = Caller(), Keys()
        app = SimpleNamespace(state=SimpleNamespace(callers=keys))
        stream = asyncio.create_task(follow(caller, asyncio.Event(), app))
        await until(lambda: b": keep-alive" in caller.body)
        keys.revoked = True
        async with asyncio.timeout(60):
            await stream
        return caller

    caller = asyncio.run(main())
    assert caller.closed
    assert caller.body.endswith(b"\n\n")
    assert caller.body.rpartition(b"event: closed\n")[2].count(b"/problems/unauthorized") == 1
