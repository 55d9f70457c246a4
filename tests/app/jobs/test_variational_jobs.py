import json
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.live_workers import Workers
from tests.app.conftest import CSV, JSON, slug
from tests.models_store.makers import LEASE_S

RING = {"potential": "U1"}


def start(client: TestClient, target: Any, key: str | None = None, **fields: Any) -> Any:
    body = {"model_name": "density", "target": target, **fields}
    headers = JSON if key is None else {**JSON, "Idempotency-Key": key}
    return client.post("/v1/jobs/variational", content=json.dumps(body), headers=headers)


def uploaded(client: TestClient, table: "np.ndarray[Any, Any]", names: str) -> str:
    lines = [names, *(",".join(map(repr, row)) for row in table.tolist())]
    response = client.post("/v1/datasets", content="\n".join(lines), headers=CSV)
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def test_a_target_is_enough_and_every_choice_is_shown(client):
    response = start(client, RING)
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["kind"], job["state"]) == ("variational", "queued")
    assert job["request"]["target"] == RING
    assert job["request"]["flow"]["family"] == "realnvp"
    assert (
        None
        not in {
            name: value
            for name, value in job["request"]["optimisation"].items()
            if name not in ("patience", "max_seconds")
        }.values()
    )
    [listed] = client.get("/v1/jobs?kind=variational").json()["items"]
    assert listed == {
        name: value for name, value in job.items() if name not in ("request", "queue")
    }
    assert client.get("/v1/jobs?kind=training").json()["items"] == []


def test_a_job_that_fits_on_no_worker_at_work_says_so_in_its_events(client, database):
    Workers(database).beat("small", memory_bytes=2**28)
    job_id = start(client, RING).json()["id"]
    told = [event.data.get("text", "") for event in Jobs(database).events("default", job_id)]
    assert "the largest that is at work has 256 MiB" in told[-1]
    assert JobWork(database).claim("small", lease_s=LEASE_S, memory_bytes=2**28) is None
    assert JobWork(database).claim("large", lease_s=LEASE_S, memory_bytes=2**29) is not None


def test_the_place_of_an_error_in_a_formula_is_told(client):
    response = start(client, {"log_density": "-0.5 * z1^2 - z3", "dim": 2})
    assert (response.status_code, slug(response)) == (422, "formula")
    problem = response.json()
    assert problem["position"] == 15
    [error] = problem["errors"]
    assert error["pointer"] == "/target/log_density"
    assert error["detail"] == (
        "The formula cannot be read at character 15: unknown coordinate 'z3'; there are z1 to z2.\n"
        "-0.5 * z1^2 - z3\n"
        "              ^"
    )
    assert client.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("target", "expected", "pointer"),
    [
        ({"potential": "U9"}, "validation", "/target/potential"),
        ({"log_density": "z1", "dim": 0}, "validation", "/target/dim"),
        ({"log_density": "z1", "dim": 1.5}, "validation", "/target/dim"),
        ({"log_density": "z1"}, "validation", "/target/dim"),
        ({"log_density": 5, "dim": 1}, "validation", "/target/log_density"),
        ({"potential": "U1", "log_density": "z1", "dim": 1}, "validation", "/target"),
        ({}, "validation", "/target"),
        ("U1", "validation", "/target"),
        ({"potential": "U1", "seed": 1}, "unknown-field", "/target/seed"),
        ({"posterior": {"kind": "linear"}}, "validation", "/target/posterior/dataset_id"),
        ({"posterior": {"kind": "cubic"}}, "validation", "/target/posterior"),
    ],
    ids=str,
)
def test_what_is_no_target_is_refused_by_pointer(client, target, expected, pointer):
    response = start(client, target)
    assert (response.status_code, slug(response)) == (422, expected)
    assert pointer in [error.get("pointer") for error in response.json()["errors"]]


def test_what_does_not_suit_the_dataset_is_refused(client):
    dataset_id = uploaded(client, np.arange(12.0).reshape(6, 2) % 5, "x,y")
    posterior = {"kind": "logistic", "dataset_id": dataset_id, "response": "y"}
    response = start(client, {"posterior": posterior})
    assert (response.status_code, slug(response)) == (422, "response-not-binary")
    response = start(client, {"posterior": posterior | {"response": "z"}})
    assert (response.status_code, slug(response)) == (422, "unknown-column")
    response = start(client, {"posterior": posterior | {"dataset_id": "ds_" + "0" * 32}})
    assert (response.status_code, slug(response)) == (404, "not-found")
    response = start(client, RING, flow={"family": "made", "masks": 3})
    assert (response.status_code, slug(response)) == (422, "flow-unsuitable")


def test_a_key_belongs_to_one_body_of_one_kind_of_job(client):
    first = start(client, RING, key="k")
    again = start(client, RING, key="k", optimisation={})
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    other = start(client, {"potential": "U2"}, key="k")
    assert (other.status_code, slug(other)) == (422, "idempotency-key-reused")


