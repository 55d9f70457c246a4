"""Densities of single columns given those before them over HTTP."""

import itertools
import json

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from flows import MadeSpec, MafSpec, compile_flow, conditional_densities, conditional_order
from tabular.formats import TableFormat
from tests.app.mixed_model import NAMES, SPEC, TYPES, mixed_flow
from tests.app.serving import COLUMNS, a_flow, registered
from tests.app.wire import FORMATS, MEDIA_TYPE, read

MADE = MadeSpec(hidden=[8], order="random")
BINARY = MadeSpec(conditional="bernoulli", hidden=[8])
GIVEN = MafSpec(layers=1, hidden=[8])
ROWS = np.array([[170.0, 70.0, 40.0], [181.5, 90.0, 25.0]])


@pytest.fixture(scope="module")
def client(tmp_path_factory, migrated_database):
    data_dir = tmp_path_factory.mktemp("conditionals")
    (data_dir / migrated_database.name).write_bytes(migrated_database.read_bytes())
    app = create_app(ApiSettings(data_dir=data_dir))
    with TestClient(app, raise_server_exceptions=False) as client:
        stores = app.state.database, app.state.blobs
        registered(*stores)
        registered(*stores, name="made", spec=MADE)
        registered(*stores, name="binary", spec=BINARY)
        registered(*stores, name="given", spec=GIVEN, context_columns=("year",))
        registered(*stores, name="mixed", spec=SPEC, columns=NAMES, types=TYPES, flow=mixed_flow())
        yield client


def ask(client, model, rows, answer=TableFormat.JSON, query=""):
    body = json.dumps({"rows": np.asarray(rows).tolist()}).encode()
    headers = {"Content-Type": "application/json", "Accept": MEDIA_TYPE[answer]}
    path = f"/v1/models/{model}/log_prob?conditionals=true{query}"
    return client.post(path, content=body, headers=headers)


def numbers(rows):
    return np.array([list(row.values()) for row in rows], np.float64)


@pytest.mark.parametrize("answer", FORMATS)
@pytest.mark.parametrize("space", ["data", "model"])
def test_they_are_in_every_format(client, answer, space):
    rows = ROWS if space == "data" else (ROWS - ROWS.mean(axis=0)) / 10
    response = ask(client, "made", rows, answer, f"&space={space}")
    assert response.status_code == 200, response.text
    flow = a_flow(spec=MADE)
    with torch.no_grad():
        found = conditional_densities(flow, torch.from_numpy(rows), space=space)
    expected = np.hstack([found.log_probs, found.means])
    names = [f"{part}.{name}" for part in ("conditional", "mean") for name in COLUMNS]
    if answer is TableFormat.JSON:
        document = response.json()
        order = conditional_order(flow)
        assert order is not None
        assert document["order"] == [COLUMNS[place] for place in order]
        assert [list(row) for row in document["mean"]] == [COLUMNS] * 2
        parts = numbers(document["conditional"]), numbers(document["mean"])
        values = np.hstack([np.array(document["log_prob"])[:, None], *parts])
    elif answer is TableFormat.NDJSON:
        lines = [json.loads(line) for line in response.content.splitlines()]
        values = np.array([[line[name] for name in ["log_prob", *names]] for line in lines])
    else:
        header, values = read(answer, response.content)
        assert header in ([], ["log_prob", *names])
    np.testing.assert_allclose(values[:, 1:], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(values[:, 1:4].sum(axis=1), values[:, 0], rtol=1e-4)
    alone = compile_flow(flow).log_prob(rows, space=space)
    np.testing.assert_allclose(values[:, 0], alone, rtol=1e-6)


def test_the_reconstruction_of_a_binary_row_is_the_probability_of_a_1(client):
    rows = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    document = ask(client, "binary", rows).json()
    means, scores = numbers(document["mean"]), numbers(document["conditional"])
    np.testing.assert_allclose(np.where(rows > 0.5, means, 1 - means), np.exp(scores), rtol=1e-4)
    assert len(set(means[:, 0])) == 1  # nothing comes before the first
    assert document["order"] == COLUMNS


def test_a_context_is_given(client):
    rows = np.column_stack([ROWS, [1.0, 2.0]])
    document = ask(client, "given", rows).json()
    total = numbers(document["conditional"]).sum(axis=1)
    np.testing.assert_allclose(total, document["log_prob"], rtol=1e-4)
    assert list(document["mean"][0]) == COLUMNS


def test_a_mixed_row_has_one_of_each_column(client):
    rows = [
        ["Ideal", None, "no", "2022-05-01", 3, 70.5],
        ["Ideal", 9.5, "yes", "2022-05-01", 5, 64.0],
    ]
    body = json.dumps({"columns": NAMES, "rows": rows}).encode()
    headers = {"Content-Type": "application/json"}
    path = "/v1/models/mixed/log_prob?conditionals=true"
    document = client.post(path, content=body, headers=headers).json()
    total = numbers(document["conditional"]).sum(axis=1)
    np.testing.assert_allclose(total, document["log_prob"], rtol=1e-4)
    assert document["order"] == ["cut", "sold", "doors", "price", "on", "weight"]
    assert document["mean"][0]["cut"] is None


def test_a_row_without_a_density_has_none_of_its_columns_and_others_are_not_affected(client):
    body = b'{"rows": [[170, null, 40], [170, 70, 40]]}'
    headers = {"Content-Type": "application/json"}
    path = "/v1/models/made/log_prob?conditionals=true"
    document = client.post(path, content=body, headers=headers).json()
    assert [error["row"] for error in document["row_errors"]] == [0]
    assert document["log_prob"][0] is None
    assert None not in document["conditional"][1].values()


def test_a_model_of_several_orders_says_which_families_have_them(client):
    response = ask(client, "people", ROWS)
    assert response.status_code == 422
    problem = response.json()
    assert problem["type"] == "/problems/conditionals-unavailable"
    page = client.get("/problems/conditionals-unavailable", headers={"Accept": "application/json"})
    assert "gaussian_mixture" in page.text


def test_both_kinds_of_parts_are_refused(client):
    response = ask(client, "made", ROWS, query="&parts=true")
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == "conditionals"
