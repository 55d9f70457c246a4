"""Pictures of versions: drawn once, by a process of their own, from what there is."""

import asyncio
import dataclasses
import json
import re
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from app.engine.reference_rows import sampled_rows
from app.plots.numbers import Source
from app.plots.plots import PlotKind
from app.problems.problem import Problem
from app.problems.types import PROBLEM_TYPES
from flows import (
    Flow,
    GaussianSpec,
    MadeSpec,
    MafSpec,
    MixedColumn,
    MixedSpec,
    RealNvpSpec,
    build,
    compile_flow,
)
from models_store.records import Version
from tabular.columns import Column
from tests.api.conftest import CSV, assert_refused
from tests.api.plots.test_figures import PNG, draw, png
from tests.api.serving import COLUMNS, a_flow, registered, stores, uploaded

DECIDES = "validation_log_likelihood"
WILD = RealNvpSpec(layers=3, hidden=[16])


@pytest.fixture(scope="module")
def people(shared_client):
    registered(*stores(shared_client))
    registered(*stores(shared_client), name="plane", columns=["x$1", "y"])


def source_of(client: TestClient, version: Version) -> Source:
    state = client.app.state  # type: ignore[attr-defined]  # a FastAPI
    return Source(version, state.registry, state.jobs, state.blobs, state.engine)


def picture(client, kind, model="people", **query):
    return client.get(f"/v1/models/{model}/versions/1/plots/{kind}", params=query)


@pytest.mark.usefixtures("people")
def test_a_picture_is_drawn_of_what_there_is(shared_client):
    answer = picture(shared_client, "density", "plane")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content.startswith(PNG)


def with_data(client):
    """A version whose dataset is there."""
    rows = np.random.default_rng(0).normal([170, 70, 40], [10, 12, 15], size=(300, 3))
    version = registered(*stores(client), name="known")
    dataset_id = uploaded(client, rows, ["age", "height", "weight"])
    return dataclasses.replace(version, dataset_id=dataset_id)


@pytest.mark.usefixtures("people")
def test_data_stand_beside_the_samples_in_the_models_order(shared_client):
    version = with_data(shared_client)
    source = source_of(shared_client, version)
    flow = compile_flow(a_flow())

    shown = asyncio.run(source.numbers(PlotKind.MARGINALS, flow))
    assert list(shown["names"]) == COLUMNS
    assert shown["data"].shape == (300, 3)
    assert shown["data"].mean(axis=0) == pytest.approx([70, 40, 170], rel=0.1)
    assert shown["samples"].shape == (2000, 3)

    noise = asyncio.run(source.numbers(PlotKind.NOISE, flow))
    assert noise["noise"] == pytest.approx(flow.inverse(shown["data"])[0], abs=1e-4)
    assert np.all(np.diff(noise["normal"]) > 0)
    assert noise["normal"].mean() == pytest.approx(0, abs=1e-9)


@pytest.mark.usefixtures("people")
def test_a_plot_is_told_no_more_of_a_level_than_it_shows(shared_client):
    levels = ("a" * 128, "b" * 128, 3.5)
    typed = [{**Column(name=COLUMNS[0], type="category").to_dict(), "levels": levels}]
    typed += [Column(name=name).to_dict() for name in COLUMNS[1:]]
    version = dataclasses.replace(with_data(shared_client), types=typed, dataset_id=None)
    source = source_of(shared_client, version)
    told = asyncio.run(source.numbers(PlotKind.MARGINALS, compile_flow(a_flow())))
    labels = json.loads(str(told["scales"]))[0]["labels"]
    assert labels == ["a" * 40, "b" * 40, "3.5"]


def test_samples_of_some_columns_are_those_of_all(shared_client):
    """Keep 16 of 4,096 columns: samples of all would take 65 MB."""
    engine, flow = shared_client.app.state.engine, compile_flow(a_flow())

    async def drawn(columns: slice) -> np.ndarray:
        return await sampled_rows(flow, engine, 2_000, columns=columns)

    shown = asyncio.run(drawn(slice(0, 2)))
    assert shown.tolist() == asyncio.run(drawn(slice(None)))[:, :2].tolist()
    assert shown.base is None


