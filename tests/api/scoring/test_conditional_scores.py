"""Models that are conditioned on a context, models without noise, and densities of single columns, over HTTP."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from flows import MadeSpec, MafSpec, compile_flow, conditional_densities, conditional_order
from tabular.columns import Column
from tabular.formats import TableFormat
from tests.api.conftest import assert_refused
from tests.api.mixed_model import NAMES, TYPES, mixed_flow, registered_mixed
from tests.api.serving import COLUMNS, a_flow, registered, stores
from tests.api.wire import FORMATS, MEDIA_TYPE, read

CONTEXT = ("day", "hour")
BINARY = MadeSpec(conditional="bernoulli", hidden=[8])
MADE = MadeSpec(hidden=[8], order="random")
ONE_LAYER = MafSpec(layers=1, hidden=[8])
ROWS = np.array([[170.0, 70.0, 40.0], [181.5, 90.0, 25.0]])
GIVEN_TYPES = [
    Column(name="shop", type="category", levels=("a", "b")).to_dict(),
    Column(name="age", missing=True).to_dict(),
]
TYPED = mixed_flow(context=np.arange(600.0).reshape(300, 2) % 2)


@pytest.fixture(scope="module")
def client(shared_client: TestClient) -> TestClient:
    """One application with the models of this module."""
    registered(*stores(shared_client), name="given", context_columns=CONTEXT)
    registered(*stores(shared_client), name="plain")
    registered(*stores(shared_client), name="binary", spec=BINARY)
    registered(*stores(shared_client), name="made", spec=MADE)
    registered(*stores(shared_client), name="one_layer", spec=ONE_LAYER, context_columns=("year",))
    registered_mixed(shared_client, "mixed")
    options = {"flow": TYPED, "types": [*TYPES, *GIVEN_TYPES], "context_columns": ("shop", "age")}
    registered_mixed(shared_client, "typed", **options)
    return shared_client


def ask(client: TestClient, ref: str, what: str, body: Any) -> Any:
    return client.post(f"/v1/models/{ref}/{what}", json=body)


def test_rows_carry_the_columns_of_the_context_after_the_others(client):
    flow = a_flow(context_dim=2).double()
    rows = np.array([[171.0, 71.0, 41.0, 3.0, 1.0], [179.0, 79.0, 49.0, -2.0, 0.5]])
    table = torch.from_numpy(rows)
    with torch.no_grad():
        expected = flow.log_prob(table[:, :3], table[:, 3:])
    found = ask(client, "given", "log_prob", {"rows": rows.tolist()})
    np.testing.assert_allclose(found.json()["log_prob"], expected, rtol=1e-4)
    named = [dict(zip([*COLUMNS, *CONTEXT], row, strict=True)) for row in rows.tolist()]
    assert ask(client, "given", "log_prob", {"rows": named}).json() == found.json()


def test_samples_given_cells_are_of_models_without_context(client):
    body = {"n": 1, "context": [[3.0, 1.0]], "given": {COLUMNS[0]: 170.0}}
    assert_refused(ask(client, "given", "sample", body), 422, "question-unavailable")


def test_rows_without_their_context_are_refused(client):
    response = ask(client, "given", "log_prob", {"rows": [[170.0, 70.0, 40.0]]})
    assert response.status_code == 422
    assert (response.json()["expected"], response.json()["got"]) == (5, 3)


def test_inverse_and_forward_take_the_context_too(client):
    rows = [[171.0, 71.0, 41.0, 3.0, 1.0]]
    noise = ask(client, "given", "inverse", {"rows": rows}).json()["rows"]
    assert len(noise[0]) == 3
    back = ask(client, "given", "forward", {"rows": [noise[0] + rows[0][3:]]}).json()["rows"]
    np.testing.assert_allclose(back[0], rows[0][:3], rtol=1e-4)


@pytest.mark.parametrize(
    "context",
    [[[3.0, 1.0]], {"hour": 1.0, "day": 3.0}, [{"day": 3.0, "hour": 1.0}], [[3.0, 1.0]] * 4],
)
def test_samples_take_one_context_for_all_or_one_for_each(client, context):
    flow = a_flow(context_dim=2)
    expected = flow.sample(
        4, generator=torch.Generator().manual_seed(7), context=torch.tensor([[3.0, 1.0]])
    )
    answer = ask(client, "given", "sample", {"n": 4, "seed": 7, "context": context})
    assert answer.json()["columns"] == COLUMNS
    np.testing.assert_allclose(answer.json()["rows"], expected, rtol=1e-4)


def test_samples_take_a_context_of_types(client):
    assert ask(client, "typed", "sample", {"n": 1, "context": [["a", None]]}).is_success
    body = {"n": 4, "seed": 7, "context": {"age": 0, "shop": "b"}}
    generator = torch.Generator().manual_seed(7)
    expected = TYPED.sample(4, generator=generator, context=torch.tensor([[1.0, 0.0]]))
    found = ask(client, "typed", "sample", body).json()["rows"]
    np.testing.assert_allclose([row[5] for row in found], expected[:, 5], rtol=1e-4)


@pytest.mark.parametrize(
    ("ref", "context", "said"),
    [
        ("given", None, "`context` must have its 2 columns, 'day', 'hour'"),
        ("given", [[1.0]], "Row 1 of `context`, counted from 1, has 1 values"),
        ("given", [[1.0, 2.0]] * 2, "it must have 1, or 3"),
        ("given", {"day": 1.0}, "must have the columns"),
        ("given", [["a", 1.0]], "must be a number"),
        ("typed", [["a", "x"]], "'age', row 1: the value is not a number"),
        ("typed", [[None, None]], "no value of 'shop'"),
        ("plain", [[1.0]], "not conditional"),
    ],
)
def test_a_context_that_does_not_fit_is_refused(client, ref, context, said):
    response = ask(client, ref, "sample", {"n": 3, "context": context})
    assert_refused(response, 422, "context-mismatch")
    assert said in response.json()["detail"]
    assert response.json()["errors"][0]["pointer"] == "/context"


def test_the_version_names_the_columns_of_its_context(client):
    version = client.get("/v1/models/given/versions/1").json()
    assert version["context_columns"] == list(CONTEXT)
    assert client.get("/v1/models/plain/versions/1").json()["context_columns"] == []


def test_a_density_of_0_and_1_scores_and_samples_but_has_no_noise(client):
    rows = [[0.0, 1.0, 1.0], [0.0, 0.5, 1.0]]
    scores = ask(client, "binary", "log_prob", {"rows": rows}).json()
    assert scores["log_prob"][0] < 0
    assert scores["log_prob"][1] is None
    drawn = ask(client, "binary", "sample", {"n": 20, "seed": 1}).json()["rows"]
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert_refused(ask(client, "binary", "inverse", {"rows": rows}), 422, "model-without-noise")


# densities of single columns given those before them


def conditionals(client, model, rows, answer=TableFormat.JSON, query=""):
    path = f"/v1/models/{model}/log_prob?conditionals=true{query}"
    headers = {"Accept": MEDIA_TYPE[answer]}
    return client.post(path, json={"rows": np.asarray(rows).tolist()}, headers=headers)


def numbers(rows):
    return np.array([list(row.values()) for row in rows], np.float64)


@pytest.mark.parametrize(
    ("answer", "space"), [*((kind, "data") for kind in FORMATS), (TableFormat.JSON, "model")]
)
def test_they_are_in_every_format(client, answer, space):
    rows = ROWS if space == "data" else (ROWS - ROWS.mean(axis=0)) / 10
    response = conditionals(client, "made", rows, answer, f"&space={space}")
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
    document = conditionals(client, "binary", rows).json()
    means, scores = numbers(document["mean"]), numbers(document["conditional"])
    np.testing.assert_allclose(np.where(rows > 0.5, means, 1 - means), np.exp(scores), rtol=1e-4)
    assert len(set(means[:, 0])) == 1  # nothing comes before the first
    assert document["order"] == COLUMNS


def test_a_context_is_given(client):
    rows = np.column_stack([ROWS, [1.0, 2.0]])
    document = conditionals(client, "one_layer", rows).json()
    total = numbers(document["conditional"]).sum(axis=1)
    np.testing.assert_allclose(total, document["log_prob"], rtol=1e-4)
    assert list(document["mean"][0]) == COLUMNS


def test_a_mixed_row_has_one_of_each_column(client):
    rows = [
        ["Ideal", None, "no", "2022-05-01", 3, 70.5],
        ["Ideal", 9.5, "yes", "2022-05-01", 5, 64.0],
    ]
    body = {"columns": NAMES, "rows": rows}
    document = ask(client, "mixed", "log_prob?conditionals=true", body).json()
    total = numbers(document["conditional"]).sum(axis=1)
    np.testing.assert_allclose(total, document["log_prob"], rtol=1e-4)
    assert document["order"] == ["cut", "sold", "doors", "price", "on", "weight"]
    assert document["mean"][0]["cut"] is None


def test_a_row_without_a_density_has_none_of_its_columns_and_others_are_not_affected(client):
    body = {"rows": [[170, None, 40], [170, 70, 40]]}
    document = ask(client, "made", "log_prob?conditionals=true", body).json()
    assert [error["row"] for error in document["row_errors"]] == [0]
    assert document["log_prob"][0] is None
    assert None not in document["conditional"][1].values()


def test_a_model_of_several_orders_says_which_families_have_them(client):
    assert_refused(conditionals(client, "plain", ROWS), 422, "conditionals-unavailable")
    page = client.get("/problems/conditionals-unavailable", headers={"Accept": "application/json"})
    assert "gaussian_mixture" in page.text


def test_both_kinds_of_parts_are_refused(client):
    response = conditionals(client, "made", ROWS, query="&parts=true")
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == "conditionals"
