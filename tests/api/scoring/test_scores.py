import asyncio
import dataclasses
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from app.engine.engine import Engine
from app.main import create_app
from app.settings import ApiSettings
from tests.api.conftest import JSON, assert_refused
from tests.api.mixed_model import NAMES, registered_mixed
from tests.api.serving import COLUMNS, MEAN, STD, a_flow, registered, stores
from tests.tables.files import npy

NPY = "application/x-npy"
ROWS = [[171.5, 68.2, 30.0], [180.1, 80.9, 51.0]]
NOISE = [[0.1, -0.5, 1.2], [-1.0, 0.3, 0.0]]
NAMED = [dict(zip(reversed(COLUMNS), reversed(row), strict=True)) for row in ROWS]


@pytest.fixture(scope="module")
def shared_setting_values() -> dict[str, Any]:
    return {"max_score_rows": 50_000, "max_sample_rows": 30_000, "max_json_bytes": 2_000_000}


@pytest.fixture(scope="module")
def client(shared_client: TestClient) -> TestClient:
    """One application with the model `people` for all tests of this module."""
    registered(*stores(shared_client))
    return shared_client


def from_npy(content: bytes) -> np.ndarray:
    values: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return values


def ask(client: TestClient, what: str, body: Any, ref: str = "people", **headers: str) -> Any:
    """Send rows as npy or JSON, whichever they are; bytes as they are."""
    kind = NPY if isinstance(body, np.ndarray) else "application/json"
    content = npy(body) if isinstance(body, np.ndarray) else body
    if not isinstance(content, bytes):
        content = json.dumps(body)
    sent = {name.replace("_", "-"): text for name, text in headers.items()} | {"Content-Type": kind}
    return client.post(f"/v1/models/{ref}/{what}", content=content, headers=sent)


def expected(rows: list[list[float]]) -> np.ndarray:
    with torch.no_grad():
        return a_flow().double().log_prob(torch.tensor(rows, dtype=torch.float64)).numpy()


# log_prob


@pytest.mark.parametrize("rows", [ROWS, NAMED], ids=["lists", "objects"])
def test_log_prob_gives_the_densities_of_the_flow(client, rows):
    response = ask(client, "log_prob", {"rows": rows})
    assert response.status_code == 200
    body = response.json()
    assert body["model"] == response.headers["x-model"] == "people:1"
    assert body["row_errors"] == []
    np.testing.assert_allclose(body["log_prob"], expected(ROWS), atol=1e-4)


@pytest.mark.parametrize("what", ["log_prob", "inverse", "sample"])
def test_a_query_that_spells_a_default_changes_no_byte(client, what):
    body = {"n": 3, "seed": 1} if what == "sample" else {"rows": ROWS}
    plain, spelled = (ask(client, f"{what}{query}", body) for query in ("", "?space=data"))
    assert plain.status_code == 200
    assert plain.content == spelled.content
    varying = {"x-request-id"}
    assert {n: v for n, v in plain.headers.items() if n not in varying} == {
        n: v for n, v in spelled.headers.items() if n not in varying
    }


def test_the_density_in_model_space_lacks_the_units_of_the_data(client):
    standard = ((torch.tensor(ROWS) - MEAN) / STD).tolist()
    response = ask(client, "log_prob?space=model", {"rows": standard})
    units = float(STD.log().sum())
    np.testing.assert_allclose(response.json()["log_prob"], expected(ROWS) + units, atol=1e-3)


def test_a_row_without_a_finite_density_is_null_and_the_others_are_not_affected(client):
    alone = ask(client, "log_prob", {"rows": ROWS}).json()["log_prob"]
    body = ask(client, "log_prob", {"rows": [ROWS[0], [1e308, 1e308, 1e308], ROWS[1]]}).json()
    assert body["log_prob"][1] is None
    assert body["log_prob"][::2] == pytest.approx(alone, rel=1e-6)
    assert [(error["row"], error["code"]) for error in body["row_errors"]] == [(1, "non_finite")]


def test_rows_that_hold_nan_are_null_in_json_and_stay_nan_in_npy(client):
    rows = np.array([*ROWS, [np.nan, 1.0, 2.0], [np.inf, 1.0, 2.0]])
    body = ask(client, "log_prob", rows).json()
    assert body["log_prob"][2:] == [None, None]
    assert {error["code"] for error in body["row_errors"]} == {"non_finite_input"}
    values = from_npy(ask(client, "log_prob", rows, accept=NPY).content)
    assert np.isfinite(values[:2]).all()
    assert not np.isfinite(values[2:]).any()


