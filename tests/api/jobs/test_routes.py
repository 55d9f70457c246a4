import json
from typing import Any

import pytest
import redis
from sqlalchemy import text
from starlette.testclient import TestClient

from models_store.jobs.leases import JobWork
from models_store.registry import Registry
from tests.api.conftest import assert_refused
from tests.api.serving import registered
from tests.store.makers import CRASHED, LEASE_S, PROJECT, added, claimed, finished

COLUMNS = [
    {"name": f"x{i}", "dtype": "float64", "mean": 0.0, "std": 1.0, "min": -3.0, "max": 3.0}
    for i in range(1, 4)
]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def setting_values() -> dict[str, Any]:
    return {"max_queued_jobs": 5, "max_parameters": 150_000}


@pytest.fixture
def dataset_id(registry: Registry) -> str:
    return added(registry, rows=1000, columns=COLUMNS).id


def start(client: TestClient, dataset_id: str, key: str | None = None, **fields: Any) -> Any:
    body = {"model_name": "people", "dataset_id": dataset_id, **fields}
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post("/v1/jobs/training", json=body, headers=headers)


def test_an_accepted_training_shows_every_choice_that_was_made(client, dataset_id):
    response = start(client, dataset_id)
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["kind"], job["attempt"]) == ("queued", "training", 0)
    assert job["model"] == {"name": "people", "version": None}
    assert job["request"]["columns"] == ["x1", "x2", "x3"]
    assert job["request"]["flow"]["family"] == "nsf"
    assert isinstance(job["request"]["optimisation"]["batch_size"], int)
    assert isinstance(job["request"]["optimisation"]["seed"], int)
    assert client.get(response.headers["location"]).json() == job
    assert job["queue"] == {"position": 1, "starts_in_seconds": None}
    assert start(client, dataset_id).json()["queue"]["position"] == 2


def test_datasets_of_a_training_that_waits_cannot_be_deleted(client, registry, dataset_id):
    held_out = added(registry, rows=1000, columns=COLUMNS).id
    started = start(client, dataset_id, split={"validation_dataset_id": held_out})
    assert started.status_code == 202, started.text
    for used in (dataset_id, held_out):
        assert_refused(client.delete(f"/v1/datasets/{used}"), 409, "dataset-in-use")


def test_an_estimate_tells_the_time_of_a_training_and_starts_none(client, dataset_id):
    def estimate(**fields):
        body = {"model_name": "people", "dataset_id": dataset_id, **fields}
        return client.post("/v1/jobs/training/estimate", json=body)

    usual = estimate().json()
    assert (usual["trainings"], usual["queued"]) == (0, 0)
    assert 1 < usual["seconds"] < 600
    assert usual["memory_bytes"] > 2**20
    assert estimate(optimisation={"max_seconds": 0.1}).json()["seconds"] < usual["seconds"]
    assert estimate(quality="best").json()["seconds"] > usual["seconds"]
    assert estimate(flow="auto").json()["seconds"] > 2 * usual["seconds"]
    limited = estimate(flow="auto", optimisation={"max_seconds": 0.5}).json()
    assert limited["seconds"] < usual["seconds"]
    assert_refused(estimate(columns=["nowhere"]), 422, "unknown-column")
    assert client.get("/v1/jobs").json()["items"] == []
    start(client, dataset_id)
    work = JobWork(client.app.state.database)
    finished(work, claimed(work))  # at once
    later = estimate().json()
    assert later["trainings"] == 1
    assert later["seconds"] < usual["seconds"]
    start(client, dataset_id)
    claimed(work)
    with client.app.state.database.write() as session:
        session.execute(text("UPDATE job SET run_seconds = 12.345 WHERE state = 'succeeded'"))
    queue = start(client, dataset_id).json()["queue"]
    assert queue == {"position": 1, "starts_in_seconds": 12.3}


