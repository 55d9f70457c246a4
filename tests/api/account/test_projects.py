"""Projects as an administrator of the service makes, limits and lists them."""

import pytest

from models_store.keys import Scope
from tests.api.conftest import CSV, TABLE, assert_refused
from tests.api.keyed import bearer, keyed


@pytest.fixture
def door(settings):
    with keyed(settings) as (client, keys):
        yield client, bearer(keys.create("default", Scope.ADMIN)), keys


def test_a_project_is_made_limited_and_listed_and_gets_its_first_key(door):
    client, admin, _ = door
    assert_refused(client.get("/v1/projects/fraud", headers=admin), 404, "not-found")
    limits = {"max_bytes": 10_000, "max_queued_jobs": 5}
    made = client.put("/v1/projects/fraud", headers=admin, json=limits)
    assert made.json() == limits | {"name": "fraud", "stored_bytes": 0, "keys": 0}
    new = client.post("/v1/projects/fraud/keys", headers=admin, json={"scope": "admin"})
    assert new.status_code == 201
    team = bearer(new.json()["token"])
    found = client.get("/v1/me", headers=team).json()["limits"]
    assert (found["stored_bytes"], found["queued_jobs"]) == (10_000, 5)

    uploaded = client.post("/v1/datasets", content=TABLE, headers=team | CSV)
    assert uploaded.status_code == 201
    client.put("/v1/projects/fraud", headers=admin, json={"max_bytes": 40})
    stored = client.get("/v1/usage", headers=team).json()["stored_bytes"]
    assert stored["used"] > stored["limit"] == 40
    again = client.post("/v1/datasets", content=TABLE + b"1,2\n", headers=team | CSV)
    assert_refused(again, 507, "quota-storage")
    fit = {"model_name": "m", "target": {"potential": "U1"}}
    refused = client.post("/v1/jobs/variational", json=fit, headers=team)
    assert_refused(refused, 507, "quota-storage")

    client.put("/v1/projects/fraud", headers=admin, json={"max_queued_jobs": 0})
    refused = client.post("/v1/jobs/variational", json=fit, headers=team)
    assert_refused(refused, 429, "limit-queued-jobs")
    client.put("/v1/projects/fraud", headers=admin, json={})
    assert client.post("/v1/jobs/variational", json=fit, headers=team).status_code == 202

    listed = client.get("/v1/projects", headers=admin).json()["items"]
    assert [one["name"] for one in listed] == ["default", "fraud", "nobody"]
    assert listed[1]["stored_bytes"] == stored["used"]
    assert listed[1]["keys"] == 1


def test_other_projects_admins_see_and_change_none(door):
    client, _, keys = door
    team = bearer(keys.create("fraud", Scope.ADMIN))
    for method, path in (
        ("GET", "/v1/projects"),
        ("GET", "/v1/projects/fraud"),
        ("PUT", "/v1/projects/fraud"),
        ("POST", "/v1/projects/default/keys"),
        ("GET", "/metrics"),
    ):
        body: dict[str, str] | None = None if method == "GET" else {}
        assert_refused(client.request(method, path, headers=team, json=body), 403, "forbidden")


@pytest.mark.parametrize("name", ["No", "a b", "-", "x" * 65])
def test_a_name_that_no_project_can_have_is_not_found(door, name):
    client, admin, _ = door
    assert_refused(client.put(f"/v1/projects/{name}", headers=admin, json={}), 404, "not-found")