def test_a_row_scores_the_same_alone_and_among_many(client):
    rows = np.random.default_rng(0).normal(size=(20_000, 3)) * STD.numpy() + MEAN.numpy()
    many = from_npy(ask(client, "log_prob", rows, accept=NPY).content)
    assert many.shape == (20_000,)
    for index in (0, 1, 255, 256, 9_999, 19_999):
        one = from_npy(ask(client, "log_prob", rows[index : index + 1], accept=NPY).content)
        assert one[0] == pytest.approx(many[index], abs=1e-4)


def test_a_large_answer_in_json_is_whole(client):
    rows = np.random.default_rng(0).normal(size=(50_000, 3)) * STD.numpy() + MEAN.numpy()
    rows[[3, 49_999]] = np.nan
    response = ask(client, "inverse", rows)
    body = response.json()
    assert len(body["rows"]) == len(body["log_det"]) == 50_000
    assert [error["row"] for error in body["row_errors"]] == [3, 49_999]
    assert body["rows"][3] == [None] * 3
    np.testing.assert_allclose(
        body["rows"][-2], ask(client, "inverse", rows[-2:-1]).json()["rows"][0], atol=1e-5
    )


# refusals


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        ({"rows": [[1.0, 2.0]]}, 422, "dimension-mismatch"),
        ({"rows": [{"height": 1, "weight": 2}]}, 422, "columns-mismatch"),
        (np.zeros((2, 3), complex), 422, "array-dtype"),
        (np.zeros((50_001, 3), np.int8), 413, "limit-rows"),
        (b"", 400, "body-empty"),
        (b'{"rows": "%s"}' % (b"x" * 1_000_000), 422, "batch-shape"),
        (b'{"rows": [[1, 2, 3]]}' + b" " * 2_000_000, 413, "limit-body"),
    ],
    ids=range(7),
)
def test_bad_batches_are_refused_with_a_reason_and_never_echoed(client, body, status, slug):
    response = ask(client, "log_prob", body)
    told = assert_refused(response, status, slug)
    assert len(response.content) < 8192
    if slug == "dimension-mismatch":
        assert (told["expected"], told["got"]) == (3, 2)


def test_what_is_not_there_is_not_found(client):
    for ref in (
        *("nobody", "people:2", "people@production", "people:x", "..%5C", "a%00b"),
        *("", "a/b", "people/log_prob"),
    ):
        assert_refused(ask(client, "log_prob", {"rows": ROWS}, ref=ref), 404, "not-found")


def test_an_unknown_space_and_too_many_samples_are_refused(client):
    told = assert_refused(ask(client, "log_prob?space=latent", {"rows": ROWS}), 422, "validation")
    assert told["errors"][0]["parameter"] == "space"
    told = assert_refused(ask(client, "sample", {"n": 30_001}), 413, "limit-samples")
    assert (told["errors"][0]["pointer"], told["limit"]) == ("/n", 30_000)
    assert_refused(ask(client, "sample", {"n": 1, "seed": 2**64}), 422, "validation")


# inverse and forward


def test_forward_undoes_inverse_with_the_opposite_log_det(client):
    noise = ask(client, "inverse", {"rows": ROWS}).json()
    data = ask(client, "forward", {"rows": noise["rows"]}).json()
    np.testing.assert_allclose(data["rows"], ROWS, rtol=1e-4)
    np.testing.assert_allclose(data["log_det"], -np.array(noise["log_det"]), atol=1e-4)


def test_noise_may_be_named_by_the_column_that_it_becomes(client):
    noise = dict(zip(COLUMNS, NOISE[0], strict=True))
    by_name = ask(client, "forward", {"rows": [noise]}).json()
    assert by_name == ask(client, "forward", {"rows": NOISE[:1]}).json()


# sample


@pytest.mark.parametrize("n", [5, 5000])
def test_every_seed_gives_the_same_rows_twice_and_others_than_other_seeds(client, n):
    seen = set()
    for seed in (0, 2**32, 2**63 - 1):
        first, second = (ask(client, "sample", {"n": n, "seed": seed}) for _ in "12")
        assert first.content == second.content
        assert first.headers["x-seed"] == str(seed)
        body = first.json()
        assert (body["model"], body["seed"], body["columns"]) == ("people:1", seed, COLUMNS)
        assert np.array(body["rows"]).shape == (n, 3)
        seen.add(first.content)
    assert len(seen) == 3


