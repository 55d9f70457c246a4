"""Group D with a worker: trainings that saturate the machine, and more models than fit."""

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest

from flows import MafSpec
from tests.app.serving import registered
from tests.faults.invariants import assert_jobs_end, resident_bytes
from tests.faults.service import JSON, ROWS, Service, running_worker
from tests.tables.files import npy

pytestmark = pytest.mark.slow

ENDLESS = {"max_epochs": 100_000, "patience": 100_000, "batch_size": 20}


@pytest.fixture(scope="module", autouse=True)
def worker(service: Service, _invariants: None) -> Iterator[None]:
    """A worker for the jobs of this module, gone before the invariants are looked at."""
    with running_worker(service):
        yield
        assert_jobs_end(service.database, within_s=120)


@pytest.fixture
def start(service: Service) -> Iterator[Any]:
    """Start a training of random rows; what still runs at the end is cancelled."""
    rows = np.random.default_rng(0).normal(size=(2_000, 3))
    with service.client() as client:
        headers = {"Content-Type": "application/x-npy"}
        dataset = client.post("/v1/datasets", content=npy(rows), headers=headers).json()
        started: list[str] = []

        def start(**optimisation: Any) -> httpx2.Response:
            body = {
                "model_name": "trained",
                "dataset_id": dataset["id"],
                "flow": {"family": "maf", "layers": 2, "hidden": [16]},
                "optimisation": optimisation,
            }
            response = client.post("/v1/jobs/training", json=body)
            if response.status_code == 202:
                started.append(response.json()["id"])
            return response

        yield start
        for job_id in started:
            client.post(f"/v1/jobs/{job_id}/cancel")


def job(service: Service, job_id: str) -> dict[str, Any]:
    with service.client() as client:
        found: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
    return found


def test_rows_are_scored_while_a_training_runs(service, start):
    job_id = start(**ENDLESS).json()["id"]
    while job(service, job_id)["state"] != "running":
        time.sleep(0.2)
    with service.client() as client:
        for _ in range(100):
            scored = client.post("/v1/models/people/log_prob", content=ROWS, headers=JSON)
            assert scored.status_code == 200, scored.text
    assert job(service, job_id)["state"] == "running"


def test_jobs_beyond_the_queues_limit_are_refused_and_the_others_end(start):
    start(**ENDLESS)
    answers = [start(max_epochs=1) for _ in range(30)]
    statuses = [response.status_code for response in answers]
    assert set(statuses) == {202, 429}
    assert all("retry-after" in r.headers for r in answers if r.status_code == 429)


def test_more_models_than_fit_take_turns_in_bounded_memory(service, idle):
    names = [f"turn{i}" for i in range(40)]
    for i, name in enumerate(names):
        spec = MafSpec(layers=2, hidden=[160, 160])
        registered(service.database, service.blobs, name=name, spec=spec, seed=i)
    first = {name: service.log_prob(name) for name in names}
    for _ in range(3):
        assert {name: service.log_prob(name) for name in names} == first
    assert len(set(first.values())) == len(names)
    assert resident_bytes(service.pid) < idle + 100 * 2**20
