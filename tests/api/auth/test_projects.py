"""Projects see nothing of each other: what is another's answers as what does not exist."""

import pytest

from models_store.job_states import JobKind, JobResult
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.keys import Scope
from tests.api.conftest import CSV, FIT, TABLE, assert_refused
from tests.api.serving import bearer, keyed, registered
from tests.store.makers import claimed, submitted

ROWS = {"rows": [[171.5, 68.2, 30.0]]}
NO_DATASET, NO_JOB = "ds_" + "0" * 32, "job_" + "0" * 32


@pytest.fixture(scope="module")
def place(shared_settings):
    """Two projects of the same service: `ours` has everything, `theirs` has nothing."""
    with keyed(shared_settings) as (client, keys):
        ours = bearer(keys.create("ours", Scope.ADMIN))
        theirs = bearer(keys.create("theirs", Scope.ADMIN))
        yield client, ours, theirs, everything(client, ours)


def everything(client, ours):
    """One of each: a dataset, a job that waits, a result, a model with an alias."""
    state = client.app.state
    registered(state.database, state.blobs, project="ours")
    jobs, work = Jobs(state.database), JobWork(state.database)
    drawn = submitted(
        jobs, project="ours", kind=JobKind.SAMPLING, model_name="people", model_version=1
    )
    held = claimed(work)
    with state.blobs.staged(".csv") as file:
        file.write_bytes(b"a\n1\n")
        blob = state.blobs.commit(file, f"results/{drawn.id}/result.csv")
    result = JobResult(
        key=blob.key, sha256=blob.sha256, bytes=blob.bytes, rows=1, media_type="text/csv"
    )
    work.finish(held.id, held.attempt, metrics={}, result=result)
    dataset = client.post("/v1/datasets", content=TABLE, headers={**CSV, **ours}).json()["id"]
    waiting = submitted(jobs, project="ours", model_name="people").id
    alias = client.put("/v1/models/people/aliases/production", json={"version": 1}, headers=ours)
    assert alias.status_code == 200
    return {"dataset": dataset, "job": waiting, "drawn": drawn.id}


RANGES = {"optimisation.weight_decay": {"values": [0.0, 0.1]}}


def requests(dataset, job, drawn, model):
    """Every request that names something of a project: verb, path and what it brings."""
    versioned = f"/v1/models/{model}/versions/1"
    alias = f"/v1/models/{model}/aliases/production"
    start = {"model_name": "m"}
    yield from (
        ("GET", f"/v1/datasets/{dataset}", None),
        ("GET", f"/v1/datasets/{dataset}/rows", None),
        ("DELETE", f"/v1/datasets/{dataset}", None),
        ("GET", f"/v1/jobs/{job}", None),
        ("GET", f"/v1/jobs/{job}/events?format=json", None),
        ("GET", f"/v1/jobs/{drawn}/result", None),
        ("DELETE", f"/v1/jobs/{drawn}/result", None),
        ("POST", f"/v1/jobs/{job}/cancel", None),
        ("POST", f"/v1/jobs/{drawn}/resume", None),
        ("GET", f"/v1/models/{model}", None),
        ("GET", f"/v1/models/{model}/versions", None),
        ("GET", versioned, None),
        ("GET", f"{versioned}/checkpoint", None),
        ("GET", f"{versioned}/export", None),
        ("GET", f"{versioned}/onnx", None),
        ("GET", alias, None),
        ("PUT", alias, {"version": 1}),
        ("DELETE", alias, None),
        ("POST", "/v1/jobs/training", {**start, "dataset_id": dataset}),
        ("POST", "/v1/jobs/sweep", {**start, "dataset_id": dataset, "ranges": RANGES}),
        ("POST", "/v1/jobs/scoring", {"model": model, "dataset_id": dataset}),
        ("POST", "/v1/jobs/sampling", {"model": f"{model}@production", "n": 1}),
        ("POST", "/v1/jobs/variational", {**start, "target": posterior(dataset)}),
    )
    for verb in ("log_prob", "score", "inverse", "forward"):
        for ref in (model, f"{model}:1", f"{model}@production"):
            yield "POST", f"/v1/models/{ref}/{verb}", ROWS
    yield "POST", f"/v1/models/{model}/sample", {"n": 1}


def posterior(dataset):
    return {"posterior": {"kind": "linear", "dataset_id": dataset, "response": "height"}}