def test_a_seed_that_the_server_picked_is_told(client):
    body = ask(client, "sample", {"n": 3}).json()
    assert body["rows"] == ask(client, "sample", {"n": 3, "seed": body["seed"]}).json()["rows"]
    assert body["rows"] != ask(client, "sample", {"n": 3, "seed": None}).json()["rows"]


def test_samples_in_model_space_are_standardised(client):
    data = np.array(ask(client, "sample", {"n": 9, "seed": 1}).json()["rows"])
    standard = np.array(ask(client, "sample?space=model", {"n": 9, "seed": 1}).json()["rows"])
    np.testing.assert_allclose((data - MEAN.numpy()) / STD.numpy(), standard, atol=1e-4)


# the engine, the store and the caller


@contextmanager
def occupied(client, *, max_waiting):
    """An engine that is busy until the event is set."""
    engine = Engine(max_waiting=max_waiting)
    engine.start()
    usual = client.app.state
    client.app.state = dataclasses.replace(usual, engine=engine)
    release = threading.Event()

    async def occupy() -> None:
        await engine.run(lambda: release.wait(120))

    busy = threading.Thread(target=asyncio.run, args=(occupy(),))
    busy.start()
    try:
        while engine.waiting == 0:
            time.sleep(0.01)
        yield engine, release
    finally:
        release.set()
        busy.join()
        engine.stop()
        client.app.state = usual


def test_a_full_engine_answers_503_with_retry_after(client):
    assert ask(client, "log_prob", {"rows": ROWS}).status_code == 200
    with occupied(client, max_waiting=1):
        for what, body in (("log_prob", {"rows": ROWS}), ("sample", {"n": 3})):
            response = ask(client, what, body)
            assert_refused(response, 503, "overloaded")
            assert int(response.headers["retry-after"]) >= 1
    assert ask(client, "log_prob", {"rows": ROWS}).status_code == 200


def test_rows_of_two_spaces_that_wait_together_are_computed_apart(client):
    spaces = ["log_prob", "log_prob?space=model"]
    with ThreadPoolExecutor(2) as threads, occupied(client, max_waiting=8) as (engine, release):
        asked = [threads.submit(ask, client, space, {"rows": ROWS}) for space in spaces]
        while engine.waiting < 3:
            time.sleep(0.01)
        release.set()
        together = [one.result().json()["log_prob"] for one in asked]
    alone = [ask(client, space, {"rows": ROWS}).json()["log_prob"] for space in spaces]
    assert together == alone


