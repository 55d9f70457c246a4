"""Versions that go from one service to another lose nothing that matters there."""

import json
import sys

import numpy as np
import pytest
from onnxruntime import InferenceSession
from safetensors.torch import load
from starlette.testclient import TestClient

from app.main import create_app
from app.plots.curves import read_curve
from flows import IafSpec, MafSpec
from tests.api.conftest import assert_refused
from tests.api.mixed_model import DAY, registered_mixed
from tests.api.serving import registered, stores
from tests.store.makers import PROJECT, edited

FILE = {"Content-Type": "application/octet-stream"}
ROWS = [[171.5, 68.2, 30.0], [180.1, 80.9, 51.0], [150.0, 99.0, 4.0]]
QUANTILES = [-30 + 0.025 * step for step in range(1001)]
HELD_OUT = {"rows": 100, "quantiles": QUANTILES}

CHANGES: list[dict[str, object]] = [
    {"format": 2},
    {"more": 1},
    {"held_out": {"rows": 0, "quantiles": QUANTILES}},
    {"held_out": {"rows": 9, "quantiles": QUANTILES[::-1]}},
    {"tags": {"": "x"}},
    {"description": "\0"},
    {"dataset_sha256": "x"},
    {"seed": -1},
    {"metrics": {"x": "y" * 2**20}},
    {"learning_curve": {"at": [1.0], "values": {"elbo": []}}},
    {"learning_curve": {"at": [1.0], "values": {"other": [1.0]}}},
    {"learning_curve": {"at": [1.0] * 1001, "values": {}}},
]


@pytest.fixture
def exported(client):
    registered(*stores(client), held_out=HELD_OUT)
    labels = {"description": "of mine", "tags": {"team": "space"}}
    assert client.patch("/v1/models/people/versions/1", json=labels).status_code == 200
    answer = client.get("/v1/models/people/versions/1/export")
    assert answer.status_code == 200
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    return answer.content


def imported(client, body):
    return client.post("/v1/models/copy/versions", content=body, headers=FILE)


@pytest.mark.slow
def test_an_import_restores_what_was_exported(client, exported):
    made = imported(client, exported)
    assert made.status_code == 201, made.text
    source = client.get("/v1/models/people/versions/1").json()
    copy = made.json()
    for name in ("metrics", "held_out", "description", "tags", "flow", "columns", "types"):
        assert copy[name] == source[name], name
    assert copy["metrics"]
    assert copy["held_out"]
    for name in ("dataset_sha256", "target", "seed", "code_version"):
        assert copy["lineage"][name] == source["lineage"][name], name
    assert (copy["lineage"]["job_id"], copy["lineage"]["dataset_id"]) == (None, None)
    scores = [
        client.post(f"/v1/models/{ref}/score", json={"rows": ROWS}).json()
        for ref in ("people:1", "copy:1")
    ]
    assert scores[0]["quantile"] == scores[1]["quantile"]
    assert scores[0]["log_prob"] == scores[1]["log_prob"]
    again = client.get("/v1/models/copy/versions/1/export").content
    assert imported(client, again).json()["metrics"] == source["metrics"]


def test_the_tensors_are_those_of_the_checkpoint(client, exported):
    plain = client.get("/v1/models/people/versions/1/checkpoint").content
    one, other = load(exported), load(plain)
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    copy = imported(client, plain).json()
    assert (copy["metrics"], copy["held_out"], copy["tags"]) == ({}, None, {})


def test_a_record_that_is_none_is_refused(client, exported):
    for change in CHANGES:
        assert_refused(imported(client, edited(exported, change)), 422, "checkpoint-invalid")


CURVES: list[dict[str, object]] = [
    {"at": [1.0, 2.0], "values": {"validation_log_likelihood": [1e308, -1e308]}},
    {"at": [-1e308, 1e308], "values": {"validation_log_likelihood": [1.0, 2.0]}},
    {"at": [1.0, 2.0], "values": {"validation_log_likelihood": [1.0, 2.0]}},
]


@pytest.mark.slow
def test_a_curve_of_any_numbers_is_drawn_and_exported_or_left_out(client, exported):
    for curve in CURVES:
        change = {"learning_curve": curve, "metrics": {"best_epoch": 2**70}}
        made = imported(client, edited(exported, change))
        url = made.headers["location"]
        plot = client.get(f"{url}/plots/learning-curve")
        if plot.status_code != 200:
            assert_refused(plot, 422, "plot-unavailable")
        assert imported(client, client.get(f"{url}/export").content).is_success


