"""Usual terms of explanations: computed once for a version, from its dataset or from samples."""

import asyncio
import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.engine import reference_rows
from app.main import create_app
from app.settings import ApiSettings
from flows import MixedColumn, compile_flow
from tabular.columns import Column
from tabular.typed_rows import TypedRows
from tests.api.conftest import CSV
from tests.api.mixed_model import COLUMNS, NAMES, SPEC, TYPES, mixed_flow, mixed_rows
from tests.api.serving import registered

RANKS = {"rows": 300, "quantiles": np.linspace(-80, 0, 1001).tolist()}
ROWS = mixed_rows(60, seed=4)
CONTEXT = np.linspace(-1, 1, 300)[:, None]


@pytest.fixture(scope="module")
def client(tmp_path_factory, migrated_database):
    data_dir = tmp_path_factory.mktemp("usual")
    (data_dir / migrated_database.name).write_bytes(migrated_database.read_bytes())
    app = create_app(ApiSettings(data_dir=data_dir))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def a_version(client, name, **options):
    options = {"flow": mixed_flow(), "spec": SPEC, "types": TYPES, **options}
    state = client.app.state
    return registered(
        state.database,
        state.blobs,
        name=name,
        columns=NAMES,
        held_out=RANKS,
        **options,
    )


def explained(client, model, rows):
    cells = TypedRows(COLUMNS).batch(rows[:, : len(NAMES)]).to_pylist()
    others = [{f"given{i}": value for i, value in enumerate(row[len(NAMES) :])} for row in rows]
    body = {"rows": [{**cell, **other} for cell, other in zip(cells, others, strict=True)]}
    path = f"/v1/models/{model}/score?explain=true"
    headers = {"Content-Type": "application/json"}
    response = client.post(path, content=json.dumps(body, default=str), headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def medians(rows):
    with np.errstate(all="ignore"):
        terms = compile_flow(mixed_flow()).explain(rows)
    return [
        pytest.approx(float(np.median(column)), rel=1e-3) if np.isfinite(column).all() else None
        for column in terms.T
    ]


def test_they_are_medians_over_samples_where_there_is_no_dataset(client):
    a_version(client, "sampled")
    document = explained(client, "sampled", ROWS[:3])
    samples = compile_flow(mixed_flow()).sample(200, seed=0)
    assert list(document["usual"].values()) == medians(samples)
    assert list(document["usual"]) == NAMES
    for terms, differences in zip(document["explanation"], document["difference"], strict=True):
        for name, usual in document["usual"].items():
            known = None if usual is None else pytest.approx(terms[name] - usual)
            assert differences[name] == known


def test_they_are_medians_over_the_rows_of_the_dataset(client):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(NAMES)
    for cells in TypedRows(COLUMNS).batch(ROWS).to_pylist():
        writer.writerow([cells[name] for name in NAMES])
    dataset = client.post("/v1/datasets", content=text.getvalue(), headers=CSV).json()
    a_version(client, "of_data", dataset_id=dataset["id"])
    found = explained(client, "of_data", ROWS[:1])["usual"]
    assert list(found.values()) == medians(ROWS)


def test_a_dataset_of_other_types_is_passed_over(client):
    """A column that was modelled may be ignored by now, or hold texts where the model has numbers."""
    lines = ["cut,price,sold", *(f"Ideal,{row},yes" for row in range(60))]
    dataset = client.post("/v1/datasets", content="\n".join(lines), headers=CSV).json()
    a_version(client, "of_other_data", dataset_id=dataset["id"])
    a_version(client, "of_samples")
    found = explained(client, "of_other_data", ROWS[:1])["usual"]
    assert found == pytest.approx(explained(client, "of_samples", ROWS[:1])["usual"])


def test_without_a_context_to_draw_samples_for_none_is_known(client):
    spec = dataclasses.replace(SPEC, context=[MixedColumn()])
    flow = mixed_flow(spec, context=CONTEXT)
    types = [*TYPES, Column(name="given0").to_dict()]
    a_version(client, "given", spec=spec, flow=flow, types=types, context_columns=("given0",))
    document = explained(client, "given", np.column_stack([ROWS[:2], [0.5, -0.5]]))
    assert set(document["usual"].values()) == {None}
    assert {value for row in document["difference"] for value in row.values()} == {None}
    assert document["explanation"][0]["cut"] is not None


def test_they_are_computed_once_and_the_least_recently_used_are_dropped(client, monkeypatch):
    terms = client.app.state.usual_terms
    first, second = a_version(client, "first"), a_version(client, "second")

    async def twice(version):
        return await asyncio.gather(terms.of(version), terms.of(version))

    one, other = client.portal.call(twice, first)
    assert one is other
    assert client.portal.call(terms.of, first) is one
    monkeypatch.setattr(reference_rows, "_MOST_KEPT", 1)
    client.portal.call(terms.of, second)
    again = client.portal.call(terms.of, first)
    assert again is not one
    np.testing.assert_array_equal(again, one)
