"""Pictures of versions: drawn once, by a process of their own, from what there is."""

import asyncio
import dataclasses
import io
import json
import re
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from app.engine.reference_rows import sampled_rows
from app.plots import plots
from app.plots.curves import kept_epoch
from app.plots.numbers import Source
from app.plots.plots import Drawing, Numbers, PlotKind
from app.problems.problem import Problem
from flows import (
    MafSpec,
    MixedColumn,
    MixedSpec,
    build,
    compile_flow,
)
from models_store.records import Version
from tabular.columns import Column
from tests.app.conftest import CSV, assert_refused
from tests.app.plots.pictures import PNG, draw, picture
from tests.app.serving import COLUMNS, a_flow, registered

DECIDES = "robust_validation_log_likelihood"
DECIDES_BEST = f"best_{DECIDES}"


@pytest.mark.usefixtures("people")
def test_a_picture_is_drawn_of_what_there_is(shared_client):
    answer = picture(shared_client, "density", "plane")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content.startswith(PNG)


def with_data(client):
    """A version whose dataset is there."""
    rows = np.random.default_rng(0).normal([170, 70, 40], [10, 12, 15], size=(300, 3))
    table = "\n".join(",".join(map(str, row)) for row in [["age", "height", "weight"], *rows])
    dataset = client.post("/v1/datasets", content=table, headers=CSV).json()
    state = client.app.state
    version = registered(state.database, state.blobs, name="known")
    return dataclasses.replace(version, dataset_id=dataset["id"])


@pytest.mark.usefixtures("people")
def test_data_stand_beside_the_samples_in_the_models_order(shared_client):
    state = shared_client.app.state
    version = with_data(shared_client)
    source = Source(version, state.registry, state.jobs, state.blobs, state.engine)
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
    state = shared_client.app.state
    levels = ("a" * 128, "b" * 128, 3.5)
    typed = [{**Column(name=COLUMNS[0], type="category").to_dict(), "levels": levels}]
    typed += [Column(name=name).to_dict() for name in COLUMNS[1:]]
    version = dataclasses.replace(with_data(shared_client), types=typed, dataset_id=None)
    source = Source(version, state.registry, state.jobs, state.blobs, state.engine)
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


def numbers_of(kind: PlotKind) -> dict[str, np.ndarray]:
    values = np.random.default_rng(0).normal(size=(200, 16))
    names = np.array(["a$b", "c", "d"])
    match kind:
        case PlotKind.LEARNING_CURVE:
            likelihoods = {
                "train_log_likelihood": 1.0 * np.arange(3),
                DECIDES: np.array([1, np.nan, 3]),
            }
            return {
                "at": np.arange(3),
                "decides": np.array(DECIDES),
                "kept": np.array([2, 3]),
                **likelihoods,
            }
        case PlotKind.DENSITY:
            at = np.linspace(-1, 1, 5)
            return {"names": names, "x": at, "y": at, "density": np.zeros((5, 5))}
        case PlotKind.NOISE:
            return {"names": names, "noise": values, "normal": np.linspace(-2, 2, 200)}
        case PlotKind.IMAGES:
            return {"samples": values[:10]}
        case PlotKind.MARGINALS | PlotKind.PAIRS:
            constant = {"data": np.ones((9, 3))} if kind is PlotKind.MARGINALS else {}
            return {"names": names, "samples": values, **constant}


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


@pytest.mark.long
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
    source = Source(version, state.registry, state.jobs, state.blobs, state.engine)
    shown = dict(asyncio.run(source.numbers(PlotKind.PAIRS, compile_flow(flow))))
    assert len(shown["data"]) == 300
    assert set(np.unique(shown["data"][:, 0])) >= {0.0, 1.0, 2.0}
    figure = draw(PlotKind.MARGINALS, dict(shown))
    figure.savefig(io.BytesIO(), format="png", dpi=20)
    bars, amount = figure.axes[:2]
    assert [text.get_text() for text in bars.get_xticklabels()][:2] == ["red", r"gr\$een"]
    assert "missing: data" in amount.get_xlabel()
    figure = draw(PlotKind.PAIRS, shown)
    figure.savefig(io.BytesIO(), format="png", dpi=20)
    data, samples = figure.axes[:2]
    assert (data.get_title(), samples.get_title()) == ("data", "samples")
    assert (data.get_xlim(), data.get_ylim()) == (samples.get_xlim(), samples.get_ylim())
    assert (data.get_xlabel(), data.get_ylabel()) == ("colour", "amount")


@pytest.mark.parametrize("kind", PlotKind)
def test_every_kind_is_drawn(kind):
    file = io.BytesIO()
    draw(kind, numbers_of(kind)).savefig(file, format="png", dpi=20)
    assert file.getvalue().startswith(PNG)


