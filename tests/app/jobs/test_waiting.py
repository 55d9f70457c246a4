"""Requests that wait until a job has ended."""

import threading
import time

import pytest

from app.server.event_hub import EventFeed
from tests.app.conftest import assert_refused
from tests.models_store.makers import submitted


@pytest.fixture
def setting_values():
    return {"max_open_streams": 1}


def test_a_wait_ends_with_the_job(client):
    job = submitted(client.app.state.jobs)
    url = f"/v1/jobs/{job.id}"
    seen = []
    thread = threading.Thread(target=lambda: seen.append(client.get(f"{url}?wait=60").json()))
    thread.start()
    while not client.app.state.event_hub._topics:
        time.sleep(0.01)
    client.post(f"{url}/cancel")
    thread.join(120)
    assert seen[0]["state"] == "cancelled"
    assert client.get(f"{url}?wait=60").json()["state"] == "cancelled"
    assert client.app.state.open_streams._open == {}


def test_a_wait_is_bounded(client):
    url = f"/v1/jobs/{submitted(client.app.state.jobs).id}"
    tag = client.get(url).headers["ETag"]
    assert client.get(f"{url}?wait=1").json()["state"] == "queued"
    assert client.get(f"{url}?wait=1", headers={"If-None-Match": tag}).status_code == 304
    assert_refused(client.get(f"{url}?wait=61"), 422, "validation")
    assert_refused(client.get(f"{url[:-1]}_?wait=1"), 404, "not-found")


def test_waits_are_counted_as_streams_and_what_is_refused_reads_nothing(client, monkeypatch):
    url = f"/v1/jobs/{submitted(client.app.state.jobs).id}"
    bound = client.app.state.open_streams
    bound._open[("project", "default")] = 8
    monkeypatch.setattr(EventFeed, "skip", None)
    try:
        assert_refused(client.get(f"{url}?wait=5"), 429, "limit-open-requests")
    finally:
        bound._open.clear()
