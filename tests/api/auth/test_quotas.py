"""Bounds on what a key may ask and a project may keep."""

import json

import numpy as np
import pytest

from app.auth.rates import Rates
from app.limits import Caller
from app.problems.problem import Problem
from models_store.keys import Scope
from tests.api.conftest import CSV, TABLE, assert_refused, files_of
from tests.api.serving import bearer, keyed, stocked
from tests.tables.files import npy

ROWS = {"rows": [[171.5, 68.2, 30.0]]}


def caller(key_id="key_1", rate=None):
    return Caller("p", Scope.READ, key_id, rate)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes when it is told."""
    now = [100.0]
    monkeypatch.setattr("app.auth.rates.monotonic", lambda: now[0])
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


@pytest.mark.parametrize("setting_values", [{"max_project_bytes": 1000}])
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
        again = upload(mine)
        assert again.status_code == 201
        # A table with other types takes the place of the old one.
        types = {"types": {"weight": "category"}}
        assert client.patch(again.headers["location"], json=types, headers=mine).is_success


@pytest.mark.parametrize("setting_values", [{"max_project_bytes": 500_000}])
def test_a_table_is_written_up_to_the_room_of_its_project(settings):
    with keyed(settings) as (client, keys):
        mine = bearer(keys.create("p", Scope.WRITE))
        headers = {"Content-Type": "application/x-npy", **mine}
        short = np.random.default_rng(0).integers(0, 99, (20_000, 10)).astype(np.int8)
        answer = client.post("/v1/datasets", content=npy(short), headers=headers)
        assert_refused(answer, 507, "quota-storage")
        assert answer.json()["detail"].startswith("The table needs more than the 500,000 bytes")

        # Texts that are kept take little, and the numbers of the same cells much.
        lines = [",".join(["abcdefgh"[row % 8]] * 20) for row in range(8000)]
        body = "\n".join([",".join(f"t{at}" for at in range(20)), *lines]).encode()
        every = {f"t{at}": "ignored" for at in range(1, 20)}
        answer = client.post(
            "/v1/datasets",
            content=body,
            headers={**CSV, **mine},
            params={"types": json.dumps(every)},
        )
        assert answer.status_code == 201
        location = answer.headers["location"]
        wanted = {"types": dict.fromkeys(every, "category")}
        answer = client.patch(location, json=wanted, headers=mine)
        assert_refused(answer, 507, "quota-storage")
        assert answer.json()["detail"].startswith("The table needs more than the ")
        assert client.patch(location, json={"types": {"t1": "category"}}, headers=mine).is_success


@pytest.mark.parametrize("setting_values", [{"reserve_bytes": 10**18}])
def test_a_disk_that_others_filled_is_not_told_as_the_quota_of_the_project(settings):
    with keyed(settings) as (client, keys):
        mine = bearer(keys.create("p", Scope.WRITE))
        answer = client.post("/v1/datasets", content=TABLE, headers=CSV | mine)
        assert_refused(answer, 507, "storage-full")
        assert "of the disk of the service are free" in answer.json()["detail"]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("setting_values", [{"max_project_bytes": 1_000_000}])
def test_an_upload_beyond_the_room_is_refused_before_it_is_whole(settings, chunked):
    with keyed(settings) as (client, keys):
        mine = bearer(keys.create("p", Scope.WRITE))
        sent = []

        def body():
            for number in range(100):
                sent.append(number)
                yield b"1.5,2.5\n" * 10_000

        headers = {**CSV, **mine} if chunked else {**CSV, **mine, "Content-Length": "8000000"}
        answer = client.post("/v1/datasets", content=body(), headers=headers)
        assert_refused(answer, 507, "quota-storage")
        assert files_of(settings) == []
        path = "/v1/models/m/versions"
        headers = {"Content-Type": "application/octet-stream", **mine}
        answer = client.post(path, content=b"\0" * 1_000_001, headers=headers)
        assert_refused(answer, 507, "quota-storage")
        assert client.post("/v1/datasets", content=TABLE, headers={**CSV, **mine}).is_success
