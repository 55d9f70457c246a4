"""Figures from numbers alone: axes, levels, dates, and numbers of any size."""

import io
import json
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from app.plots.curves import kept_epoch
from app.plots.plots import PlotKind
from models_store.records import Version

PNG = b"\x89PNG\r\n\x1a\n"
DECIDES = "robust_validation_log_likelihood"
DECIDES_BEST = f"best_{DECIDES}"


def draw(kind, numbers):
    from app.plots import drawing  # noqa: PLC0415  half a second, which only the process that runs this needs

    return drawing.draw(kind, numbers)


def png(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=20)
    return file.getvalue()


@pytest.mark.parametrize(("low", "high"), [(14_999, 510_000), (-124.35, -114.31), (-0.00051, 0.0)])
def test_numbers_along_an_axis_do_not_run_into_one_another(low, high):
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  as above
    from matplotlib.figure import Figure  # noqa: PLC0415

    from app.plots.columns import Bins  # noqa: PLC0415

    figure = Figure(figsize=(3.3, 2.4))  # as a panel among others
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    Bins.equal(low, high, 60, whole=False).show(axes, "x")
    canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    shown = [box for box in boxes if axes.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 1]
    assert len(shown) >= 2
    assert all(left.x1 + 4 < right.x0 for left, right in pairwise(shown))


def typed(**scale):
    return {"labels": [], "numbers": [], "spikes": [], "is_date": False, **scale}


def drawn(kind, rows, scales):
    names = np.array([f"c{place}" for place in range(len(scales))])
    numbers = {
        "names": names,
        "data": rows,
        "samples": rows,
        "scales": np.array(json.dumps(scales)),
    }
    figure = draw(kind, numbers)
    assert png(figure).startswith(PNG)
    return figure


def test_columns_of_thousands_of_levels_have_few_bins_in_pairs():
    levels = 20_000
    scale = typed(labels=[f"level {n}" for n in range(levels)], numbers=list(range(levels)))
    rows = np.random.default_rng(0).integers(0, levels, (200, 2)).astype(float)
    figure = drawn("pairs", rows, [scale, scale])
    meshes = [axes.collections[0].get_array() for axes in figure.axes]
    assert len(meshes) == 2
    assert all(mesh.size <= 64**2 for mesh in meshes)
    assert [round(float(mesh.sum()), 6) for mesh in meshes] == [1, 1]  # no row is lost
    places = list(range(0, levels, 2500))
    assert figure.axes[0].get_xticks().tolist() == places
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()][1] == "level 2500"


def test_pairs_are_counted_as_shares_of_all_rows():
    scale = typed(labels=["a", "b"], numbers=[0, 1])
    rows = np.array([[0, 0], [0, 1], [1, 1], [np.nan, 1]])
    for axes in drawn("pairs", rows, [scale] * 2).axes:
        mesh = axes.collections[0]
        assert mesh.get_array().filled(0).tolist() == [[0.25, 0], [0.25, 0.25]]
        assert mesh.norm.vmax == 0.25


def test_values_are_counted_beside_their_spikes_and_gaps():
    rows = np.array([0, 0, 1, 2, 3, -999, -999, np.nan])[:, None]
    [axes] = drawn("marginals", rows, [typed(spikes=[-999])]).axes
    values, edges, _ = axes.patches[0].get_data()
    assert values.tolist() == [0.25, 0.125, 0.125, 0.125]
    assert edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5]
    shares = "data 25.0%, samples 25.0%", "data 12.5%, samples 12.5%"
    assert axes.get_xlabel() == f"c0\n= -999: {shares[0]}\nmissing: {shares[1]}"


def test_noise_far_outside_is_counted():
    numbers = {"noise": np.array([[9.0], [-10.0], [0.0]]), "normal": np.arange(-1, 2)}
    axes = draw(PlotKind.NOISE, {"names": np.array(["a"]), **numbers}).axes[0]
    assert (axes.get_title(), axes.get_xlim()) == ("a (2 outside)", (-8, 8))
    assert axes.lines[1].get_ydata().tolist() == [-10, 0, 9]


