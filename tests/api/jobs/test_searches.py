"""Searches over HTTP: what is accepted, how a parent and its children look, and what is refused."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from models_store.jobs.leases import JobWork
from models_store.registry import Registry
from tests.store.makers import LEASE_S, added

COLUMNS = [
    {"name": f"x{i}", "dtype": "float64", "mean": 0.0, "std": 1.0, "min": -3.0, "max": 3.0}
    for i in range(1, 4)
]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def dataset_id(registry: Registry) -> str:
    return added(registry, rows=1000, columns=COLUMNS).id


def start(client: TestClient, dataset_id: str, **fields: Any) -> Any:
    body = {"model_name": "people", "dataset_id": dataset_id, **fields}
    return client.post("/v1/jobs/training", content=json.dumps(body), headers=JSON)


def test_a_search_lists_what_it_will_try(client: TestClient, dataset_id: str) -> None:
    flows: list[tuple[Any, int]] = [("auto", 3), ({"family": "auto", "ensemble": 1}, 1)]
    for flow, ensemble in flows:
        response = start(client, dataset_id, flow=flow)
        assert response.status_code == 202, response.text
        job = response.json()
        assert (job["role"], job["parent_id"], job["state"]) == ("parent", None, "queued")
        families = [trial["flow"]["family"] for trial in job["request"]["trials"]]
        assert families[0] == "nsf"
        assert {"nsf", "maf", "gaussian_mixture"} == set(families)
        assert job["request"]["ensemble"] == ensemble


def test_children_are_seen_by_their_parent_alone(
    client: TestClient, dataset_id: str, work: JobWork
) -> None:
    parent = start(client, dataset_id, flow="auto", quality="fast").json()["id"]
    child = work.claim("w", lease_s=LEASE_S)
    assert child is not None
    assert [job["id"] for job in client.get("/v1/jobs").json()["items"]] == [parent]
    listed = client.get("/v1/jobs", params={"parent_id": parent}).json()["items"]
    assert child.id in [job["id"] for job in listed]
    assert {job["role"] for job in listed} == {"child"}
    seen = client.get(f"/v1/jobs/{parent}").json()
    assert seen["state"] == "running"
    assert seen["progress"]["stages"] == 2  # the default, then the others
    assert [trial["state"] for trial in seen["metrics"]["trials"]] == []
    refused = client.post(f"/v1/jobs/{child.id}/resume")
    assert (refused.status_code, parent in refused.json()["detail"]) == (409, True)
    assert client.post(f"/v1/jobs/{parent}/cancel").status_code == 202
    work.cancelled(child.id, child.attempt)
    assert work.claim("w", lease_s=LEASE_S) is None
    assert client.get(f"/v1/jobs/{parent}").json()["state"] == "cancelled"
    events = client.get(f"/v1/jobs/{parent}/events", params={"format": "json"}).json()["items"]
    ended = [event["data"]["job_id"] for event in events if event["event"] == "child"]
    assert set(ended) == {job["id"] for job in listed}
    assert client.delete(f"/v1/jobs/{child.id}").status_code == 409
    assert client.delete(f"/v1/jobs/{parent}").status_code == 204
    assert client.get(f"/v1/jobs/{child.id}").status_code == 404


def test_quality_chooses_the_epochs_unless_they_are_given(
    client: TestClient, dataset_id: str
) -> None:
    def epochs(**fields: Any) -> int:
        job = start(client, dataset_id, **fields).json()
        return int(job["request"]["optimisation"]["max_epochs"])

    usual = epochs()
    assert epochs(quality="balanced") == usual
    assert epochs(quality="fast") == -(-usual // 4)
    assert epochs(quality="best") == 4 * usual
    assert epochs(quality="best", optimisation={"max_epochs": 7}) == 7


def test_wrong_searches_are_refused_by_pointer(client: TestClient, dataset_id: str) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("/flow/auto/ensemble", {"flow": {"family": "auto", "ensemble": 0}}),
        ("/flow/auto/layers", {"flow": {"family": "auto", "layers": 3}}),
        ("/flow", {"flow": "automatic"}),
        ("/quality", {"quality": "good"}),
    ]
    for pointer, fields in wrong:
        response = start(client, dataset_id, **fields)
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] in (pointer, pointer.replace("/auto", ""))


def sweep(client: TestClient, dataset_id: str, **fields: Any) -> Any:
    body = {
        "model_name": "people",
        "dataset_id": dataset_id,
        "flow": {"family": "maf"},
        "ranges": {"flow.layers": {"low": 2, "high": 8}},
        **fields,
    }
    return client.post("/v1/jobs/sweep", content=json.dumps(body), headers=JSON)


def test_a_sweep_is_a_search_over_points(
    client: TestClient, dataset_id: str, work: JobWork
) -> None:
    response = sweep(client, dataset_id, trials=4, reduction=2)
    assert response.status_code == 202, response.text
    job = response.json()
    assert (job["role"], job["kind"], job["state"]) == ("parent", "training", "queued")
    points = job["request"]["points"]
    assert [trial["flow"]["layers"] for trial in job["request"]["trials"]] == [
        point["flow.layers"] for point in points
    ]
    child = work.claim("w", lease_s=LEASE_S)
    assert child is not None
    work.fail(child.id, child.attempt, code="diverged", detail="It diverged.")
    work.claim("w", lease_s=LEASE_S)
    seen = client.get(f"/v1/jobs/{job['id']}").json()
    assert [trial["state"] for trial in seen["metrics"]["trials"]].count("failed") == 1
    assert seen["metrics"]["trials"][0]["values"] == points[0]
    assert seen["progress"]["eta_seconds"] is not None


def test_wrong_sweeps_are_refused_by_pointer(client: TestClient, dataset_id: str) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("/ranges", {"ranges": {"flow.layers": {"low": 0, "high": 2}}}),
        ("/ranges/flow.layers/high", {"ranges": {"flow.layers": {"low": 2}}}),
        ("/trials", {"trials": 1000}),
        ("/flow", {"flow": "auto"}),
    ]
    for pointer, fields in wrong:
        response = sweep(client, dataset_id, **fields)
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == pointer