@pytest.mark.slow
def test_the_learning_curve_goes_with_the_version(client, monkeypatch):
    state = client.app.state
    version = registered(state.database, state.blobs, epochs=25)
    curve = read_curve(version, state.jobs, state.blobs)
    monkeypatch.setattr("app.plots.curves.MAX_CURVE", 10)
    plots = [client.get("/v1/models/people/versions/1/plots/learning-curve")]
    file = client.get("/v1/models/people/versions/1/export").content
    for _ in range(2):  # of an imported one, too
        made = imported(client, file).json()
        path = f"/v1/models/copy/versions/{made['version']}"
        plots.append(client.get(f"{path}/plots/learning-curve"))
        file = client.get(f"{path}/export").content
    assert [plot.status_code for plot in plots] == [200] * 3
    copied = read_curve(state.registry.version(PROJECT, "copy", 2), state.jobs, state.blobs)
    assert copied.keys() == curve.keys()
    assert (len(curve["at"]), len(copied["at"])) == (25, 10)
    places = copied["at"].astype(int) - 1
    assert (places[0], places[-1]) == (0, 24)
    for name, values in copied.items():
        assert np.array_equal(values, curve[name][places], equal_nan=True), name


# The same rows as callers write them, and as numbers.
CARS = [
    ["Ideal", 7.25, "yes", "2024-02-29", 5, 70.1],
    [None, None, "no", "2023-01-01", 3, 60],
    ["Good, really", 3.0, "no", "2023-06-15", 4, 81.5],
]
NUMBERS = [
    [0, 7.25, 1, 19_782 * DAY, 5, 70.1],
    [np.nan, np.nan, 0, 19_358 * DAY, 3, 60],
    [1, 3.0, 0, 19_523 * DAY, 4, 81.5],
]


@pytest.mark.slow
def test_an_onnx_export_gives_the_log_densities_of_the_service(client):
    state = client.app.state
    registered(state.database, state.blobs)
    registered_mixed(client, "cars")
    for name, table, rows in [("people", ROWS, ROWS), ("cars", CARS, NUMBERS)]:
        answer = client.get(f"/v1/models/{name}/versions/1/onnx")
        assert answer.status_code == 200, answer.text
        assert f'filename="{name}-1.onnx"' in answer.headers["Content-Disposition"]
        session = InferenceSession(answer.content, providers=["CPUExecutionProvider"])
        (found,) = session.run(["log_prob"], {"rows": np.array(rows, dtype=np.float64)})
        scored = client.post(f"/v1/models/{name}/log_prob", json={"rows": table})
        np.testing.assert_allclose(found, scored.json()["log_prob"], rtol=0, atol=1e-4)
        told = session.get_modelmeta().custom_metadata_map
        version = client.get(f"/v1/models/{name}/versions/1").json()
        assert (told["model"], told["version"], told["units"]) == (name, "1", "nats")
        for field in ("columns", "context_columns"):
            assert json.loads(told[field]) == version[field]
        assert told["checkpoint_sha256"] == version["checkpoint"]["sha256"]
        assert json.loads(told.get("types", "null")) == version["types"]
    assert client.head("/v1/models/people/versions/1/onnx").status_code == 200
    assert_refused(client.get("/v1/models/people/versions/2/onnx"), 404, "not-found")
    assert list(state.blobs.staging.iterdir()) == []


def test_an_onnx_export_of_a_density_of_several_passes_says_why_not(client):
    state = client.app.state
    registered(state.database, state.blobs, name="slow", spec=IafSpec(layers=1, hidden=[8]))
    refused = client.get("/v1/models/slow/versions/1/onnx")
    assert_refused(refused, 422, "onnx-unsupported")
    assert "slow:1, of family iaf" in refused.json()["detail"]
    assert "a pass for each feature" in refused.json()["detail"]
    assert list(state.blobs.staging.iterdir()) == []


@pytest.mark.slow
def test_an_onnx_export_without_the_package_names_the_extra(client, monkeypatch):
    registered(*stores(client))
    monkeypatch.setitem(sys.modules, "onnx", None)  # as where it is not installed
    refused = client.get("/v1/models/people/versions/1/onnx")
    assert_refused(refused, 501, "onnx-not-installed")
    assert "pip install 'densityd[onnx]'" in refused.json()["detail"]


def test_an_onnx_export_has_a_limit_of_memory(settings):
    small = settings.model_copy(update={"import_memory_bytes": 256 << 20})
    app = create_app(small)
    with TestClient(app) as client:
        state = app.state
        registered(state.database, state.blobs, spec=MafSpec(layers=2, hidden=[4000, 4000]))
        assert_refused(client.get("/v1/models/people/versions/1/onnx"), 422, "limit-memory")
        assert list(state.blobs.staging.iterdir()) == []
