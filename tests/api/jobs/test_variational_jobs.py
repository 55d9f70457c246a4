import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from flows import LatentSpec, build
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.live_workers import Workers
from tests.api.conftest import assert_refused
from tests.api.scoring.test_scores import occupied
from tests.api.serving import registered, uploaded
from tests.store.makers import LEASE_S
from tests.support.waiting import wait_until

RING = {"potential": "U1"}


def start(client: TestClient, target: Any, **fields: Any) -> Any:
    body = {"model_name": "density", "target": target, **fields}
    return client.post("/v1/jobs/variational", json=body)


def test_a_target_is_enough_and_every_choice_is_shown(client):
    response = start(client, RING)
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["kind"], job["state"]) == ("variational", "queued")
    assert job["request"]["target"] == RING
    assert job["request"]["flow"]["family"] == "realnvp"
    chosen = job["request"]["optimisation"]
    assert {name for name in chosen if chosen[name] is None} <= {"patience", "max_seconds"}
    [listed] = client.get("/v1/jobs?kind=variational").json()["items"]
    assert listed["id"] == job["id"]
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
    problem = assert_refused(response, 422, "formula")
    assert problem["position"] == 15
    [error] = problem["errors"]
    assert error["pointer"] == "/target/log_density"
    assert error["detail"] == (
        "The formula cannot be read at character 15: unknown coordinate 'z3'; there are z1 to z2.\n"
        "-0.5 * z1^2 - z3\n"
        "              ^"
    )
    assert client.get("/v1/jobs").json()["items"] == []


def test_what_is_no_target_is_refused_by_pointer(client):
    for pointer, expected, target in (
        ("/target/potential", "validation", {"potential": "U9"}),
        ("/target/dim", "validation", {"log_density": "z1", "dim": 1.5}),
        ("/target", "validation", {"potential": "U1", "log_density": "z1", "dim": 1}),
        ("/target", "validation", {}),
        ("/target", "validation", "U1"),
        ("/target/seed", "unknown-field", {"potential": "U1", "seed": 1}),
        ("/target/posterior/dataset_id", "validation", {"posterior": {"kind": "linear"}}),
        ("/target/posterior", "validation", {"posterior": {"kind": "cubic"}}),
    ):
        problem = assert_refused(start(client, target), 422, expected)
        assert pointer in [error.get("pointer") for error in problem["errors"]]


def test_what_does_not_suit_the_dataset_is_refused(client):
    dataset_id = uploaded(client, np.arange(12.0).reshape(6, 2) % 5, ["x", "y"])
    posterior = {"kind": "logistic", "dataset_id": dataset_id, "response": "y"}
    for status, slug, change in (
        (422, "response-not-binary", {}),
        (422, "unknown-column", {"response": "z"}),
        (404, "not-found", {"dataset_id": "ds_" + "0" * 32}),
    ):
        assert_refused(start(client, {"posterior": posterior | change}), status, slug)
    assert_refused(start(client, RING, flow={"family": "made", "masks": 3}), 422, "flow-unsuitable")


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


@pytest.mark.slow
def test_a_regression_from_upload_to_samples_agrees_with_its_closed_form(client, supervisor):
    random = np.random.default_rng(3)
    x = random.normal(size=(200, 2))
    y = 1 + x @ [2.0, -0.5] + 0.5 * random.normal(size=200)
    dataset_id = uploaded(client, np.column_stack([x, y]), ["a", "b", "y"])
    posterior = {"kind": "linear", "dataset_id": dataset_id, "response": "y"}
    scales = {"prior_scale": 3.0, "noise_scale": 0.5}
    job_id = start(
        client, {"posterior": posterior | scales}, optimisation={"seed": 0, "iterations": 800}
    ).json()["id"]

    assert_refused(client.delete(f"/v1/datasets/{dataset_id}"), 409, "dataset-in-use")

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


def preview(client: TestClient, target: Any) -> Any:
    return client.post("/v1/jobs/variational/preview", json={"target": target})


