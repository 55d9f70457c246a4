"""A table of any types on its way: uploaded, scored by jobs and by requests, and given back."""

import io
import json
import re
from typing import Any

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped] # it ships no type information
import pytest
import torch
from starlette.testclient import TestClient

from flows import MixedColumn, MixedSpec, NsfSpec, build, fit_encoding
from models_store.files.blobs import Blobs
from tabular.columns import Column
from tabular.formats import TableFormat
from tests.app.conftest import CSV, JSON
from tests.app.serving import registered
from tests.app.wire import MEDIA_TYPE

LINES = ["id,cut,price,sold,on,doors,comment"]
RANDOM = np.random.default_rng(3)
for number in range(400):
    cut = ["Ideal", "Good; really", '"Fair, new"', ""][number % 4]
    price = "" if number % 9 == 0 else f"{RANDOM.lognormal(2, 1):.2f}"
    day = f"20{10 + number % 12}-0{1 + number % 9}-1{number % 7}"
    doors = 3 + 2 * (number % 2)
    LINES.append(
        f"r{number},{cut},{price},{'yes' if number % 3 else 'no'},{day},{doors},text {number}"
    )
BODY = "\n".join(LINES).encode()


@pytest.fixture
def dataset(client: TestClient, blobs: Blobs) -> Any:
    """The table, and a model of its columns under the name `table`."""
    response = client.post("/v1/datasets", content=BODY, headers=CSV)
    assert response.status_code == 201, response.text
    found = response.json()
    described = [column for column in found["columns"] if column["type"] != "ignored"]
    columns = [Column.from_dict(column) for column in described]
    spec = MixedSpec(
        columns=[mixed(column) for column in columns],
        flow=NsfSpec(layers=1, hidden=[8], bins=4),
        hidden=[8],
        rows=400,
    )
    flow = build(spec, len(columns), seed=1)
    rows = client.get(
        f"/v1/datasets/{found['id']}/rows?limit=400", headers=accepting(TableFormat.NPY)
    )
    fit_encoding(flow, torch.from_numpy(np.load(io.BytesIO(rows.content))).double())
    registered(
        client.app.state.database,  # type: ignore[attr-defined]  # a FastAPI
        blobs,
        name="table",
        spec=spec,
        columns=[column.name for column in columns],
        types=[column.to_dict() for column in columns],
        flow=flow.eval(),
        held_out={"rows": 40, "quantiles": np.linspace(-60, 0, 1001).tolist()},
    )
    return found


def mixed(column: Column) -> MixedColumn:
    return MixedColumn(
        levels=column.level_count,
        values=list(column.level_numbers) if column.levels and column.holds_values else [],
        missing=column.missing,
    )


def accepting(kind: TableFormat) -> dict[str, str]:
    return {"Accept": MEDIA_TYPE[kind]}


def scores(client: TestClient, body: bytes, kind: TableFormat, query: str = "") -> Any:
    response = client.post(
        f"/v1/models/table/score{query}", content=body, headers={"Content-Type": MEDIA_TYPE[kind]}
    )
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.long
def test_the_upload_sent_back_scores_as_its_stored_rows(client, dataset):
    """In every format that gives its rows, ids and comments included."""
    url = f"/v1/datasets/{dataset['id']}/rows?limit=400"
    stored = client.get(url, headers=accepting(TableFormat.NPY)).content
    expected = scores(client, stored, TableFormat.NPY)["log_prob"]
    assert None not in expected
    assert len(set(expected)) > 100
    for kind in (kind for kind in TableFormat if kind is not TableFormat.EXCEL):
        body = client.get(url, headers=accepting(kind)).content
        if kind is TableFormat.JSON:
            document = json.loads(body)
            body = json.dumps({name: document[name] for name in ("columns", "rows")}).encode()
        answer = scores(client, body, kind)
        np.testing.assert_allclose(answer["log_prob"], expected, rtol=1e-4, err_msg=kind)
        assert answer["row_warning_count"] == 0
    answer = scores(client, BODY, TableFormat.CSV)
    np.testing.assert_allclose(answer["log_prob"], expected, rtol=1e-4)


