"""Questions about some columns given others over HTTP: densities, gaps that are filled, predictions, conditions."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
import torch
from starlette.testclient import TestClient

from flows.mixed.companion_fitting import fit_companion
from tabular.typed_rows import TypedRows
from tests.api.conftest import assert_refused
from tests.api.mixed_model import COLUMNS, NAMES, SPEC, mixed_flow, mixed_rows, registered_mixed
from tests.api.scoring.test_scores import occupied
from tests.api.serving import COLUMNS as PEOPLE, registered, stores

ROWS = mixed_rows(300, seed=5)


@pytest.fixture(scope="module")
def client(shared_client: TestClient) -> TestClient:
    flow = mixed_flow(SPEC)
    table = torch.from_numpy(ROWS)
    flow.companion = fit_companion(flow, table[:200], table[200:], seed=0)
    registered_mixed(shared_client, "asked", flow=flow)
    registered_mixed(shared_client, "old")
    registered(*stores(shared_client))
    registered(*stores(shared_client), name="given", context_columns=("day",))
    return shared_client


def cells(count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = TypedRows(COLUMNS).batch(ROWS[:count]).to_pylist()
    return found


def asked(client: TestClient, path: str, rows: Any, model: str = "asked", **headers: str) -> Any:
    body = json.dumps({"rows": rows}, default=str)
    headers = {"Content-Type": "application/json", **headers}
    return client.post(f"/v1/models/{model}/{path}", content=body, headers=headers)


def found(client: TestClient, path: str, rows: Any) -> Any:
    response = asked(client, path, rows)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_density_given_other_columns_is_the_joint_over_theirs(client):
    rows = cells(5)
    last, others = NAMES[-1], NAMES[:-1]
    given = "&".join(f"given={name}" for name in others)
    conditional = found(client, f"log_prob?columns={last}&{given}", rows)
    columns = "&".join(f"columns={name}" for name in others)
    part = found(client, f"log_prob?{columns}", [{n: r[n] for n in others} for r in rows])
    whole = found(client, "log_prob", rows)
    difference = np.array(whole["log_prob"]) - np.array(part["log_prob"])
    assert conditional["log_prob"] == pytest.approx(difference, abs=1e-6)
    assert conditional["given"] == others


def test_gaps_are_filled_and_other_cells_stay(client):
    rows = cells(6)
    order = [*NAMES[1:], NAMES[0], *NAMES]  # rows that lack the same cells are computed together
    gaps = [{**row, name: None} for row, name in zip(rows, order, strict=False)]
    answer = found(client, "impute?level=0.9", gaps)
    filled = [dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]]
    for row, gap, whole in zip(filled, gaps, rows, strict=True):
        for name in NAMES:
            if gap[name] is not None:
                assert str(row[name]) == str(whole[name])
            else:
                assert row[name] is not None
    table = pa.ipc.open_stream(
        asked(client, "impute", gaps, Accept="application/vnd.apache.arrow.stream").content
    ).read_all()
    assert table.column_names == NAMES
    csv = asked(client, "impute?level=0.9", gaps, Accept="text/csv").text
    assert csv.splitlines()[0].split(",") == answer["columns"]
    assert len(csv.splitlines()) == 7
    assert "nan" not in csv
    assert ",," in csv, "nothing was filled there"
    plain = asked(client, "impute", gaps, Accept="text/csv").text
    again = client.post(
        "/v1/models/asked/impute",
        content=f"A report\n{plain}",
        headers={"Content-Type": "text/csv"},
    )
    assert [one["code"] for one in again.json()["body_warnings"]] == ["skipped"]
    assert [row[: len(NAMES)] for row in answer["rows"]] == again.json()["rows"]


def test_gaps_that_wait_together_are_drawn_by_their_own_seeds(client):
    rows = [{**row, NAMES[0]: None, NAMES[5]: None} for row in cells(6)]
    seeds = [f"impute?fill=draw&seed={seed}" for seed in (1, 2)]
    with ThreadPoolExecutor(2) as threads, occupied(client, max_waiting=8) as (engine, release):
        waiting = [threads.submit(asked, client, path, rows) for path in seeds]
        while engine.waiting < 3:
            time.sleep(0.01)
        release.set()
        together = [one.result().json()["rows"] for one in waiting]
    assert together == [found(client, path, rows)["rows"] for path in seeds]
    assert together[0] != together[1]


def test_a_column_of_levels_has_probabilities_and_one_of_numbers_quantiles(client):
    rows = cells(4)
    for place, name in enumerate(NAMES):
        others = [{n: r[n] for n in NAMES if n != name} for r in rows]
        answer = found(client, f"expect?column={name}&quantiles=0.1&quantiles=0.9", others)
        if SPEC.columns[place].levels:
            assert all(sum(p.values()) == pytest.approx(1) for p in answer["probabilities"])
        else:
            assert all(q["0.1"] <= q["0.9"] for q in answer["quantiles"])
            assert found(client, f"expect?column={name}", others).keys() == answer.keys() - {
                "quantiles"
            }
    rest = [{n: r[n] for n in NAMES if n != "price"} for r in rows]
    shares = [
        np.array(found(client, f"expect?column=price&{bound}=7", rest)["probability"], np.float64)
        for bound in ("low", "high")
    ]
    assert np.sum(shares, axis=0) == pytest.approx(1, abs=0.01)


def test_draws_have_the_cells_that_are_given_and_keep_to_conditions(client):
    wanted = cells(3)
    number = next(i for i, c in enumerate(SPEC.columns) if not c.levels)
    level = next(i for i, c in enumerate(SPEC.columns) if c.levels)
    low, high = np.nanquantile(ROWS[:, number], [0.5, 0.8])
    value = wanted[0][NAMES[level]]
    body = {
        "n": 200,
        "seed": 3,
        "given": {NAMES[level]: {"in": [value]}, NAMES[number]: {"between": [low, high]}},
    }
    answer = client.post("/v1/models/asked/sample", json=body)
    assert answer.status_code == 200, answer.text
    rows = answer.json()["rows"]
    assert {row[level] for row in rows} == {value}
    assert all(low - 1e-6 <= row[number] <= high + 1e-6 for row in rows)
    assert client.post("/v1/models/asked/sample", json=body).json() == answer.json()
    for bounds, sign in (([low, None], 1), ([None, low], -1)):
        body["given"] = {NAMES[number]: {"between": bounds}}
        rows = client.post("/v1/models/asked/sample", json=body).json()["rows"]
        assert all(sign * (row[number] - low) >= -1e-6 for row in rows)
    body["given"] = {"doors": {"between": [3, 3]}}  # bounds belong to it
    rows = client.post("/v1/models/asked/sample", json=body).json()["rows"]
    assert {row[NAMES.index("doors")] for row in rows} == {3}
    body["given"] = {NAMES[level]: value}
    rows = client.post("/v1/models/asked/sample", json=body).json()["rows"]
    assert {row[level] for row in rows} == {value}


@pytest.mark.parametrize(
    ("path", "where", "said"),
    [
        ("log_prob?columns=nothing", "columns", "'nothing'"),
        (f"log_prob?columns={NAMES[0]}&given={NAMES[0]}", "columns", "once"),
        ("expect?column=nothing", "column", "'nothing'"),
        ("impute?given=nothing", "given", "'nothing'"),
        ("expect", "column", "missing"),
        ("expect?column=price&given=price", "given", "leave it out"),
        ("log_prob?columns=price&space=model", "space", "leave `space` out"),
        ("log_prob?columns=price&parts=true", "parts", "Leave it out"),
        ("log_prob?given=price&conditionals=true", "parts", "Leave it out"),
    ],
)
def test_a_column_that_the_model_does_not_have_is_named(client, path, where, said):
    response = asked(client, path, cells(1))
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["parameter"] == where
    assert said in error["detail"]


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        ("asked", {"nothing": 1}, "The model does not describe it; it has 'cut'"),
        ("asked", {"cut": {"in": ["no such level"]}}, "No training row has this value"),
        ("asked", {"cut": {"between": ["a", 1]}}, "No training row has this value"),
        ("asked", {"price": {"between": [5, 4.9]}}, "The lower bound of `between` is above"),
        ("asked", {"price": None}, "Leave it out: a cell that is not known needs no null"),
        ("asked", {"price": "x"}, "the value is not a number"),
        ("people", {"height": "1"}, "It must be a number"),
        ("people", {"height": {"in": [True]}}, "It must be a number"),
    ],
)
def test_a_condition_that_no_cell_can_meet_names_its_column(client, model, given, said):
    response = client.post(f"/v1/models/{model}/sample", json={"n": 1, "given": given})
    [error] = assert_refused(response, 422, "validation")["errors"]
    [name] = given
    assert error["pointer"] == f"/given/{name}"
    assert error["detail"].startswith(f"'{name}': ")
    assert said in error["detail"]


@pytest.mark.parametrize(
    ("model", "path"), [("old", "impute"), ("given", "impute"), ("given", "log_prob?columns=age")]
)
def test_a_version_without_a_companion_says_to_train_again(client, model, path):
    refused = asked(
        client, path, [dict.fromkeys(PEOPLE, 1.0)] if model == "given" else cells(1), model
    )
    assert_refused(refused, 422, "question-unavailable")