def test_a_learning_curve_marks_the_epoch_that_was_kept():
    figure = draw(PlotKind.LEARNING_CURVE, numbers_of(PlotKind.LEARNING_CURVE))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "epoch"
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert "validation rows, far ones bounded (chooses the epoch)" in labels
    assert "kept: epoch 2, 3.000 nats" in labels


@pytest.mark.parametrize(
    ("metrics", "kept"),
    [
        ({"best_epoch": 5, DECIDES_BEST: -4.0}, (5.0, -2.0)),
        ({"best_epoch": 3, DECIDES_BEST: -4.0}, (3.0, -4.0)),
        ({"best_epoch": 3, DECIDES_BEST: None}, None),
        ({"best_epoch": 10, DECIDES_BEST: -4.0}, None),
        ({"best_epoch": 9}, None),
        ({"best_epoch": 2**70, DECIDES_BEST: -4.0}, None),
        ({"best_epoch": "5"}, None),
    ],
)
def test_the_kept_epoch_is_known_of_a_curve_that_leaves_it_out(metrics, kept):
    version = cast(Version, SimpleNamespace(metrics=metrics))
    curve = {"at": np.array([1.0, 5.0, 9.0]), DECIDES: np.array([-3.0, -2.0, np.nan])}
    assert kept_epoch(version, curve, DECIDES) == kept


def test_tails_get_an_axis_that_shows_them():
    random = np.random.default_rng(0)
    columns = {
        "log": random.lognormal(0, 2, 2000),
        "asinh": random.standard_cauchy(2000),
        "linear": random.normal(size=2000),
    }
    rows = np.stack(list(columns.values()), axis=1)
    for kind in (PlotKind.MARGINALS, PlotKind.PAIRS):
        figure = draw(kind, {"names": np.array(list(columns)), "samples": rows})
        for axes in figure.axes:
            assert axes.get_xlabel() in (axes.get_xscale(), "")


def test_the_data_choose_the_axis_and_not_a_few_samples():
    rows = np.random.default_rng(0).lognormal(0, 2, (2000, 2))
    samples = np.where(np.arange(2000)[:, None] % 100 == 0, -0.5, rows)
    for kind in (PlotKind.MARGINALS, PlotKind.PAIRS):
        numbers = {"names": np.array(["a", "b"]), "data": rows, "samples": samples}
        assert {axes.get_xscale() for axes in draw(kind, numbers).axes} == {"log"}


@pytest.mark.usefixtures("people")
def test_the_density_of_a_target_stands_beside_the_models(shared_client):
    state = shared_client.app.state
    version = registered(state.database, state.blobs, name="ring", columns=["z1", "z2"])
    flow = compile_flow(a_flow(dim=2))

    def shown(target):
        of_target = dataclasses.replace(version, target=target)
        source = Source(of_target, state.registry, state.jobs, state.blobs, state.engine)
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


def test_a_project_that_asks_for_too_many_plots_is_told_at_once(monkeypatch):
    begun, release = [], asyncio.Event()

    async def held(_plots, drawing, _numbers):
        begun.append(drawing.kind)
        await release.wait()
        return PNG

    async def nothing() -> Numbers:
        return {}

    async def main() -> None:
        kept = plots.Plots()
        tasks = [
            asyncio.create_task(
                kept.draw(Drawing(str(number), PlotKind.DENSITY, "png", "light"), nothing)
            )
            for number in range(21)
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert len(begun) == 1
        assert len(done) == 20 - plots._MOST_WAITING
        for task in done:
            assert isinstance(error := task.exception(), Problem)
            assert error.type.slug == "overloaded"
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(begun) == 1 + plots._MOST_WAITING

    monkeypatch.setattr(plots.Plots, "_draw", held)
    asyncio.run(main())


@pytest.mark.usefixtures("people")
def test_a_picture_is_drawn_once(shared_client, monkeypatch):
    first = picture(shared_client, "pairs", format="svg")
    assert first.headers["content-type"] == "image/svg+xml"
    assert re.search(rb"<svg\b", first.content)

    monkeypatch.setattr(plots, "_TIMEOUT_S", 0.0)  # no other is drawn in no time
    assert picture(shared_client, "pairs", format="svg").content == first.content
    assert_refused(picture(shared_client, "pairs"), 503, "overloaded")


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("learning-curve", "people"),
        ("noise", "people"),
        ("density", "people"),
        ("images", "people"),
    ],
)
def test_what_cannot_be_shown_is_told(shared_client, kind, model):
    refused = picture(shared_client, kind, model)
    assert_refused(refused, 422, "plot-unavailable")
    assert shared_client.head(str(refused.url)).status_code == 422


@pytest.mark.usefixtures("people")
def test_unknown_kinds_formats_and_versions_are_refused(shared_client):
    assert picture(shared_client, "pie").status_code == 422
    assert_refused(picture(shared_client, "pairs", format="gif"), 422, "validation")
    assert_refused(picture(shared_client, "pairs", "nobody"), 404, "not-found")
