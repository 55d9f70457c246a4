"""Panels of columns."""

import io
import json
from itertools import pairwise

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("low", "high"), [(14_999, 510_000), (-124.35, -114.31), (0, 9e8), (0, 12_000), (-0.00051, 0.0)]
)
def test_numbers_along_an_axis_do_not_run_into_one_another(low, high):
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  as in `test_plots`
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
    from app.plots.drawing import draw  # noqa: PLC0415  as above

    names = np.array([f"c{place}" for place in range(len(scales))])
    numbers = {
        "names": names,
        "data": rows,
        "samples": rows,
        "scales": np.array(json.dumps(scales)),
    }
    figure = draw(kind, numbers)
    figure.savefig(io.BytesIO(), format="png", dpi=20)
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


@pytest.mark.parametrize("kind", ["marginals", "pairs"])
def test_dates_beyond_all_years_are_left_out(kind):
    day = 86_400.0
    rows = np.array([[1e15, 0.0], [-1e300, day], [day, 2 * day], [2 * day, 3 * day]])
    drawn(kind, rows, [typed(is_date=True)] * 2)


def test_bars_count_the_levels_by_their_numbers_and_the_missing_cells():
    scale = typed(labels=["b", "a"], numbers=[5.0, 3.0])
    rows = np.array([[3.0], [3.0], [5.0], [np.nan], [4.0]])
    axes = drawn("marginals", rows, [scale]).axes[0]
    heights = [bar.get_height() for bar in axes.containers[0]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["b", "a", "missing"]
    assert heights == pytest.approx([0.2, 0.4, 0.2])