class TestWithBroker:
    @pytest.fixture
    def setting_values(self, redis_url: str) -> dict[str, Any]:
        return {"broker_url": redis_url}

    def test_a_message_wakes_a_worker_that_takes_such_a_job(self, client, dataset_id, redis_url):
        server = redis.Redis.from_url(redis_url)
        job_id = start(client, dataset_id).json()["id"]
        start(client, dataset_id, resources={"accelerator": "required"})
        for queue in ("cpu", "gpu"):
            assert json.loads(server.lrange(queue, 0, 0)[0])["headers"]["task"] == "densityd.work"
        for action in ("cancel", "resume"):
            assert client.post(f"/v1/jobs/{job_id}/{action}").is_success
        assert (server.llen("cpu"), server.llen("gpu")) == (2, 1)
        server.close()

    def test_an_end_between_the_commit_and_the_message_loses_and_doubles_nothing(
        self, client, dataset_id, monkeypatch
    ):
        def end(*_: object) -> None:
            raise OSError  # the commit was, the message and the answer will not be

        with monkeypatch.context() as patch:
            patch.setattr(client.app.state.broker, "announce", end)
            assert start(client, dataset_id, key="k").status_code == 500
        [job] = client.get("/v1/jobs").json()["items"]
        again = start(client, dataset_id, key="k")
        assert (again.status_code, again.json()["id"]) == (202, job["id"])


def test_what_cannot_work_is_refused_before_it_is_accepted(client, dataset_id):
    for expected, fields in (
        ("unknown-field", {"epocs": 3}),
        ("unknown-field", {"__proto__": {"state": "succeeded"}}),
        ("unknown-field", {"source_url": "http://169.254.169.254/"}),
        ("unknown-field", {"metadata": {f"k{i}": i for i in range(40_000)}}),
        ("validation", {"tags": {"a": "x" * 1_000_000}}),
        ("unknown-column", {"columns": ["nope"]}),
        ("duplicate-column", {"columns": ["x1", "x1"]}),
        ("dimension-unsupported", {"columns": ["x1"], "flow": {"family": "realnvp"}}),
        ("limit-parameters", {"flow": {"family": "maf", "layers": 5, "hidden": [1000, 1000]}}),
        ("split-too-small", {"split": {"train": 0.8, "validation": 0.001}}),
    ):
        response = start(client, dataset_id, **fields)
        assert_refused(response, 422, expected)
        assert len(response.content) <= 8192
    assert_refused(start(client, "ds_" + "0" * 32), 404, "not-found")


def test_a_key_belongs_to_one_body_however_it_is_spelt(client, dataset_id):
    first = start(client, dataset_id, key="k-2", columns=["x1", "x2"])
    spelt = f'{{"columns":["x1","\\u00782"],"dataset_id":"{dataset_id}","model_name":"people"}}'
    again = client.post(
        "/v1/jobs/training", content=spelt, headers={**JSON, "Idempotency-Key": "k-2"}
    )
    assert again.json() == first.json()
    other = start(client, dataset_id, key="k-2", columns=["x1"])
    assert_refused(other, 422, "idempotency-key-reused")


def test_a_repeat_gives_the_first_job_even_when_its_dataset_is_gone(client, dataset_id):
    first = start(client, dataset_id, key="k-3").json()
    client.post(f"/v1/jobs/{first['id']}/cancel")
    assert client.delete(f"/v1/datasets/{dataset_id}").status_code == 204
    again = start(client, dataset_id, key="k-3")
    assert (again.status_code, again.json()["id"]) == (202, first["id"])


def test_keys_that_are_no_keys_are_refused(client, dataset_id):
    for key in ("", "x" * 256, "a b"):
        assert_refused(start(client, dataset_id, key=key), 422, "validation")


