"""What is found without a search is served as all else, refusals included."""

import pytest

from tests.app.conftest import JSON, assert_refused
from tests.app.serving import registered

ROWS = {"rows": [[171.5, 68.2, 30.0]]}


@pytest.fixture
def client(client):
    registered(client.app.state.database, client.app.state.blobs)
    return client


def test_another_method_is_refused_with_those_there_are(client):
    response = client.get("/v1/models/people/log_prob")
    assert_refused(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/v1/models//log_prob", "/v1/models/people/log_prob/", "/v1/models/a/b/log_prob"]
)
def test_other_paths_are_not_found(client, path):
    assert_refused(client.post(path, json=ROWS), 404, "not-found")


def test_a_reference_may_be_escaped(client):
    response = client.post("/v1/models/people%3A1/log_prob", json=ROWS)
    assert (response.status_code, response.headers["x-model"]) == (200, "people:1")


def test_errors_are_problems_and_are_counted_by_the_template(client):
    assert_refused(client.post("/v1/models/nobody/log_prob", json=ROWS), 404, "not-found")
    assert_refused(
        client.post("/v1/models/people/log_prob", content=b"[", headers=JSON), 400, "json-syntax"
    )
    text = client.get("/metrics").text
    assert 'method="POST",route="/v1/models/{ref}/log_prob",status="404"} 1.0' in text


def test_answers_have_an_id_and_security_headers(client):
    headers = client.post("/v1/models/people/log_prob", json=ROWS).headers
    assert headers["x-frame-options"] == "DENY"
    assert len(headers["x-request-id"]) == 32


def test_metrics_tell_of_the_models_and_the_engine(client):
    for _ in range(3):
        client.post("/v1/models/people/log_prob", json=ROWS).raise_for_status()
    text = client.get("/metrics").text
    for line in (
        "densityd_model_loads_total 1.0",
        "densityd_model_cache_hits_total 2.0",
        "densityd_model_load_failures_total 0.0",
        "densityd_model_evictions_total 0.0",
        "densityd_models_loaded 1.0",
        "densityd_engine_waiting 0.0",
        "densityd_engine_batch_rows_count 3.0",
        "densityd_engine_batch_rows_sum 3.0",
    ):
        assert f"\n{line}\n" in text
    assert "densityd_models_loaded_bytes 0.0" not in text


@pytest.mark.parametrize("setting_values", [{"model_cache_bytes": 0}])
def test_the_speed_of_a_flow_is_known_by_its_version(client, monkeypatch):
    state = client.app.state
    registered(state.database, state.blobs, name="others", seed=1)
    keys, flows = [], []  # flows that are held have identities of their own
    apply = state.engine.apply

    async def noted(function, *given, key, **options):
        keys.append(key)
        flows.append(function)
        await apply(function, *given, key=key, **options)

    monkeypatch.setattr(state.engine, "apply", noted)
    for name in ("people", "people", "others", "people"):
        client.post(f"/v1/models/{name}/log_prob", json=ROWS).raise_for_status()
    assert len({function.args[0] for function in flows}) == 4  # loaded again each time
    assert [key == keys[0] for key in keys] == [True, True, False, True]


@pytest.mark.parametrize("setting_values", [{"max_body_bytes": 1024, "max_score_rows": 20}])
def test_a_body_that_is_too_large_is_told_to_be_split_or_to_become_a_job(client):
    for rows, slug in ((100, "limit-body"), (21, "limit-rows")):
        response = client.post("/v1/models/people/log_prob", json=[[171.5, 68.2, 30.0]] * rows)
        assert_refused(response, 413, slug)
    detail = client.post("/v1/models/people/log_prob", content=b"[" * 2000, headers=JSON)
    assert "Split it, or upload the rows as a dataset and start a scoring job" in detail.text