TYPED = [
    Column(name="colour", type="category", levels=("red", "gr$een"), other=True, missing=True),
    Column(name="amount", missing=True, spikes=(-999.0, 0.0), transform="log", low=-1e4),
    Column(name="day", type="datetime", date_only=True),
    Column(name="rank", type="integer", levels=(1.0, 2.0, 5.0)),
]
MIXED = MixedSpec(
    columns=[
        MixedColumn(levels=3, missing=True),
        MixedColumn(missing=True, spikes=[-999.0, 0.0], low=-1e4),
        MixedColumn(step=86_400.0),
        MixedColumn(levels=3, values=[1.0, 2.0, 5.0]),
    ],
    flow=MafSpec(layers=2, hidden=[8], batch_norm=None),
    hidden=[8],
)


@pytest.mark.usefixtures("people")
def test_levels_spikes_and_gaps_stand_beside_those_of_the_data(shared_client):
    random, state = np.random.default_rng(0), shared_client.app.state
    cells = [["colour", "amount", "day", "rank"]]
    for _ in range(300):
        colour = random.choice(["red", "gr$een", "other", ""])
        day = f"2024-01-{random.integers(10, 28)}"
        cells.append([colour, random.choice(["-999", "0", "1.5", "", "2.25"]), day, "5"])
    dataset = shared_client.post(
        "/v1/datasets", content="\n".join(",".join(map(str, row)) for row in cells), headers=CSV
    ).json()
    flow = build(MIXED, 4, seed=0).eval()
    version = registered(
        state.database,
        state.blobs,
        name="typed",
        spec=MIXED,
        flow=flow,
        columns=[column.name for column in TYPED],
        types=[column.to_dict() for column in TYPED],
        dataset_id=dataset["id"],
    )
    source = source_of(shared_client, version)
    shown = dict(asyncio.run(source.numbers(PlotKind.PAIRS, compile_flow(flow))))
    assert len(shown["data"]) == 300
    assert set(np.unique(shown["data"][:, 0])) >= {0.0, 1.0, 2.0}
    figure = draw(PlotKind.MARGINALS, dict(shown))
    assert png(figure).startswith(PNG)
    bars, amount = figure.axes[:2]
    assert [text.get_text() for text in bars.get_xticklabels()][:2] == ["red", r"gr\$een"]
    assert "missing: data" in amount.get_xlabel()
    figure = draw(PlotKind.PAIRS, shown)
    assert png(figure).startswith(PNG)
    data, samples = figure.axes[:2]
    assert (data.get_title(), samples.get_title()) == ("data", "samples")
    assert (data.get_xlim(), data.get_ylim()) == (samples.get_xlim(), samples.get_ylim())
    assert (data.get_xlabel(), data.get_ylabel()) == ("colour", "amount")


@pytest.mark.usefixtures("people")
def test_the_density_of_a_target_stands_beside_the_models(shared_client):
    version = registered(*stores(shared_client), name="ring", columns=["z1", "z2"])
    flow = compile_flow(a_flow(dim=2))

    def shown(target):
        of_target = dataclasses.replace(version, target=target)
        source = source_of(shared_client, of_target)
        return dict(asyncio.run(source.numbers(PlotKind.DENSITY, flow)))

    known = shown({"log_density": "-(z1^2 + z2^2) / 2", "dim": 2})
    (cell,) = np.diff(known["x"])[:1] * np.diff(known["y"])[:1]
    assert known["target"].sum() * cell == pytest.approx(1, rel=0.05)
    titles = [axes.get_title() for axes in draw(PlotKind.DENSITY, known).axes]
    assert titles[:2] == ["density of the model", "density of the target"]
    odd_ones: list[dict[str, object]] = [
        {"log_density": "z3", "dim": 2},
        {"log_density": "-z1^2", "dim": 1},
        {"dim": []},
    ]
    for odd in odd_ones:
        assert "target" not in shown(odd)


@pytest.mark.usefixtures("people")
def test_the_data_stand_beside_the_density_near_the_samples(shared_client):
    rows = np.random.default_rng(0).normal([170, 70], [10, 12], size=(300, 2))
    version = registered(*stores(shared_client), name="flat", columns=["z1", "z2"])
    dataset_id = uploaded(shared_client, rows, ["z2", "z1"])
    source = source_of(shared_client, dataclasses.replace(version, dataset_id=dataset_id))
    flow = compile_flow(a_flow(dim=2))
    shown = dict(asyncio.run(source.numbers(PlotKind.DENSITY, flow)))
    assert sorted(map(tuple, shown["data"])) == sorted(map(tuple, rows[:, ::-1]))
    samples = asyncio.run(sampled_rows(flow, shared_client.app.state.engine, 2000))
    low, high = np.quantile(samples, (0.005, 0.995), axis=0)
    ends = np.array([low - 0.1 * (high - low), high + 0.1 * (high - low)])
    x, y = shown["x"], shown["y"]
    np.testing.assert_allclose(np.array([x[[0, -1]], y[[0, -1]]]).T, ends)
    [log_prob] = flow.log_prob(np.array([[x[40], y[60]]]))
    assert shown["density"][60, 40] == pytest.approx(np.exp(log_prob), rel=1e-5)
    assert draw(PlotKind.DENSITY, shown).axes[1].get_title() == "300 rows of the data"


