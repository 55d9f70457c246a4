"""Panels of columns."""

from itertools import pairwise

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
