"""Densities in the plane: the window that is found, and what is drawn in it."""

import math

import pytest
import torch

from flows import FitError, FormulaTarget, Potential, Window, density_in_plane


@pytest.mark.parametrize(
    ("middle", "scale"),
    [((0.0, 0.0), 1.0), ((300.0, -2.0), 2.0), ((0.0, 0.5), 0.01), ((0, 0), 500)],
)
def test_a_window_holds_the_density_and_little_else(
    middle: tuple[float, float], scale: float
) -> None:
    text = f"-0.5 * ((z1 - {middle[0]}) / {scale})^2 - 0.5 * ((z2 + {-middle[1]}) / {scale})^2"
    plane = density_in_plane(FormulaTarget(text, 2), size=80)
    window, values = plane.window, plane.log_density
    assert values.shape == (80, 80)
    reach = scale * math.sqrt(2 * 8)  # 8 nats below the peak
    for low, high, at in zip(window.lower, window.upper, middle, strict=True):
        assert low <= at - 0.9 * reach
        assert high >= at + 0.9 * reach
        assert high - low < 8 * reach


def test_rows_are_the_second_coordinate_and_columns_the_first() -> None:
    window = Window((0.0, 0.0), (1.0, 10.0))
    values = density_in_plane(FormulaTarget("z1 + z2", 2, window=window), size=3).log_density
    assert values.tolist() == [[-11.0, -10.5, -10.0], [-6.0, -5.5, -5.0], [-1.0, -0.5, 0.0]]


def test_a_potential_has_its_own_window() -> None:
    plane = density_in_plane(Potential("U5"), size=20)
    assert plane.window == Potential("U5").window
    assert plane.log_density.max() == 0


def test_what_is_not_finite_is_empty() -> None:
    window = Window.square(1.0)
    values = density_in_plane(FormulaTarget("log(z1)", 2, window=window), size=5).log_density
    assert torch.isneginf(values[:, :3]).all()
    assert values[:, 4].tolist() == [0.0] * 5


def test_a_density_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(FitError, match="two coordinates"):
        density_in_plane(FormulaTarget("z1", 1), size=8)
    with pytest.raises(FitError, match="nowhere"):
        density_in_plane(FormulaTarget("log(-1 - z1^2)", 2), size=8)