def test_dates_beyond_all_years_are_left_out():
    day = 86_400.0
    rows = np.array([[1e15, 0.0], [-1e300, day], [day, 2 * day], [2 * day, 3 * day]])
    rows = np.append(rows, [[9999 * day, day]], axis=0)
    for kind in ("marginals", "pairs"):
        figure = drawn(kind, rows, [typed(is_date=True, spikes=[9999 * day])] * 2)
        assert figure.axes[0].get_xlim() == (1, 2)


def test_bars_count_the_levels_by_their_numbers_and_the_missing_cells():
    scale = typed(labels=["b", "a"], numbers=[5.0, 3.0])
    rows = np.array([[3.0], [3.0], [5.0], [np.nan], [4.0]])
    axes = drawn("marginals", rows, [scale]).axes[0]
    heights = [bar.get_height() for bar in axes.containers[0]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["b", "a", "missing"]
    assert heights == pytest.approx([0.2, 0.4, 0.2])


def test_the_most_frequent_levels_have_bars():
    levels = list(range(12))
    rows = np.repeat(levels, np.add(levels, 1))[:, None]
    scale = typed(labels=[str(level) for level in levels], numbers=levels)
    [axes] = drawn("marginals", rows, [scale]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == scale["labels"][2:]


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


def test_every_kind_is_drawn():
    for kind in PlotKind:
        assert png(draw(kind, numbers_of(kind))).startswith(PNG)


def test_a_learning_curve_marks_the_epoch_that_was_kept():
    figure = draw(PlotKind.LEARNING_CURVE, numbers_of(PlotKind.LEARNING_CURVE))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "epoch"
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert "validation rows, far ones bounded (chooses the epoch)" in labels
    assert "kept: epoch 2, 3.000 nats" in labels
    assert [list(line.get_xdata()) for line in axes.lines[-2:]] == [[2, 2], [2]]


def test_the_kept_epoch_is_known_of_a_curve_that_leaves_it_out():
    told = [-3.0, np.nan, -7.0, -2.0]
    curve = {"at": np.array([1.0, 5.0, 9.0, 9.0]), DECIDES: np.array(told)}
    for metrics, kept in (
        ({"best_epoch": 9, DECIDES_BEST: -4.0}, (9.0, -2.0)),
        ({"best_epoch": 1, DECIDES_BEST: -4.0}, (1.0, -3.0)),
        ({"best_epoch": 3, DECIDES_BEST: -4.0}, (3.0, -4.0)),
        ({"best_epoch": 3, DECIDES_BEST: None}, None),
        ({"best_epoch": 10, DECIDES_BEST: -4.0}, None),
        ({"best_epoch": 5}, None),
        ({"best_epoch": 2**70, DECIDES_BEST: -4.0}, None),
        ({"best_epoch": "9"}, None),
    ):
        version = cast(Version, SimpleNamespace(metrics=metrics))
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


WITH_NAMES = {PlotKind.MARGINALS, PlotKind.PAIRS, PlotKind.NOISE}


@pytest.mark.parametrize(
    ("scale", "spread", "rows"), [(0.0, 1.0, 1), (1e100, 1.0, 50), (-1e100, 1e-15, 50)]
)
def test_numbers_of_any_size_are_drawn(scale, spread, rows):
    noise = np.random.default_rng(0).normal(size=(rows, 2))
    values = np.clip(scale * (1 + spread * noise), -1e100, 1e100)
    names = np.array(["a", "b"])
    for kind, numbers in {
        PlotKind.MARGINALS: {"samples": values, "data": values[:1]},
        PlotKind.PAIRS: {"samples": values[:0], "data": values},
        PlotKind.NOISE: {"noise": values, "normal": np.linspace(-2, 2, rows)},
        PlotKind.LEARNING_CURVE: {"at": np.arange(rows), "elbo": values[:, 0]},
        PlotKind.IMAGES: {"samples": np.tile(values, 8)[:4]},
    }.items():
        shown = {"names": names, **numbers} if kind in WITH_NAMES else numbers
        assert png(draw(kind, shown)).startswith(PNG)
