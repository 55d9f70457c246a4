"""Refusals that name what would have been right."""

import pytest

from models_store.jobs.jobs import Jobs
from tests.app.conftest import assert_refused
from tests.app.serving import registered
from tests.models_store.makers import PROJECT, submitted

FIT = {"model_name": "m", "target": {"potential": "U1"}}


def detail(response, status, slug):
    assert_refused(response, status, slug)
    return response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("/v1/dataset", "/v1/datasets"),
        ("/v1/models/people/version", "/v1/models/{name}/versions"),
        ("/v1/jobs/job_1/event", "/v1/jobs/{job_id}/events"),
        ("/v1/model/people", "/v1/models/{name}"),
    ],
)
def test_an_unknown_route_is_said_to_be_one_and_the_nearest_is_named(shared_client, path, nearest):
    told = detail(shared_client.get(path), 404, "not-found")
    assert told == f"There is no such route. The nearest is `{nearest}`."
    assert detail(shared_client.get("/xyzzy"), 404, "not-found") == "There is no such route."


def test_a_wrong_method_is_told_which_are_right(shared_client):
    told = detail(shared_client.put("/v1/datasets"), 405, "method-not-allowed")
    assert told == "This route takes GET, HEAD, POST, not PUT."


def test_a_trailing_comma_is_named(shared_client):
    headers = {"Content-Type": "application/json"}
    body = b'{"model_name": "m",}'
    answer = shared_client.post("/v1/jobs/variational", content=body, headers=headers)
    assert "A comma stands behind the last value" in detail(answer, 400, "json-syntax")
    other = shared_client.post("/v1/jobs/variational", content=b'{"a" 1}', headers=headers)
    assert "comma" not in detail(other, 400, "json-syntax")


def test_json_without_a_content_type_is_told_so(shared_client):
    answer = shared_client.post("/v1/jobs/variational", content=b"{}")
    assert detail(answer, 415, "media-type") == (
        "The body's Content-Type is missing; send `Content-Type: application/json`."
    )


def test_a_date_is_a_bound_of_a_list(client):
    submitted(Jobs(client.app.state.database))
    for bound, count in (("gte]=2020-01-01", 1), ("lt]=2020-01-01", 0), ("lt]=2999-12-31", 1)):
        answer = client.get(f"/v1/jobs?created_at[{bound}")
        assert (answer.status_code, len(answer.json()["items"])) == (200, count)
    assert client.get("/v1/jobs?created_at[gte]=2020-13-01").status_code == 422


def test_an_unknown_version_or_alias_lists_those_that_there_are(client):
    state = client.app.state
    for seed in (0, 1):
        registered(state.database, state.blobs, seed=seed)
    assert client.put("/v1/models/people/aliases/live", json={"version": 1}).status_code == 200
    body = {"rows": [[170, 70, 40]]}
    told = detail(client.post("/v1/models/people:99/log_prob", json=body), 404, "not-found")
    assert told == "No such version: people:99. There is people:2, people:1."
    told = detail(client.post("/v1/models/people@prod/log_prob", json=body), 404, "not-found")
    assert told.startswith("No such alias: prod. There is live.")


def test_a_model_whose_first_training_waits_is_told_so(client):
    job = submitted(Jobs(client.app.state.database), project=PROJECT, model_name="later")
    told = detail(client.get("/v1/models/later"), 404, "not-found")
    assert told == f"No such model: later. Its first training, {job.id}, is queued."