def test_a_target_is_looked_at_before_a_flow_is_fitted_to_it(client):
    shown = preview(client, RING).json()
    assert shown["window"] == {"lower": [-4, -4], "upper": [4, 4]}
    assert [len(row) for row in shown["log_density"]] == [64] * 64
    assert max(max(row) for row in shown["log_density"]) == 0
    half = preview(client, {"log_density": "log(z1) - z1 - z2^2", "dim": 2}).json()
    assert None in half["log_density"][32]
    assert client.get("/v1/jobs").json()["items"] == []


def test_a_target_without_a_picture_is_told_why(client):
    regression = {"kind": "linear", "dataset_id": f"ds_{32 * '0'}", "response": "y"}
    for problem, target in (
        ("formula", {"log_density": "-z1^2 - 2 * (z2", "dim": 2}),
        ("plot-unavailable", {"log_density": "-z1^2", "dim": 1}),
        ("plot-unavailable", {"log_density": "log(-1)", "dim": 2}),
        ("plot-unavailable", {"posterior": regression}),
    ):
        assert_refused(preview(client, target), 422, problem)


LOADINGS, NOISE = np.array([[1.0], [0.5], [-2.0]]), 0.5


def observed(rows: int = 200) -> "np.ndarray[Any, Any]":
    draws = np.random.default_rng(0).normal(size=(rows, 4))
    return np.asarray(draws[:, :1] @ LOADINGS.T + NOISE * draws[:, 1:])