def test_a_full_queue_takes_neither_new_jobs_nor_those_that_are_resumed(client, dataset_id):
    job_id = start(client, dataset_id).json()["id"]
    client.post(f"/v1/jobs/{job_id}/cancel")
    for _ in range(5):
        assert start(client, dataset_id).status_code == 202
    response = start(client, dataset_id)
    assert_refused(response, 429, "limit-queued-jobs")
    assert int(response.headers["retry-after"]) > 0
    assert_refused(client.post(f"/v1/jobs/{job_id}/resume"), 429, "limit-queued-jobs")
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_jobs_are_listed_newest_first_by_pages_and_filters(client, dataset_id, work):
    ids = [start(client, dataset_id, model_name=f"m{n}").json()["id"] for n in range(5)]
    claimed(work)
    first = client.get("/v1/jobs?limit=3").json()
    second = client.get("/v1/jobs", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    listed = [job["id"] for job in first["items"] + second["items"]]
    assert listed == ids[::-1]
    assert second["next_cursor"] is None

    def ids_of(query: str) -> list[str]:
        return [job["id"] for job in client.get(f"/v1/jobs?{query}").json()["items"]]

    assert ids_of("state=running") == ids[:1]
    assert ids_of("model_name=m3&state=queued&kind=training") == ids[3:4]
    assert ids_of("state=failed") == []


def test_a_forged_listing_and_ids_that_are_none_are_refused(client):
    for query in ("limit=0", "limit=1000000000", "state=lost", "kind=x", "model_name=A%20b"):
        assert_refused(client.get(f"/v1/jobs?{query}"), 422, "validation")
    assert_refused(client.get("/v1/jobs?cursor=forged"), 400, "cursor")
    assert_refused(client.get("/v1/jobs?status=queued"), 422, "unknown-parameter")
    for job_id in ("1", "job_1", "..%5C..", "a%00b", "x" * 200):
        assert client.get(f"/v1/jobs/{job_id}").status_code in {404, 422}


def test_a_running_job_shows_its_progress_and_a_failed_one_says_why(client, dataset_id, work):
    job_id = start(client, dataset_id).json()["id"]
    claim = claimed(work)
    told: dict[str, Any] = {"metrics": {"epoch": 4}, "progress": {"epoch": 4, "fraction": 0.4}}
    work.record_epoch(claim.id, claim.attempt, lease_s=LEASE_S, **told)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["attempt"]) == ("running", 1)
    assert {name: job[name] for name in told} == told
    assert job["started_at"] is not None
    assert (job["queue"], job["next_attempt_at"]) == (None, None)
    work.fail(claim.id, claim.attempt, code="diverged", detail="The likelihood was NaN.")
    answer = client.get(f"/v1/jobs/{job_id}").json()
    assert answer["state"] == "failed"
    assert answer["error"] == {"code": "diverged", "detail": "The likelihood was NaN."}


def test_cancelling_is_idempotent_until_the_job_has_ended_otherwise(client, dataset_id, work):
    waiting, running, done = (start(client, dataset_id).json()["id"] for _ in range(3))
    claimed(work)
    first = claimed(work)
    assert client.post(f"/v1/jobs/{done}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{done}/cancel").status_code == 200
    asked = client.post(f"/v1/jobs/{running}/cancel")
    assert (asked.status_code, asked.json()["state"]) == (202, "running")
    assert asked.json()["cancel_requested"]
    work.cancelled(first.id, first.attempt)
    assert client.post(f"/v1/jobs/{running}/cancel").status_code == 200
    assert client.get(f"/v1/jobs/{running}").json()["cancel_requested"] is False
    work.fail(waiting, 1, code="oom", detail="Too large.")
    assert_refused(client.post(f"/v1/jobs/{waiting}/cancel"), 409, "job-final")
    assert_refused(client.post(f"/v1/jobs/job_{'0' * 32}/cancel"), 404, "not-found")


def test_only_a_cancelled_or_failed_job_can_be_resumed(client, dataset_id, work):
    job_id = start(client, dataset_id).json()["id"]
    assert_refused(client.post(f"/v1/jobs/{job_id}/resume"), 409, "job-not-resumable")
    client.post(f"/v1/jobs/{job_id}/cancel")
    response = client.post(f"/v1/jobs/{job_id}/resume")
    assert (response.status_code, response.json()["state"]) == (202, "queued")
    assert response.json()["queue"]["position"] == 1
    job = claimed(work)
    assert job.id == job_id
    assert work.release(job.id, job.attempt, failed=CRASHED) == "queued"
    assert client.get(f"/v1/jobs/{job_id}").json()["next_attempt_at"] > job.created_at.isoformat()