def test_progress_counts_iterations_and_reports_are_events(client, database):
    job_id = start(client, RING).json()["id"]
    work = JobWork(database)
    job = work.claim("tester", lease_s=LEASE_S)
    assert job is not None
    progress = {"iteration": 40, "max_iterations": 100, "fraction": 0.4, "eta_seconds": 3.0}
    for iteration in (40, 40, 60):  # a repeated report is no news
        work.record_epoch(
            job.id,
            job.attempt,
            lease_s=LEASE_S,
            metrics={"iteration": iteration, "elbo": -1.5},
            progress=progress,
        )
    assert client.get(f"/v1/jobs/{job_id}").json()["progress"] == progress
    events = client.get(f"/v1/jobs/{job_id}/events?format=json").json()["items"]
    told = [event["data"] for event in events if event["event"] == "epoch"]
    assert told == [{"iteration": 40, "elbo": -1.5}, {"iteration": 60, "elbo": -1.5}]


@pytest.mark.long
def test_a_regression_from_upload_to_samples_agrees_with_its_closed_form(client, supervisor):
    random = np.random.default_rng(3)
    x = random.normal(size=(200, 2))
    y = 1 + x @ [2.0, -0.5] + 0.5 * random.normal(size=200)
    dataset_id = uploaded(client, np.column_stack([x, y]), "a,b,y")
    posterior = {"kind": "linear", "dataset_id": dataset_id, "response": "y"}
    scales = {"prior_scale": 3.0, "noise_scale": 0.5}
    job_id = start(
        client,
        {"posterior": posterior | scales},
        optimisation={"seed": 0, "iterations": 800},
    ).json()["id"]

    assert slug(client.delete(f"/v1/datasets/{dataset_id}")) == "dataset-in-use"

    assert supervisor.run_next()

    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["state"] == "succeeded", job["error"]
    version = client.get("/v1/models/density/versions/1").json()
    assert version["columns"] == ["intercept", "a", "b"]
    assert version["metrics"] == job["metrics"]
    assert version["lineage"]["dataset_id"] == dataset_id
    assert version["lineage"]["target"]["posterior"]["columns"] == ["a", "b"]
    answer = client.post("/v1/models/density/sample", json={"n": 20_000, "seed": 1}).json()
    rows = np.array(answer["rows"])
    design = np.column_stack([np.ones(200), x])
    covariance = np.linalg.inv(design.T @ design / 0.5**2 + np.eye(3) / 3.0**2)
    mean, std = covariance @ design.T @ y / 0.5**2, np.sqrt(np.diag(covariance))
    assert np.abs((rows.mean(axis=0) - mean) / std).max() < 0.05
    assert np.abs(rows.std(axis=0) / std - 1).max() < 0.05
    scored = client.post("/v1/models/density/log_prob", json={"rows": [mean.tolist()]}).json()
    peak = -0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    assert scored["log_prob"][0] == pytest.approx(peak, abs=0.1)


@pytest.mark.slow  # a regression goes the same way
def test_a_formula_becomes_a_model_like_any_other(client, supervisor):
    target = {"log_density": "-norm(z1, z2, z3)", "dim": 3}
    optimisation = {"seed": 0, "iterations": 20, "report_every": 10}
    job_id = start(client, target, optimisation=optimisation).json()["id"]

    assert supervisor.run_next()

    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["state"] == "succeeded", job["error"]
    assert job["progress"]["iteration"] == job["progress"]["max_iterations"] == 20
    version = client.get("/v1/models/density/versions/1").json()
    lineage = version["lineage"]
    assert (lineage["dataset_id"], lineage["dataset_sha256"]) == (None, None)
    assert {name: lineage["target"][name] for name in target} == target
    answer = client.post("/v1/models/density/sample", json={"n": 3, "seed": 1}).json()
    assert answer["columns"] == [f"z{i + 1}" for i in range(version["dim"])]
    rows = {"rows": answer["rows"]}
    scored = client.post("/v1/models/density/log_prob", json=rows).json()
    assert np.isfinite(scored["log_prob"]).all()


def preview(client: TestClient, target: Any) -> Any:
    return client.post("/v1/jobs/variational/preview", json={"target": target})


def test_a_target_is_looked_at_before_a_flow_is_fitted_to_it(client: TestClient) -> None:
    shown = preview(client, RING).json()
    assert shown["window"] == {"lower": [-4, -4], "upper": [4, 4]}
    assert [len(row) for row in shown["log_density"]] == [64] * 64
    assert max(max(row) for row in shown["log_density"]) == 0
    half = preview(client, {"log_density": "log(z1) - z1 - z2^2", "dim": 2}).json()
    assert None in half["log_density"][32]
    assert client.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ({"log_density": "-z1^2 - 2 * (z2", "dim": 2}, "formula"),
        ({"log_density": "-z1^2", "dim": 1}, "plot-unavailable"),
        ({"log_density": "log(-1)", "dim": 2}, "plot-unavailable"),
        (
            {"posterior": {"kind": "linear", "dataset_id": f"ds_{32 * '0'}", "response": "y"}},
            "plot-unavailable",
        ),
    ],
)
def test_a_target_without_a_picture_is_told_why(
    client: TestClient, target: Any, problem: str
) -> None:
    answer = preview(client, target)
    assert answer.status_code == 422
    assert answer.json()["type"] == f"/problems/{problem}"
