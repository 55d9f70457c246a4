"""Models that are conditioned on a context, and models without noise, over HTTP."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from flows import MadeSpec
from tests.app.serving import COLUMNS, a_flow, registered

CONTEXT = ("day", "hour")
BINARY = MadeSpec(conditional="bernoulli", hidden=[8])


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path
) -> Iterator[TestClient]:
    data_dir = tmp_path_factory.mktemp("conditional")
    shutil.copy(migrated_database, data_dir)
    with TestClient(create_app(ApiSettings(data_dir=data_dir))) as client:
        state = client.app.state  # type: ignore[attr-defined]  # a FastAPI
        registered(state.database, state.blobs, name="given", context_columns=CONTEXT)
        registered(state.database, state.blobs, name="plain")
        registered(state.database, state.blobs, name="binary", spec=BINARY)
        yield client


def ask(client: TestClient, ref: str, what: str, body: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    return client.post(f"/v1/models/{ref}/{what}", content=json.dumps(body), headers=headers)


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


@pytest.mark.parametrize(
    ("ref", "context", "said"),
    [
        ("given", None, "`context` must have its 2 columns, 'day', 'hour'"),
        ("given", [[1.0]], "Row 1 of `context`, counted from 1, has 1 values"),
        ("given", [[1.0, 2.0]] * 2, "it must have 1, or 3"),
        ("given", [], "it must have 1, or 3"),
        ("given", {"day": 1.0}, "must have the columns"),
        ("plain", [[1.0]], "not conditional"),
    ],
)
def test_a_context_that_does_not_fit_is_refused(client, ref, context, said):
    response = ask(client, ref, "sample", {"n": 3, "context": context})
    assert response.status_code == 422
    assert response.json()["type"].endswith("context-mismatch")
    assert said in response.json()["detail"]
    assert response.json()["errors"][0]["pointer"] == "/context"


def test_the_version_names_the_columns_of_its_context(client):
    version = client.get("/v1/models/given/versions/1").json()
    assert version["context_columns"] == list(CONTEXT)
    assert client.get("/v1/models/plain/versions/1").json()["context_columns"] == []


@pytest.mark.long
def test_a_density_of_0_and_1_scores_and_samples_but_has_no_noise(client):
    rows = [[0.0, 1.0, 1.0], [0.0, 0.5, 1.0]]
    scores = ask(client, "binary", "log_prob", {"rows": rows}).json()
    assert scores["log_prob"][0] < 0
    assert scores["log_prob"][1] is None
    drawn = ask(client, "binary", "sample", {"n": 20, "seed": 1}).json()["rows"]
    assert set(np.unique(drawn)) == {0.0, 1.0}
    response = ask(client, "binary", "inverse", {"rows": rows})
    assert response.status_code == 422
    assert response.json()["type"].endswith("model-without-noise")