def test_a_succeeded_job_names_its_version(client, database, blobs):
    version = registered(database, blobs)
    job = client.get(f"/v1/jobs/{version.job_id}").json()
    assert job["state"] == "succeeded"
    assert job["model"] == {"name": "people", "version": 1}
    assert job["metrics"] == {"epoch": 7, "test_log_likelihood": 3.0}


def test_the_request_ids_reach_the_job(client, dataset_id):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    client.headers.update({"X-Request-ID": "req-1", "traceparent": trace})
    job = client.app.state.jobs.get(PROJECT, start(client, dataset_id).json()["id"])
    assert (job.request_id, job.traceparent) == ("req-1", trace)


def test_a_search_lists_what_it_will_try(client, dataset_id):
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


def test_children_are_seen_by_their_parent_alone(client, dataset_id, work):
    parent = start(client, dataset_id, flow="auto", quality="fast").json()["id"]
    child = claimed(work)
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


def test_quality_chooses_the_epochs_unless_they_are_given(client, dataset_id):
    def epochs(**fields: Any) -> int:
        job = start(client, dataset_id, **fields).json()
        return int(job["request"]["optimisation"]["max_epochs"])

    usual = epochs()
    assert epochs(quality="balanced") == usual
    assert epochs(quality="fast") == -(-usual // 4)
    assert epochs(quality="best") == 4 * usual
    assert epochs(quality="best", optimisation={"max_epochs": 7}) == 7


def sweep(client: TestClient, dataset_id: str, **fields: Any) -> Any:
    body = {
        "model_name": "people",
        "dataset_id": dataset_id,
        "flow": {"family": "maf"},
        "ranges": {"flow.layers": {"low": 2, "high": 8}},
        **fields,
    }
    return client.post("/v1/jobs/sweep", json=body)


def test_a_sweep_is_a_search_over_points(client, dataset_id, work):
    response = sweep(client, dataset_id, trials=4, reduction=2)
    assert response.status_code == 202, response.text
    job = response.json()
    assert (job["role"], job["kind"], job["state"]) == ("parent", "training", "queued")
    points = job["request"]["points"]
    assert [trial["flow"]["layers"] for trial in job["request"]["trials"]] == [
        point["flow.layers"] for point in points
    ]
    child = claimed(work)
    work.fail(child.id, child.attempt, code="diverged", detail="It diverged.")
    work.claim("w", lease_s=LEASE_S)
    seen = client.get(f"/v1/jobs/{job['id']}").json()
    assert [trial["state"] for trial in seen["metrics"]["trials"]].count("failed") == 1
    assert seen["metrics"]["trials"][0]["values"] == points[0]
    assert seen["progress"]["eta_seconds"] is not None


def test_wrong_searches_and_sweeps_are_refused_by_pointer(client, dataset_id):
    wrong: list[tuple[Any, str, dict[str, Any]]] = [
        (sweep, "/ranges", {"ranges": {"flow.layers": {"low": 0, "high": 2}}}),
        (sweep, "/ranges/flow.layers/high", {"ranges": {"flow.layers": {"low": 2}}}),
        (sweep, "/trials", {"trials": 1000}),
        (sweep, "/flow", {"flow": "auto"}),
        (start, "/flow/ensemble", {"flow": {"family": "auto", "ensemble": 0}}),
        (start, "/flow/layers", {"flow": {"family": "auto", "layers": 3}}),
        (start, "/flow", {"flow": "automatic"}),
        (start, "/quality", {"quality": "good"}),
    ]
    for ask, pointer, fields in wrong:
        response = ask(client, dataset_id, **fields)
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"].replace("/auto", "") == pointer
