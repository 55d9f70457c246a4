"""Bounds on what a key may ask and a project may keep."""

import pytest

from app.callers import Caller
from app.problems import Problem
from app.rates import Rates
from models_store.keys import Scope
from tests.app.conftest import CSV, TABLE, assert_refused, files_of
from tests.app.keyed import bearer, keyed, stocked

ROWS = {"rows": [[171.5, 68.2, 30.0]]}
FIT = {"model_name": "m", "target": {"potential": "U1"}}


def caller(key_id="key_1", rate=None):
    return Caller("p", Scope.READ, key_id, rate)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes when it is told."""
    now = [100.0]
    monkeypatch.setattr("app.rates.monotonic", lambda: now[0])
    return now


def taken(limits, who, n):
    """How many of `n` requests are let through, and what `Retry-After` the last one got."""
    passed, wait = 0, None
    for _ in range(n):
        try:
            limits.take(who)
        except Problem as problem:
            wait = int(problem.headers["Retry-After"])
        else:
            passed += 1
    return passed, wait


def test_a_bucket_is_full_at_first_and_fills_at_its_rate(clock):
    limits = Rates(rate=5, burst_s=2)
    assert taken(limits, caller(), 12) == (10, 1)
    clock[0] += 0.4
    assert taken(limits, caller(), 5) == (2, 1)
    clock[0] += 1000
    assert taken(limits, caller(), 12) == (10, 1)


def test_keys_have_buckets_and_rates_of_their_own(clock):
    limits = Rates(rate=1, burst_s=1)
    assert taken(limits, caller("a"), 3) == (1, 1)
    assert taken(limits, caller("b", rate=0.1), 3) == (1, 10)
    assert taken(limits, caller("c", rate=50), 60) == (50, 1)
    clock[0] += 10
    assert taken(limits, caller("b", rate=0.1), 3) == (1, 10)


def test_processes_share_a_rate_and_0_is_none(clock):  # noqa: ARG001 - it stands still
    assert taken(Rates(rate=20, burst_s=1, processes=4), caller(), 9) == (5, 1)
    assert taken(Rates(rate=0, burst_s=1), caller(), 500) == (500, None)


@pytest.mark.fault(93, 186)
@pytest.mark.parametrize("setting_values", [{"rate_limit": 0.01, "rate_burst_s": 500}])
def test_a_burst_is_cut_off_with_a_time_to_wait(settings):
    with keyed(settings) as (client, keys):
        stocked(client)
        mine, slow = keys.create("p", Scope.WRITE), keys.create("p", Scope.READ, rate=0.001)
        path = "/v1/models/people/log_prob"
        answers = [client.post(path, json=ROWS, headers=bearer(mine)) for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
        assert_refused(answers[-1], 429, "rate-limited")
        assert 0 < int(answers[-1].headers["retry-after"]) <= 100
        # An invented address is no other caller, and open routes are not counted.
        spoofed = {**bearer(mine), "X-Forwarded-For": "192.0.2.7", "Forwarded": "for=192.0.2.7"}
        assert client.post(path, json=ROWS, headers=spoofed).status_code == 429
        assert all(client.get("/livez").status_code == 200 for _ in range(9))
        assert client.get("/v1/jobs", headers=bearer(slow)).status_code == 200
        assert client.get("/v1/jobs", headers=bearer(slow)).status_code == 429


@pytest.mark.fault(93)
@pytest.mark.parametrize("setting_values", [{"max_queued_jobs": 3}])
def test_a_project_queues_so_many_jobs_and_each_that_was_accepted_has_a_row(settings):
    with keyed(settings) as (client, keys):
        mine, other = (bearer(keys.create(name, Scope.WRITE)) for name in ("p", "q"))
        answers = [client.post("/v1/jobs/variational", json=FIT, headers=mine) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [202] * 3 + [429] * 3
        assert_refused(answers[-1], 429, "limit-queued-jobs")
        assert int(answers[-1].headers["retry-after"]) > 0
        accepted = [answer.json()["id"] for answer in answers[:3]]
        listed = client.get("/v1/jobs", headers=mine).json()["items"]
        assert [job["id"] for job in listed] == accepted[::-1]
        assert client.post("/v1/jobs/variational", json=FIT, headers=other).status_code == 202


@pytest.mark.fault(100)
@pytest.mark.parametrize("setting_values", [{"max_project_bytes": 300}])
def test_a_project_stores_so_many_bytes_and_others_are_not_affected(settings):
    with keyed(settings) as (client, keys):
        mine, other = (bearer(keys.create(name, Scope.WRITE)) for name in ("p", "q"))
        key = {"Idempotency-Key": "k"}

        def upload(who):
            return client.post("/v1/datasets", content=TABLE, headers={**CSV, **who})

        first = upload({**mine, **key})
        assert first.status_code == 201
        before = files_of(settings)
        assert_refused(upload(mine), 507, "quota-storage")
        assert files_of(settings) == before
        # What it has it may read, ask for again, and delete; then there is room.
        assert upload({**mine, **key}).json() == first.json()
        assert upload(other).status_code == 201
        assert client.delete(first.headers["location"], headers=mine).status_code == 204
        assert upload(mine).status_code == 201


@pytest.mark.fault(100)
def test_a_full_project_starts_no_job_and_takes_no_table_but_is_asked_as_ever(settings):
    with keyed(settings.model_copy(update={"max_project_bytes": 1000})) as (client, keys):
        assert stocked(client).checkpoint_bytes > 1000
        mine = bearer(keys.create("p", Scope.WRITE))
        answer = client.post("/v1/jobs/variational", json=FIT, headers=mine)
        assert_refused(answer, 507, "quota-storage")

        answer = client.post("/v1/datasets", content=TABLE, headers={**CSV, **mine})
        assert_refused(answer, 507, "quota-storage")
        answer = client.post("/v1/models/people/log_prob", json=ROWS, headers=mine)
        assert answer.status_code == 200
