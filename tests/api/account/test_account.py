"""The caller, its usage, its keys and its webhooks over HTTP."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from models_store.computed import Usage
from models_store.errors import DatabaseBusyError
from models_store.keys import Keys, Scope
from tests.api.conftest import CSV, FIT, TABLE, assert_refused
from tests.api.serving import bearer, keyed, registered, stocked
from tests.support.waiting import Clock

HOOK = {"url": "https://example.org/hook"}


@pytest.fixture
def door(settings):
    with keyed(settings) as (client, keys):
        yield client, keys


OPEN = {"max_open_requests": 11, "max_open_streams": 12, "max_open_uploads": 13}


@pytest.mark.parametrize("setting_values", [OPEN | {"rate_limit": 3.5}])
def test_a_caller_sees_who_it_is(door):
    client, keys = door
    new = keys.create("people", Scope.READ, rate=5.0, label="nightly")
    me = client.get("/v1/me", headers=bearer(new.token)).json()
    assert (me["project"], me["scope"]) == ("people", "read")
    assert (me["key"]["id"], me["key"]["label"]) == (new.key.id, "nightly")
    limits = [me["limits"][name] for name in ("open_requests", "event_streams", "uploads")]
    assert [me["limits"]["requests_per_second"], *limits] == [5.0, 11, 12, 13]
    usual = client.get("/v1/me", headers=bearer(keys.create("people", Scope.READ))).json()
    assert usual["limits"]["requests_per_second"] == 3.5
    version = client.get("/v1/version", headers=bearer(new.token)).json()
    assert version["api"] == "v1"


def test_a_service_without_keys_says_so(client):
    me = client.get("/v1/me").json()
    assert (me["key"], me["scope"]) == (None, "admin")
    assert me["limits"]["requests_per_second"] is None
    assert_refused(client.post("/v1/keys", json={}), 403, "forbidden")
    assert "RateLimit" not in client.get("/v1/me").headers


def test_keys_are_made_listed_replaced_and_revoked_within_a_project(door):
    client, keys = door
    admin = bearer(keys.create("people", Scope.ADMIN).token)
    foreign = keys.create("others", Scope.ADMIN)
    writer = bearer(keys.create("people", Scope.WRITE).token)
    for method, path in (("GET", "/v1/keys"), ("POST", "/v1/keys"), ("GET", "/v1/keys/key_x")):
        assert_refused(client.request(method, path, headers=writer, json={}), 403, "forbidden")

    made = client.post("/v1/keys", headers=admin, json={"label": "a", "expires_days": 1})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    token = made.json()["token"]
    times = [datetime.fromisoformat(made.json()[f"{name}_at"]) for name in ("created", "expires")]
    assert times[1] - times[0] == timedelta(days=1)
    assert client.get("/v1/me", headers=bearer(token)).json()["scope"] == "read"
    url = f"/v1/keys/{made.json()['id']}"
    listed = client.get("/v1/keys", headers=admin).json()["items"]
    assert len(listed) == 3
    assert "token" not in listed[-1]
    assert {one["project"] for one in listed} == {"people"}

    after = client.post(f"{url}/rotate", headers=admin, json={"grace_s": 3600}).json()
    assert (after["label"], after["scope"]) == ("a", "read")
    assert client.get("/v1/me", headers=bearer(after["token"])).status_code == 200
    assert client.get(url, headers=admin).json()["state"] == "usable"
    again = client.post(f"{url}/rotate", headers=admin, json={})
    assert (again.status_code, again.headers["cache-control"]) == (201, "no-store")
    assert client.get(url, headers=admin).json()["state"] == "revoked"
    assert_refused(client.post(f"{url}/rotate", headers=admin, json={}), 409, "conflict")
    assert client.delete(url, headers=admin).json()["state"] == "revoked"

    other = f"/v1/keys/{foreign.key.id}"
    assert_refused(client.get(other, headers=admin), 404, "not-found")
    assert_refused(client.delete(other, headers=admin), 404, "not-found")
    assert_refused(client.post(f"{other}/rotate", headers=admin, json={}), 404, "not-found")
    assert keys.bearer(foreign.token) is not None
    for body in ({"scope": "root"}, {"expires_days": 0}, {"rate": -1}, {"label": "\0"}):
        assert_refused(client.post("/v1/keys", headers=admin, json=body), 422, "validation")


def test_a_key_makes_none_beyond_its_rate_and_not_without_end(door, monkeypatch):
    client, keys = door
    admin = bearer(keys.create("people", Scope.ADMIN, rate=50.0).token)
    assert client.post("/v1/keys", headers=admin, json={}).json()["rate"] == 50.0
    assert client.post("/v1/keys", headers=admin, json={"rate": 5}).json()["rate"] == 5.0
    assert_refused(client.post("/v1/keys", headers=admin, json={"rate": 51}), 403, "forbidden")
    for body in ({"rate": 1e-300}, {"expires_days": 1e-300}, {"rate": 5e-324}):
        assert_refused(client.post("/v1/keys", headers=admin, json=body), 422, "validation")
    for faster in (keys.create("people", Scope.READ), keys.create("people", Scope.READ, rate=51.0)):
        path = f"/v1/keys/{faster.key.id}/rotate"
        assert_refused(client.post(path, headers=admin, json={}), 403, "forbidden")
    monkeypatch.setattr("app.account.routes.MAX_KEYS", 3)
    monkeypatch.setattr("models_store.keys.MAX_KEYS", 3)
    assert_refused(client.post("/v1/keys", headers=admin, json={}), 409, "conflict")
    mine = client.get("/v1/me", headers=admin).json()["key"]["id"]
    assert_refused(client.post(f"/v1/keys/{mine}/rotate", headers=admin, json={}), 409, "conflict")
    keys.create("people", Scope.READ)  # on the machine there is no such limit


def test_the_rate_that_is_left_is_told(door, monkeypatch):
    monkeypatch.setattr("app.auth.rates.monotonic", Clock().monotonic)
    client, keys = door
    key = bearer(keys.create("people", Scope.READ, rate=1.0).token)
    answers = [client.get("/v1/version", headers=key) for _ in range(4)]
    assert [answer.status_code for answer in answers].count(429) >= 1
    for answer in answers:
        assert answer.headers["RateLimit-Policy"] == '"requests";q=2;w=2'
    assert answers[0].headers["RateLimit"] == '"requests";r=1;t=1'
    assert answers[-1].headers["RateLimit"] == '"requests";r=0;t=2'
    slow = bearer(keys.create("people", Scope.READ, rate=0.4).token)
    answers = [client.get("/v1/version", headers=slow) for _ in range(2)]
    for answer in answers:
        assert answer.headers["RateLimit-Policy"] == '"requests";q=1;w=3'
        assert answer.headers["RateLimit"] == '"requests";r=0;t=3'
    assert answers[1].headers["Retry-After"] == "3"


def test_usage_is_counted(client):
    state = client.app.state
    registered(state.database, state.blobs)
    client.post("/v1/datasets", content=TABLE, headers=CSV)
    day = datetime.now(UTC).date()
    rows = [[170.0, 70.0, 30.0]] * 7
    assert client.post("/v1/models/people/log_prob", json={"rows": rows}).status_code == 200
    assert client.post("/v1/models/people/sample", json={"n": 5}).status_code == 200
    asyncio.run(state.tallies.write())
    usage = client.get("/v1/usage").json()
    assert usage["computed_rows"]["last_30_days"] == 12
    assert usage["computed_rows"]["today"] == 12 or datetime.now(UTC).date() > day
    assert (usage["datasets"], usage["models"], usage["versions"]) == (1, 1, 1)
    assert usage["stored_bytes"]["used"] > 0
    assert usage["jobs"] == {"succeeded": 1}
    asyncio.run(state.tallies.write())
    assert client.get("/v1/usage").json() == usage
    assert client.delete("/v1/models/people").status_code == 204
    usage = client.get("/v1/usage").json()
    assert (usage["datasets"], usage["models"], usage["versions"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("owner", "method", "counted"), [(Keys, "note_uses", [12, 24]), (Usage, "add_rows", [0, 24])]
)
def test_rows_are_counted_once_whatever_fails(door, monkeypatch, owner, method, counted):
    client, keys = door
    tallies, key = client.app.state.tallies, bearer(keys.create("p", Scope.READ))
    stocked(client)
    rows = {"rows": [[170.0, 70.0, 30.0]] * 12}
    assert client.post("/v1/models/people/log_prob", json=rows, headers=key).is_success

    def fail(*_):
        assert client.post("/v1/models/people/log_prob", json=rows, headers=key).is_success
        raise DatabaseBusyError

    with monkeypatch.context() as patched:
        patched.setattr(owner, method, fail)
        asyncio.run(tallies.write())
    found = []
    for _ in counted:
        usage = client.get("/v1/usage", headers=key).json()
        found.append(usage["computed_rows"]["last_30_days"])
        asyncio.run(tallies.write())
    assert found == counted


def test_the_last_use_of_a_key_is_noted(door):
    client, keys = door
    new = keys.create("people", Scope.ADMIN)
    key = bearer(new.token)
    assert client.get("/v1/me", headers=key).json()["key"]["last_used_at"] is None
    asyncio.run(client.app.state.tallies.write())
    assert [one.last_used_at is None for one in keys.list("people")] == [False]
    with client.app.state.database.write() as session:
        session.execute(text("UPDATE api_key SET last_used_at = NULL"))
    asyncio.run(client.app.state.tallies.write())
    assert client.get("/v1/me", headers=key).json()["key"]["last_used_at"] is None


def test_a_webhook_is_made_shown_changed_and_deleted(client):
    asked = HOOK | {"events": ["job.failed"] * 2, "description": "alarm"}
    made = client.post("/v1/webhooks", json=asked)
    assert (made.status_code, made.json()["events"]) == (201, ["job.failed"])
    assert made.json()["description"] == "alarm"
    url, secret = made.headers["Location"], made.json()["secret"]
    assert secret.startswith("whsec_")
    shown = client.get(url).json()
    assert shown == {name: value for name, value in made.json().items() if name != "secret"}
    assert client.get("/v1/webhooks").json()["items"] == [shown]
    assert client.post(f"{url}/rotate").json()["secret"] != secret
    delivery = client.post(f"{url}/test")
    assert delivery.status_code == 202
    assert client.get(f"{url}/deliveries").json()["items"] == [delivery.json()]
    client.post(f"{url}/test")
    newer = client.get(f"{url}/deliveries?limit=1")
    [rest] = re.findall(r"<(.*)>", newer.headers["Link"])
    assert client.get(rest).json()["items"] == [delivery.json()]
    assert client.delete(url).status_code == 204
    assert_refused(client.get(url), 404, "not-found")


def test_wrong_webhooks_are_refused(client):
    for body in (
        {"url": "http://example.org/"},
        {"url": "https://127.0.0.1/"},
        {"url": ""},
        {**HOOK, "events": []},
        {**HOOK, "events": ["job.started"]},
        {**HOOK, "description": "\0"},
    ):
        assert_refused(client.post("/v1/webhooks", json=body), 422, "validation")
    for _ in range(20):
        assert client.post("/v1/webhooks", json=HOOK).status_code == 201
    assert_refused(client.post("/v1/webhooks", json=HOOK), 409, "limit-webhooks")


def test_a_project_is_made_limited_and_listed_and_gets_its_first_key(door):
    client, keys = door
    admin = bearer(keys.create("default", Scope.ADMIN))
    for name in ("No", "a b", "-", "x" * 65):
        refused = client.put(f"/v1/projects/{name}", headers=admin, json={})
        assert_refused(refused, 404, "not-found")
    assert_refused(client.get("/v1/projects/fraud", headers=admin), 404, "not-found")
    refused = client.post("/v1/projects/fraud/keys", headers=admin, json={})
    assert_refused(refused, 404, "not-found")
    limits = {"max_bytes": 10_000, "max_queued_jobs": 5}
    made = client.put("/v1/projects/fraud", headers=admin, json=limits)
    assert made.json() == limits | {"name": "fraud", "stored_bytes": 0, "keys": 0}
    new = client.post("/v1/projects/fraud/keys", headers=admin, json={"scope": "admin"})
    assert new.status_code == 201
    team = bearer(new.json()["token"])
    found = client.get("/v1/me", headers=team).json()["limits"]
    assert (found["stored_bytes"], found["queued_jobs"]) == (10_000, 5)
    usage = client.get("/v1/usage", headers=team).json()
    assert (usage["stored_bytes"]["limit"], usage["queued_jobs"]["limit"]) == (10_000, 5)

    assert client.post("/v1/datasets", content=TABLE, headers=team | CSV).status_code == 201
    client.put("/v1/projects/fraud", headers=admin, json={"max_bytes": 40})
    stored = client.get("/v1/usage", headers=team).json()["stored_bytes"]
    assert stored["used"] > stored["limit"] == 40
    again = client.post("/v1/datasets", content=TABLE + b"1,2\n", headers=team | CSV)
    assert_refused(again, 507, "quota-storage")
    refused = client.post("/v1/jobs/variational", json=FIT, headers=team)
    assert_refused(refused, 507, "quota-storage")

    client.put("/v1/projects/fraud", headers=admin, json={"max_queued_jobs": 0})
    refused = client.post("/v1/jobs/variational", json=FIT, headers=team)
    assert_refused(refused, 429, "limit-queued-jobs")
    client.put("/v1/projects/fraud", headers=admin, json={})
    assert client.post("/v1/jobs/variational", json=FIT, headers=team).status_code == 202

    listed = client.get("/v1/projects", headers=admin).json()["items"]
    assert [one["name"] for one in listed] == ["default", "fraud", "nobody"]
    assert listed[1]["stored_bytes"] == stored["used"]
    assert listed[1]["keys"] == 1


def test_other_projects_admins_see_and_change_none(door):
    client, keys = door
    team = bearer(keys.create("fraud", Scope.ADMIN))
    for request in (
        *("GET /v1/projects", "GET /v1/projects/fraud", "PUT /v1/projects/fraud"),
        *("POST /v1/projects/default/keys", "GET /metrics"),
    ):
        refused = client.request(*request.split(), headers=team, json={})
        assert_refused(refused, 403, "forbidden")