@pytest.mark.long
def test_a_job_scores_them_alike(client, supervisor, dataset):
    answer = scores(client, BODY, TableFormat.CSV, "?explain=true")
    wanted = {"dataset_id": dataset["id"], "output": "parquet", "include_rows": True, "parts": True}
    request = {"model": "table", "explain": True, **wanted}
    response = client.post("/v1/jobs/scoring", content=json.dumps(request), headers=JSON)
    assert response.status_code == 202, response.text
    assert supervisor.run_next()
    job = client.get(response.headers["location"]).json()
    assert job["state"] == "succeeded", job["error"]
    url = job["result"]["url"]
    rows = pq.read_table(io.BytesIO(client.get(url).content)).to_pylist()
    np.testing.assert_allclose([row["log_prob"] for row in rows], answer["log_prob"], rtol=1e-4)
    assert [row["cut"] for row in rows[:4]] == ["Ideal", "Good; really", "Fair, new", None]
    assert rows[0]["price"] is None
    for what in ("explanation", "difference"):
        for name, value in answer[what][0].items():
            known = np.nan if value is None else value
            found = rows[0][f"{what}.{name}"]
            assert found == pytest.approx(known, rel=1e-3, abs=1e-3, nan_ok=True)
    assert job["metrics"]["explained"] == answer["explained"]
    for name, value in answer["usual"].items():
        expected = None if value is None else pytest.approx(value, rel=1e-3)
        assert job["metrics"]["usual"][name] == expected
    parts = [row["discrete"] + row["continuous"] for row in rows]
    np.testing.assert_allclose(parts, answer["log_prob"], rtol=1e-4)
    refused = client.get(url, headers=accepting(TableFormat.NPY))
    assert (refused.status_code, refused.json()["type"]) == (406, "/problems/not-acceptable")


@pytest.mark.usefixtures("dataset")
def test_a_column_that_a_dataset_ignores_is_named_with_the_remedy(client):
    other = client.post("/v1/datasets?exclude=sold", content=BODY, headers=CSV)
    assert other.status_code == 201, other.text
    request = {"model": "table", "dataset_id": other.json()["id"]}
    response = client.post("/v1/jobs/scoring", content=json.dumps(request), headers=JSON)
    assert (response.status_code, response.json()["type"]) == (422, "/problems/unknown-column")
    assert "'sold'; it is in the file, but ignored" in response.json()["detail"]


def test_texts_are_not_scored_as_numbers(client):
    lines = [
        "height,weight,age",
        *(f"{text},{row * 1.37:.2f},{row % 7 + 0.5}" for row, text in enumerate("abcab" * 20)),
    ]
    other = client.post("/v1/datasets", content="\n".join(lines), headers=CSV).json()
    registered(client.app.state.database, client.app.state.blobs)
    request = {"model": "people", "dataset_id": other["id"]}
    response = client.post("/v1/jobs/scoring", content=json.dumps(request), headers=JSON)
    assert (response.status_code, response.json()["type"]) == (422, "/problems/dataset-dtype")
    assert "'height'" in response.json()["detail"]


@pytest.mark.usefixtures("dataset")
def test_numbers_are_not_scored_as_dates(client):
    digits = re.sub(rb",(20\d\d)-(\d\d)-(\d\d),", rb",\1\2\3,", BODY)
    other = client.post("/v1/datasets?exclude=comment", content=digits, headers=CSV)
    request = {"model": "table", "dataset_id": other.json()["id"]}

    def scored_as(kind: str) -> Any:
        changed = client.patch(other.headers["location"], json={"types": {"on": kind}})
        assert changed.status_code == 200, changed.text
        return client.post("/v1/jobs/scoring", content=json.dumps(request), headers=JSON)

    dates = scored_as("datetime")
    assert dates.status_code == 202, dates.text
    client.post(f"{dates.headers['location']}/cancel")
    numbers = scored_as("number")
    assert (numbers.status_code, numbers.json()["type"]) == (422, "/problems/dataset-dtype")