def test_who_waited_as_long_as_they_would_is_answered_503(client):
    tensor = {"name": "rows", "shape": [2, 3], "datatype": "FP64", "data": ROWS}
    inference = {"inputs": [tensor], "parameters": {"timeout": 50_000}}  # in microseconds

    def wait(timeout: str) -> Any:
        return ask(client, "log_prob", {"rows": ROWS}, X_Request_Timeout=timeout)

    with ThreadPoolExecutor(1) as threads, occupied(client, max_waiting=8) as (engine, release):
        patient = threads.submit(wait, "25")
        while engine.waiting < 2:
            time.sleep(0.01)
        refused = wait("0.05")
        assert client.post("/v2/models/people/infer", json=inference).status_code == 503
        release.set()
        assert patient.result().status_code == 200
    assert_refused(refused, 503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1


def test_a_corrupt_file_is_503_and_serves_nothing(client):
    database, blobs = stores(client)
    path = blobs.path(registered(database, blobs, name="flipped").checkpoint_key)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert_refused(ask(client, "sample", {"n": 3}, ref="flipped"), 503, "artifact-corrupt")
    data[-1] ^= 1
    path.write_bytes(data)
    assert ask(client, "sample", {"n": 3}, ref="flipped").status_code == 200


def test_a_file_of_another_flow_is_503(client):
    database, blobs = stores(client)
    narrow = registered(database, blobs, name="narrow", columns=["a", "b"])
    swapped = registered(database, blobs, name="swapped")
    with database.write() as session:
        session.connection().exec_driver_sql(
            "UPDATE model_version SET checkpoint_key = ?, checkpoint_sha256 = ? WHERE job_id = ?",
            (narrow.checkpoint_key, narrow.checkpoint_sha256, swapped.job_id),
        )
    refused = ask(client, "log_prob", {"rows": ROWS}, ref="swapped")
    assert_refused(refused, 503, "artifact-mismatch")


def test_a_timeout_that_is_no_number_of_seconds_is_refused(client):
    for timeout in ("0", "-1", "soon", "nan", "inf"):
        answer = ask(client, "log_prob", {"rows": ROWS}, X_Request_Timeout=timeout)
        told = assert_refused(answer, 422, "validation")
        assert told["errors"][0]["parameter"] == "X-Request-Timeout"
    assert ask(client, "log_prob", {"rows": ROWS}, X_Request_Timeout="2.5").status_code == 200


def test_the_examples_of_the_documentation_are_accepted(client):
    registered(*stores(client), name="examples", columns=["height", "weight"])
    paths = client.get("/openapi.json").json()["paths"]
    for what in ("log_prob", "inverse", "forward", "sample"):
        operation = paths[f"/v1/models/{{ref}}/{what}"]["post"]
        for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
            assert ask(client, what, example["value"], ref="examples").status_code == 200


# what is found without a search is served as all else


def test_errors_are_problems_and_are_counted_by_the_template(client):
    assert_refused(client.post("/v1/models/nobody/log_prob", json={"rows": ROWS}), 404, "not-found")
    assert_refused(
        client.post("/v1/models/people/log_prob", content=b"[", headers=JSON), 400, "json-syntax"
    )
    text = client.get("/metrics").text
    assert 'method="POST",route="/v1/models/{ref}/log_prob",status="404"}' in text


def test_a_reference_may_be_escaped_and_answers_have_an_id_and_security_headers(client):
    headers = client.post("/v1/models/people%3A1/log_prob", json={"rows": ROWS}).headers
    assert (headers["x-model"], headers["x-frame-options"]) == ("people:1", "DENY")
    assert len(headers["x-request-id"]) == 32


@pytest.fixture
def alone(settings: ApiSettings) -> Iterator[TestClient]:
    """An application with the model `people` for one test."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        registered(*stores(client))
        yield client


def test_metrics_tell_of_the_models_and_the_engine(alone):
    for _ in range(3):
        alone.post("/v1/models/people/log_prob", json={"rows": ROWS}).raise_for_status()
    text = alone.get("/metrics").text
    for line in (
        "densityd_model_loads_total 1.0",
        "densityd_model_cache_hits_total 2.0",
        "densityd_model_load_failures_total 0.0",
        "densityd_model_evictions_total 0.0",
        "densityd_models_loaded 1.0",
        "densityd_engine_waiting 0.0",
        "densityd_engine_batch_rows_count 3.0",
        "densityd_engine_batch_rows_sum 6.0",
    ):
        assert f"\n{line}\n" in text
    assert "densityd_models_loaded_bytes 0.0" not in text


@pytest.mark.parametrize("setting_values", [{"max_body_bytes": 1024, "max_score_rows": 20}])
def test_a_body_that_is_too_large_is_told_to_be_split_or_to_become_a_job(alone):
    for rows, slug in ((100, "limit-body"), (21, "limit-rows")):
        response = alone.post("/v1/models/people/log_prob", json=[[171.5, 68.2, 30.0]] * rows)
        assert_refused(response, 413, slug)
    detail = alone.post("/v1/models/people/log_prob", content=b"[" * 2000, headers=JSON)
    assert "Split it, or upload the rows as a dataset and start a scoring job" in detail.text
    registered(
        *stores(alone), name="wordy", columns=["c" * 300, "d"]
    )  # names in each row of a text
    told = alone.post("/v1/models/wordy/inverse", json=[[171.5, 68.2]] * 12)
    assert "The response" in assert_refused(told, 413, "limit-rows")["detail"]


@pytest.mark.parametrize("setting_values", [{"max_body_bytes": 1024}])
def test_rows_of_few_bytes_take_no_more_memory_than_a_body_of_numbers(alone):
    registered_mixed(alone, "sparse")
    whole = dict.fromkeys(NAMES)
    told = alone.post("/v1/models/sparse/log_prob", json=[whole, *[{}] * 100])
    assert assert_refused(told, 413, "limit-rows")["limit"] == 4 * 1024 // (8 * len(NAMES))