def evidence(x: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    covariance = LOADINGS @ LOADINGS.T + NOISE**2 * np.eye(3)
    squares = (x @ np.linalg.inv(covariance) * x).sum(axis=1)
    return np.asarray(-0.5 * (squares + np.log(np.linalg.det(2 * np.pi * covariance))))


def ask(client: Any, ref: str, what: str, body: Any) -> Any:
    return client.post(f"/v1/models/{ref}/{what}", json=body)


@pytest.mark.slow
def test_posteriors_and_evidence_of_rows_are_those_of_the_known_model(client, supervisor):
    x = observed()
    model = {
        "dataset_id": uploaded(client, x, ["a", "b", "c"]),
        "likelihood": "gaussian",
        "loadings": LOADINGS.tolist(),
        "noise_scale": NOISE,
    }
    options = {"iterations": 300, "learning_rate": 0.05, "report_every": 50, "seed": 1}
    accepted = start(client, {"latent": model}, optimisation=options)
    assert accepted.status_code == 202, accepted.text
    assert supervisor.run_next()
    job = client.get(f"/v1/jobs/{accepted.json()['id']}").json()
    assert job["state"] == "succeeded", job["error"]
    metrics = job["metrics"]
    assert metrics["judged_rows"] == 20
    assert metrics["elbo"] == pytest.approx(metrics["exact_log_evidence"], abs=0.05)
    told = client.get(f"/v1/jobs/{job['id']}/events").text.splitlines()
    reports = [json.loads(line.removeprefix("data: ")) for line in told if '"elbo"' in line]
    elbos = [report["elbo"] for report in reports if "elbo" in report]
    assert len(elbos) == 6
    assert elbos[-1] > elbos[0]

    version = client.get("/v1/models/density/versions/1").json()
    assert version["columns"] == ["z1"]
    assert version["context_columns"] == ["a", "b", "c"]
    assert version["lineage"]["target"]["latent"]["noise_scale"] == NOISE
    check_posterior(client, x[0])
    check_evidence(client, x[:5])
    check_copy(client, x[:5])


def check_posterior(client: TestClient, row: "np.ndarray[Any, Any]") -> None:
    """Compare samples and densities given a row with the posterior in closed form."""
    precision = 1 + float((LOADINGS**2).sum()) / NOISE**2
    mean = float(LOADINGS[:, 0] @ row) / NOISE**2 / precision
    drawn = ask(client, "density", "sample", {"n": 4000, "seed": 1, "context": [row.tolist()]})
    z = np.array(drawn.json()["rows"])
    assert z.mean() == pytest.approx(mean, abs=0.1 * precision**-0.5 + 0.02)
    assert z.std() == pytest.approx(precision**-0.5, rel=0.1)
    log_prob = ask(client, "density", "log_prob", {"rows": [[mean, *row.tolist()]]})
    peak = 0.5 * np.log(precision / (2 * np.pi))
    assert log_prob.json()["log_prob"][0] == pytest.approx(peak, abs=0.2)


def named(x: "np.ndarray[Any, Any]") -> dict[str, Any]:
    return {"rows": [dict(zip("cab", (row[2], *row[:2]), strict=True)) for row in x.tolist()]}


def check_evidence(client: TestClient, x: "np.ndarray[Any, Any]") -> None:
    """Compare the evidence of rows with the exact one, and in JSON with that in npy."""
    found = ask(client, "density", "evidence?samples=200&seed=3", named(x)).json()
    assert (found["model"], found["seed"], found["row_errors"]) == ("density:1", 3, [])
    np.testing.assert_allclose(found["log_evidence"], evidence(x), atol=0.1)
    assert all(np.array(found["elbo"]) <= np.array(found["log_evidence"]) + 1e-9)
    file = io.BytesIO()
    np.save(file, x)
    binary = client.post(
        "/v1/models/density/evidence?samples=200&seed=3",
        content=file.getvalue(),
        headers={"Content-Type": "application/x-npy", "Accept": "application/x-npy"},
    )
    both = np.load(io.BytesIO(binary.content))
    np.testing.assert_array_equal(both, np.array([found["elbo"], found["log_evidence"]]).T)


def check_copy(client: TestClient, x: "np.ndarray[Any, Any]") -> None:
    """Compare a version with itself after its export and import."""
    exported = client.get("/v1/models/density/versions/1/export").content
    headers = {"Content-Type": "application/octet-stream"}
    copied = client.post("/v1/models/copied/versions", content=exported, headers=headers)
    assert copied.status_code == 201, copied.text
    refs = "density", "copied"
    first, second = (ask(client, ref, "evidence", named(x)).json() for ref in refs)
    assert first["log_evidence"] == second["log_evidence"]


def test_a_model_without_latent_variables_has_no_evidence(client, database, blobs):
    registered(database, blobs, name="given", context_columns=("day", "hour"))
    refused = ask(client, "given", "evidence", {"rows": [[1.0, 2.0]]})
    assert_refused(refused, 422, "evidence-unavailable")


def test_rows_and_parameters_of_the_evidence_are_checked(client, database, blobs):
    for name, hidden in (("bits", [4]), ("large", [1200, 1200])):
        spec = LatentSpec(likelihood="bernoulli", hidden=hidden)
        flow = build(spec, 2, context_dim=2, seed=0).eval()
        columns: dict[str, Any] = {"columns": ["z1", "z2"], "context_columns": ("a", "b")}
        registered(database, blobs, name=name, spec=spec, flow=flow, **columns)
    found = ask(client, "bits", "evidence", {"rows": [[1, 0], [0.5, 1]]}).json()
    assert found["log_evidence"][1] is None
    paths = [f"evidence?seed={seed}" for seed in (1, 2)]
    with ThreadPoolExecutor(2) as threads, occupied(client, max_waiting=8) as (engine, release):
        waiting = [threads.submit(ask, client, "bits", path, {"rows": [[1, 0]]}) for path in paths]
        wait_until(lambda: engine.waiting == 3)
        release.set()
        together = [one.result().json()["elbo"] for one in waiting]
    alone = [ask(client, "bits", path, {"rows": [[1, 0]]}).json()["elbo"] for path in paths]
    assert together == alone, "each has the noise of its own seed"
    assert alone[0] != alone[1]
    assert [one["row"] for one in found["row_errors"]] == [1]
    refused = ask(client, "large", "evidence?samples=1000", {"rows": [[1, 0]]})
    told = assert_refused(refused, 422, "evidence-unavailable")["detail"]
    assert "would take 1,000 passes over a large model" in told
    wide = ask(client, "bits", "evidence", {"rows": [[1, 0, 0, 1]]})
    assert_refused(wide, 422, "dimension-mismatch")
    for query in ("samples=0", "samples=1001", "seed=9223372036854775808"):
        refused = ask(client, "bits", f"evidence?{query}", {"rows": [[1, 0]]})
        [error] = assert_refused(refused, 422, "validation")["errors"]
        assert error["parameter"] == query.partition("=")[0]