def test_what_is_anothers_answers_as_what_does_not_exist(place):
    client, ours, theirs, ids = place
    # An id makes the answer to its request differ in nothing.
    headers = {**theirs, "X-Request-ID": "r"}
    existing = requests(ids["dataset"], ids["job"], ids["drawn"], "people")
    missing = requests(NO_DATASET, NO_JOB, NO_JOB, "nobody")
    nothing_for = {ids["dataset"]: NO_DATASET, ids["job"]: NO_JOB, ids["drawn"]: NO_JOB}
    before = snapshot(client, ours)
    for (method, path, body), (_, nowhere, nothing) in zip(existing, missing, strict=True):
        answer = client.request(method, path, json=body, headers=headers)
        expected = client.request(method, nowhere, json=nothing, headers=headers)
        assert_refused(answer, 404, "not-found")
        told = answer.text  # which names what the request names
        for their_own, none in {**nothing_for, "people": "nobody"}.items():
            told = told.replace(their_own, none)
        assert told == expected.text, (method, path)
        assert dict(answer.headers) == dict(expected.headers), (method, path)
    assert snapshot(client, ours) == before


def test_the_owner_sees_all_of_it(place):
    client, ours, _, ids = place
    for method, path, body in requests(ids["dataset"], ids["job"], ids["drawn"], "people"):
        if method == "GET" or (method != "DELETE" and path.startswith("/v1/models/people")):
            answer = client.request(method, path, json=body, headers=ours)
            uncalibrated = path.endswith("/score")
            assert answer.status_code == (422 if uncalibrated else 200), (method, path)


def snapshot(client, headers):
    paths = ("/v1/datasets", "/v1/jobs", "/v1/models", "/v1/models/people/aliases/production")
    return [client.get(path, headers=headers).content for path in paths]


def test_listings_show_nothing_of_other_projects(place):
    client, ours, theirs, _ = place
    cursor = client.get("/v1/jobs?limit=1", headers=ours).json()["next_cursor"]
    found = client.get("/v1/jobs", params={"cursor": cursor}, headers=theirs).json()
    assert found["items"] == []
    for listing in ("datasets", "jobs", "models", "jobs?state=queued&model_name=people"):
        found = client.get(f"/v1/{listing}", headers=theirs).json()
        assert found == {"items": [], "next_cursor": None}


def test_names_and_idempotency_keys_are_a_projects_own(place):
    client, ours, theirs, _ = place
    key = {"Idempotency-Key": "the-same"}
    answers = [
        client.post("/v1/datasets", content=TABLE, headers={**CSV, **who, **key})
        for who in (ours, theirs, ours)
    ]
    assert [answer.status_code for answer in answers] == [201] * 3
    ids = [answer.json()["id"] for answer in answers]
    assert ids[0] != ids[1]
    assert ids[2] == ids[0]
    assert ["idempotent-replayed" in answer.headers for answer in answers] == [False, False, True]
    body = {"model_name": "people", "dataset_id": ids[1]}
    first, other = (
        client.post("/v1/jobs/variational", json=FIT, headers={**who, "Idempotency-Key": "j"})
        for who in (theirs, ours)
    )
    assert first.json()["id"] != other.json()["id"]
    assert_refused(client.post("/v1/jobs/training", json=body, headers=ours), 404, "not-found")


def test_a_key_of_one_upload_is_not_for_another(place):
    client, ours, _, _ = place
    headers = CSV | ours | {"Idempotency-Key": "one"}
    assert client.post("/v1/datasets", content=TABLE, headers=headers).status_code == 201
    again = client.post("/v1/datasets?name=x", content=TABLE, headers=headers)
    assert_refused(again, 422, "idempotency-key-reused")
    key = {"Idempotency-Key": "one"}
    job = client.post("/v1/jobs/variational", json=FIT, headers=ours | key)
    assert_refused(job, 422, "idempotency-key-reused")


def test_nobody_sets_what_the_service_decides(place):
    client, ours, _, ids = place
    for field in ("project", "state", "attempt", "id", "checkpoint_key", "path"):
        for path, body in (
            ("/v1/jobs/training", {"model_name": "m", "dataset_id": ids["dataset"]}),
            ("/v1/jobs/variational", FIT),
            ("/v1/jobs/sampling", {"model": "people", "n": 1}),
        ):
            answer = client.post(path, json={**body, field: "theirs"}, headers=ours)
            assert_refused(answer, 422, "unknown-field")
        alias = "/v1/models/people/aliases/x"
        answer = client.put(alias, json={"version": 1, field: "theirs"}, headers=ours)
        assert_refused(answer, 422, "unknown-field")
        upload = client.post(f"/v1/datasets?{field}=x", content=TABLE, headers={**CSV, **ours})
        assert_refused(upload, 422, "unknown-parameter")