@pytest.mark.usefixtures("people")
def test_a_learning_curve_is_what_the_training_reported(shared_client):
    likelihoods = {"train_log_likelihood": [-1, -1 / 2, -1 / 3], DECIDES: [-2, np.nan, -2 / 3]}
    for best, told in ((3, {"decides": DECIDES, "kept": [3, -2 / 3]}), (4, {})):
        metrics = {"best_epoch": best, f"best_{DECIDES}": -1.5}
        version = registered(*stores(shared_client), name="curved", epochs=3, metrics=metrics)
        path = f"/v1/models/curved/versions/{version.version}/plots/learning-curve"
        assert shared_client.head(path).status_code == 200
        source = source_of(shared_client, version)
        found = asyncio.run(source.numbers(PlotKind.LEARNING_CURVE, compile_flow(a_flow())))
        numbers = {name: values.tolist() for name, values in found.items()}
        expected: dict[str, Any] = {"at": [1, 2, 3], **likelihoods, **told}
        np.testing.assert_equal(numbers, expected)


@pytest.mark.usefixtures("people")
def test_a_picture_is_drawn_once(shared_client, monkeypatch):
    first = picture(shared_client, "pairs", format="svg")
    assert first.headers["content-type"] == "image/svg+xml"
    assert re.search(rb"<svg\b", first.content)
    dark = picture(shared_client, "marginals", format="svg", theme="dark").content.lower()
    assert [b"#000000" in drawn for drawn in (first.content, dark)] == [True, False]
    assert b"#e69f00" in dark

    monkeypatch.setattr(
        shared_client.app.state.plots, "timeout_s", 0.0
    )  # no other is drawn in no time
    assert picture(shared_client, "pairs", format="svg").content == first.content
    assert_refused(picture(shared_client, "pairs"), 503, "overloaded")


def test_panels_pairs_and_points_are_bounded(shared_client):
    columns = [f"c{number}" for number in range(20)]
    table = np.random.default_rng(0).normal(size=(2500, 20))
    dataset_id = uploaded(shared_client, table, columns)
    spec = MadeSpec(hidden=[8])
    version = registered(
        *stores(shared_client), name="wide", columns=columns, spec=spec, dataset_id=dataset_id
    )
    flow = compile_flow(build(spec, 20, seed=0).eval())
    source = source_of(shared_client, version)
    for kind, most in ((PlotKind.MARGINALS, 16), (PlotKind.PAIRS, 5), (PlotKind.NOISE, 16)):
        numbers = asyncio.run(source.numbers(kind, flow))
        assert numbers["names"].tolist() == columns[:most]
        shapes = {numbers[name].shape for name in ("samples", "data", "noise") if name in numbers}
        assert shapes == {(2000, most)}


@pytest.mark.usefixtures("people")
def test_what_cannot_be_shown_is_told(shared_client):
    for kind in ("learning-curve", "noise", "density", "images"):
        refused = picture(shared_client, kind)
        assert_refused(refused, 422, "plot-unavailable")
        assert shared_client.head(str(refused.url)).status_code == 422


@pytest.mark.usefixtures("people")
def test_unknown_kinds_formats_and_versions_are_refused(shared_client):
    assert picture(shared_client, "pie").status_code == 422
    assert_refused(picture(shared_client, "pairs", format="gif"), 422, "validation")
    assert_refused(picture(shared_client, "pairs", "nobody"), 404, "not-found")


def wild(factor: float) -> Flow:
    """A flow that is sure of itself, and of which some or no samples are finite."""
    flow = a_flow(spec=WILD, dim=2)
    with torch.no_grad():
        for weights in flow.parameters():
            weights.mul_(factor)
    flow.load_state_dict(flow.state_dict())
    return flow.eval()


