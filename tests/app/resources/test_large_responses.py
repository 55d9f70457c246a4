"""Answers about one thing that may have megabytes."""

import asyncio
import errno
from contextlib import suppress
from itertools import pairwise

import pytest
from pydantic import BaseModel

from app.datasets.views import DatasetView
from app.http import streaming
from app.http.body_memory import BodyMemory
from app.http.stored_responses import StoredResponses
from app.http.streaming import StreamedResponse, send_piece
from app.jobs.views import JobView
from app.models.views import VersionView
from app.problems.problem import Problem
from app.resources.etags import json_of
from app.resources.large_responses import respond_large
from tests.app.resources.test_listing import WIDE
from tests.app.serving import registered
from tests.models_store.makers import added, submitted

CSV = {"Content-Type": "text/csv"}
NPY = "application/x-npy"
FILE = {"Content-Type": "application/octet-stream"}


class Text(BaseModel):
    text: str


def no_room(**_):
    raise OSError(errno.ENOSPC, "full")


@pytest.mark.long
@pytest.mark.parametrize("full", [False, True], ids=["", "on a full disk"])
def test_what_is_large_is_whole_and_leaves_no_file(client, registry, blobs, monkeypatch, full):
    dataset = added(registry, columns=WIDE)
    job = submitted(client.app.state.jobs, request={"context": [[0.25] * 4] * 10_000})
    if full:
        monkeypatch.setattr("app.http.stored_responses.tempfile.TemporaryFile", no_room)
    answer = client.get(f"/v1/datasets/{dataset.id}")
    shown = answer.json()["columns"]
    assert [
        {name: column[name] for name in wide} for column, wide in zip(shown, WIDE, strict=True)
    ] == WIDE
    assert int(answer.headers["content-length"]) == len(answer.content) > 500_000
    assert client.get(f"/v1/jobs/{job.id}").json()["request"] == job.request
    staging = blobs.root / "staging"
    assert not staging.exists() or list(staging.iterdir()) == []


def waiting(folder, *, files=1 << 30, memory=1 << 30):
    return StoredResponses(folder, files=BodyMemory(files), memory=BodyMemory(memory))


def test_what_is_large_does_not_wait_in_memory(tmp_path):
    large = respond_large(Text(text="x" * 100_000), waiting(tmp_path / "staging"))
    small = respond_large(Text(text="x"), waiting(tmp_path / "staging"))
    assert isinstance(large, StreamedResponse)
    assert (large.body, small.body) == (b"", b'{"text":"x"}')
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.parametrize(
    "full", [False, True], ids=["on the disk, then in memory", "on a full disk, in memory"]
)
def test_large_responses_count_until_they_were_read(tmp_path, monkeypatch, full):
    if full:
        monkeypatch.setattr("app.http.stored_responses.tempfile.TemporaryFile", no_room)
    large = waiting(tmp_path, files=1 << 20, memory=1 << 20)
    text = Text(text="x" * 200_000)
    unread = [respond_large(text, large) for _ in range(1 if full else 3)]
    with pytest.raises(Problem) as refused:
        respond_large(text, large)
    assert refused.value.type.slug == "overloaded"
    del refused, unread
    assert isinstance(respond_large(text, large), StreamedResponse)


def test_a_response_in_memory_counts_until_its_last_pieces_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("app.http.stored_responses.tempfile.TemporaryFile", no_room)
    memory = BodyMemory(1 << 30)
    large = StoredResponses(tmp_path, files=BodyMemory(1 << 30), memory=memory)
    response = respond_large(Text(text="x" * 8_000_000), large)
    unread, held = 0, []

    async def send(message):
        nonlocal unread
        unread += len(message.get("body", b""))
        held.append((memory.held, unread))

    async def stay():
        await asyncio.Event().wait()

    asyncio.run(response({"type": "http"}, stay, send))
    assert all(counted >= 8_000_000 for counted, sent in held if sent < 8_000_000)
    assert max(later[1] - one[1] for one, later in pairwise(held)) <= 64 * 1024
    assert memory.held == 0


@pytest.mark.parametrize("what", ["export", "plots/images"])
@pytest.mark.parametrize("full", [False, True], ids=["", "on a full disk"])
def test_files_of_versions_are_in_memory_a_little_at_a_time(client, monkeypatch, what, full):
    """Wait on the disk: the head of an export alone may have megabytes."""
    state = client.app.state
    columns = [f"{number}{'x' * 100}" for number in range(1_500)]
    registered(state.database, state.blobs, columns=columns)
    monkeypatch.setattr(state.plots, "known", lambda _drawing: b"x" * 200_000)
    if full:
        monkeypatch.setattr("app.http.stored_responses.tempfile.TemporaryFile", no_room)
    sizes = []

    async def spy(send, piece, *, more=True):
        sizes.append(len(piece))
        await send_piece(send, piece, more=more)

    monkeypatch.setattr(streaming, "send_piece", spy)
    answer = client.get(f"/v1/models/people/versions/1/{what}")
    assert sum(sizes) == len(answer.content) == int(answer.headers["content-length"]) > 150_000
    assert max(sizes) <= 64 * 1024


def views_on_the_event_loop(monkeypatch, *classes):
    """Names of the views that are made on the event loop from now on."""
    seen = []
    for name, cls in classes:
        make = getattr(cls, name)

        def spy(*args, make=make, cls=cls):
            with suppress(RuntimeError):
                asyncio.get_running_loop()
                seen.append(cls.__name__)
            return make(*args)

        monkeypatch.setattr(cls, name, spy)
    return seen


def test_what_may_be_large_is_made_off_the_event_loop(client, monkeypatch):
    seen = views_on_the_event_loop(monkeypatch, ("whole", DatasetView), ("of", VersionView))
    made = client.post("/v1/datasets", content=b"a,b\n1,2\n3,5\n4,9\n", headers=CSV)
    assert made.status_code == 201, made.text
    change = {"tags": {"team": "space"}, "types": {"a": "category"}}
    path = f"/v1/datasets/{made.json()['id']}"
    changed = client.patch(path, json=change)
    assert (changed.status_code, changed.headers["etag"]) == (200, client.get(path).headers["etag"])
    registered(client.app.state.database, client.app.state.blobs)
    version = "/v1/models/people/versions/1"
    file = client.get(f"{version}/export").content
    imported = client.post("/v1/models/people/versions", content=file, headers=FILE)
    assert imported.status_code == 201, imported.text
    assert imported.headers["location"] == "/v1/models/people/versions/2"
    labelled = client.patch(version, json={"tags": {"team": "space"}})
    assert labelled.headers["etag"] == client.get(version).headers["etag"]
    assert seen == []


def test_jobs_that_start_stop_and_resume_are_shown_off_the_event_loop(client, monkeypatch):
    shown = []

    def spy(view):
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            return json_of(view)
        shown.append(type(view))
        return json_of(view)

    monkeypatch.setattr("app.resources.large_responses.json_of", spy)
    body = {"model_name": "ring", "target": {"potential": "U1"}}
    once = {"Idempotency-Key": "once"}
    started = client.post("/v1/jobs/variational", json=body, headers=once)
    again = client.post("/v1/jobs/variational", json=body, headers=once)
    path = started.headers["location"]
    cancelled = client.post(f"{path}/cancel")
    resumed = client.post(f"{path}/resume")
    assert [one.status_code for one in (started, again, cancelled, resumed)] == [202, 202, 200, 202]
    assert again.headers["idempotent-replayed"] == "true"
    assert shown == [JobView] * 4
