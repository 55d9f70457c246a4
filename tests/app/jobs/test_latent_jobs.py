"""Amortised inference over HTTP: from a table to posteriors and the evidence of rows."""

import io
import json
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from flows import LatentSpec, build
from tests.app.conftest import slug
from tests.app.jobs.test_variational_jobs import start, uploaded
from tests.app.serving import registered

LOADINGS, NOISE = np.array([[1.0], [0.5], [-2.0]]), 0.5
JSON = {"Content-Type": "application/json"}


def observed(rows: int = 200) -> "np.ndarray[Any, Any]":
    draws = np.random.default_rng(0).normal(size=(rows, 4))
    return np.asarray(draws[:, :1] @ LOADINGS.T + NOISE * draws[:, 1:])


def evidence(x: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    covariance = LOADINGS @ LOADINGS.T + NOISE**2 * np.eye(3)
    squares = (x @ np.linalg.inv(covariance) * x).sum(axis=1)
    return np.asarray(-0.5 * (squares + np.log(np.linalg.det(2 * np.pi * covariance))))


def ask(client: Any, ref: str, what: str, body: Any) -> Any:
    return client.post(f"/v1/models/{ref}/{what}", content=json.dumps(body), headers=JSON)


@pytest.mark.long
def test_posteriors_and_evidence_of_rows_are_those_of_the_known_model(client, supervisor):
    x = observed()
    model = {
        "dataset_id": uploaded(client, x, "a,b,c"),
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
    response = ask(client, "given", "evidence", {"rows": [[1.0, 2.0]]})
    assert (response.status_code, slug(response)) == (422, "evidence-unavailable")


def test_rows_and_parameters_of_the_evidence_are_checked(client, database, blobs):
    spec = LatentSpec(likelihood="bernoulli", hidden=[4])
    flow = build(spec, 2, context_dim=2, seed=0).eval()
    registered(
        database,
        blobs,
        name="bits",
        spec=spec,
        columns=["z1", "z2"],
        context_columns=("a", "b"),
        flow=flow,
    )
    found = ask(client, "bits", "evidence", {"rows": [[1, 0], [0.5, 1]]}).json()
    assert found["log_evidence"][1] is None
    assert [one["row"] for one in found["row_errors"]] == [1]
    wide = ask(client, "bits", "evidence", {"rows": [[1, 0, 0, 1]]})
    assert (wide.status_code, slug(wide)) == (422, "dimension-mismatch")
    for query in (
        "samples=0",
        "samples=1001",
        "samples=-1",
        "samples=1e2",
        "seed=9223372036854775808",
    ):
        refused = ask(client, "bits", f"evidence?{query}", {"rows": [[1, 0]]})
        assert (refused.status_code, slug(refused)) == (422, "validation"), query
        [error] = refused.json()["errors"]
        assert error["parameter"] == query.partition("=")[0]


def test_columns_that_are_not_binary_are_refused(client):
    model = {
        "dataset_id": uploaded(client, observed(), "a,b,c"),
        "likelihood": "bernoulli",
        "dim": 1,
    }
    response = start(client, {"latent": model})
    assert (response.status_code, slug(response)) == (422, "response-not-binary")
    assert client.get("/v1/jobs").json()["items"] == []