MODELS = {
    "two columns": a_flow(dim=2),
    "an image": a_flow(dim=16),
    "some samples finite": wild(75),
    "no sample finite": wild(120),
    "conditional": a_flow(dim=2, context_dim=1),
    "no noise": a_flow(spec=MadeSpec(conditional="mixture", components=2, hidden=[8]), dim=2),
    "gaussian": a_flow(spec=GaussianSpec(), dim=3),
}


def made_up(client: TestClient, rows: int, columns: int) -> str:
    """A dataset whose first column is constant, as far as that is possible."""
    values = np.random.default_rng(rows).normal(150, 30, size=(rows, columns)).round(2)
    if columns > 1:
        values[:, 0] = 5.0
    return uploaded(client, values, [f"c{index}" for index in range(columns)], constant="keep")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"), [*product(MODELS, [64]), ("two columns", 0), ("gaussian", 2)]
)
@pytest.mark.usefixtures("people")
def test_every_kind_is_drawn_or_refused_whatever_the_model_and_its_data(shared_client, name, rows):
    flow, state = MODELS[name], shared_client.app.state
    columns = [f"c{index}" for index in range(flow.dim + flow.context_dim)]
    version = registered(*stores(shared_client), name="any", columns=columns)
    dataset_id = made_up(shared_client, rows, len(columns)) if rows else None
    version = dataclasses.replace(
        version,
        columns=columns[: flow.dim],
        context_columns=columns[flow.dim :],
        dataset_id=dataset_id,
    )
    source = source_of(shared_client, version)
    compiled = compile_flow(flow)
    drawn = set()
    for kind in PlotKind:
        try:
            numbers = dict(asyncio.run(asyncio.wait_for(source.numbers(kind, compiled), 120)))
        except Problem as problem:
            if problem.type is not PROBLEM_TYPES["plot-unavailable"]:
                raise
            continue
        assert png(draw(kind, numbers)).startswith(PNG)
        drawn.add(kind)
    assert state.engine.alive
    if name == "two columns":
        assert drawn >= {PlotKind.MARGINALS, PlotKind.PAIRS, PlotKind.DENSITY}
    if name == "no sample finite":
        assert (PlotKind.MARGINALS in drawn) == (rows > 0)
    if name in ("two columns", "conditional", "gaussian") and rows:
        assert PlotKind.NOISE in drawn


def test_the_picture_says_what_is_left_out(shared_client):
    columns = ["c0", "c1"]
    version = registered(*stores(shared_client), name="wild", columns=columns)
    source = source_of(shared_client, version)
    flow = compile_flow(MODELS["some samples finite"])
    for kind in (PlotKind.MARGINALS, PlotKind.PAIRS, PlotKind.DENSITY):
        numbers = dict(asyncio.run(source.numbers(kind, flow)))
        title = draw(kind, numbers).get_suptitle()
        assert re.search(r"\d+ of 2000 rows of samples are not finite", title)


def test_a_picture_of_little_data_harms_nobody(shared_client):
    name = "few"
    dataset_id = made_up(shared_client, 3, 3)
    columns = ["c0", "c1", "c2"]
    registered(*stores(shared_client), name=name, columns=columns, dataset_id=dataset_id)
    assert picture(shared_client, "noise", name).content.startswith(PNG)
    many = {"rows": [[170.0, 70.0, 40.0]] * 300}
    assert shared_client.post(f"/v1/models/{name}/log_prob", json=many).status_code == 200


def test_a_model_without_finite_samples_is_refused(shared_client):
    flow = MODELS["no sample finite"]
    registered(*stores(shared_client), name="infinite", columns=["a", "b"], spec=WILD, flow=flow)
    for kind in ("marginals", "pairs", "density"):
        assert_refused(picture(shared_client, kind, "infinite"), 422, "plot-unavailable")


def test_a_file_that_is_gone_is_left_out(shared_client):
    state = shared_client.app.state
    dataset_id = made_up(shared_client, 5, 3)
    version = registered(*stores(shared_client), name="left")
    version = dataclasses.replace(version, columns=["c0", "c1", "c2"], dataset_id=dataset_id)
    state.blobs.delete(state.registry.dataset(version.project, dataset_id).key)
    source = source_of(shared_client, version)
    numbers = asyncio.run(source.numbers(PlotKind.MARGINALS, compile_flow(a_flow())))
    assert "data" not in numbers
