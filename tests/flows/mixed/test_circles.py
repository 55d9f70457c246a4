"""Circular columns: one turn has the whole density, and nothing happens where it begins."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flows import FitOptions, Flow, MadeSpec, MixedColumn, MixedSpec, build, compile_flow, fit
from flows.mixed.building import MixedContext, fit_encoding
from flows.mixed.map_fitting import fit_column
from flows.mixed.maps import FittedMaps

OPTIONS = FitOptions(max_epochs=3, batch_size=200, learning_rate=0.02)
DEGREES = MixedColumn(transform="circular", low=0.0, high=360.0)


def directions(rows: int = 1000) -> Tensor:
    """Return angles of which most lie around 0, and none near 180, with a number beside them."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
    angles = torch.remainder(30 * noise[:, 0], 360)
    return torch.stack([angles, angles.deg2rad().cos() + 0.1 * noise[:, 1]], dim=1)


def map_of(values: Tensor) -> FittedMaps:
    return FittedMaps.of([fit_column(values, DEGREES)], [DEGREES])


def trained(rows: Tensor, *, step: float = 0.0) -> Flow:
    spec = MixedSpec(
        columns=[replace(DEGREES, step=step), MixedColumn()],
        flow=MadeSpec(conditional="mixture", components=4, hidden=[12]),
        rows=len(rows),
    )
    flow = build(spec, 2, seed=0)
    fit_encoding(flow, rows[:800])
    for _ in fit(flow, rows[:800], rows[800:], options=OPTIONS):
        pass
    return flow.double().eval()


def test_the_map_is_inverted_exactly_and_its_slope_is_that_of_differences():
    maps, x = map_of(directions()[:, 0]), torch.linspace(0.05, 359.95, 700).double()[:, None]
    y, log_slope = maps.inverse(x)
    back, log_det = maps.forward(y)
    assert torch.allclose(back, x, atol=1e-9)
    assert torch.allclose(log_det, -log_slope)
    rise = maps.inverse(x + 1e-6)[0] - maps.inverse(x - 1e-6)[0]
    steep = log_slope < 3  # further out differences have no digits
    assert torch.allclose((rise / 2e-6).log()[steep], log_slope[steep], atol=1e-4)


def test_it_is_cut_where_the_fewest_values_lie():
    for middle in (0.0, 77.0, 300.0):
        cut = float(map_of(torch.remainder(directions()[:, 0] + middle, 360)).centre)
        assert math.cos(math.radians(cut - middle)) < -0.9


@pytest.mark.parametrize("values", [[], [3.0], [5.0] * 50, [math.nan], [400.0, -80.0]])
def test_any_values_make_a_finite_map(values):
    maps = map_of(torch.tensor(values, dtype=torch.float64))
    for found in maps.forward(torch.linspace(-40, 40, 81, dtype=torch.float64)[:, None]):
        assert torch.isfinite(found).all()
    places = torch.tensor([0.0, 360.0, float(maps.centre), -1e9, 1e300], dtype=torch.float64)
    for found in maps.inverse(places[:, None]):
        assert torch.isfinite(found).all()


def test_one_turn_has_the_whole_density_and_others_repeat_it():
    flow, turn = trained(directions()), torch.linspace(0, 360, 361, dtype=torch.float64)
    other = torch.linspace(-2, 3, 201, dtype=torch.float64)
    rows = torch.cartesian_prod(turn, other)
    with torch.no_grad():
        density = flow.log_prob(rows).reshape(361, 201)
        again = flow.log_prob(rows - torch.tensor([720.0, 0.0]))
    total = torch.trapezoid(torch.trapezoid(density.exp(), other), turn)
    assert float(total) == pytest.approx(1, abs=2e-3)
    assert torch.allclose(again, density.flatten(), atol=1e-6)
    assert torch.allclose(density[0], density[-1])


def test_samples_are_angles_of_one_turn_in_the_digits_of_the_data():
    rows = directions()
    rows[:, 0] = torch.remainder(rows[:, 0].round(), 360)
    flow = trained(rows, step=1.0)
    drawn = compile_flow(flow.float()).sample(4000, seed=1)[:, 0]
    assert (drawn >= 0).all()
    assert (drawn < 360).all()
    assert (drawn == drawn.round()).all()
    assert (drawn == 0).any()


def test_a_context_goes_in_circles_without_a_jump():
    rows = directions().flip(1)  # a number given an angle
    spec = MixedSpec(
        columns=[MixedColumn()],
        context=[DEGREES],
        flow=MadeSpec(conditional="mixture", components=4, hidden=[12]),
        rows=len(rows),
    )
    flow = build(spec, 1, context_dim=1, seed=0)
    fit_encoding(flow, rows[:800])
    for _ in fit(flow, rows[:800], rows[800:], options=OPTIONS):
        pass
    flow.double().eval()
    table = None if flow.context is None else flow.context.table
    assert isinstance(table, MixedContext)
    cut = float(table.encoding.maps.centre)
    angles = torch.tensor([cut - 1e-3, cut + 1e-3, cut + 360, -1080, 0.0]).double()
    given = torch.stack([torch.full((5,), 0.7).double(), angles], dim=1)
    with torch.no_grad():
        scores = flow.log_prob_of_table(given)
    assert torch.allclose(scores[:3], scores[:1], atol=1e-3)
    assert torch.allclose(scores[3], scores[4], atol=1e-9)
    compiled = compile_flow(flow.float())
    assert torch.allclose(torch.from_numpy(compiled.log_prob(given.numpy())), scores, atol=1e-4)
    drawn = compiled.sample(2000, seed=1, context=given[4:, 1:].numpy())
    assert drawn.mean() > 0.5  # the cosine of 0 degrees is 1
