import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from flows import FitOptions, Flow, MadeSpec, MixedColumn, MixedSpec, build, compile_flow, fit
from flows.mixed.building import MixedContext, fit_encoding
from flows.mixed.map_fitting import fit_column
from flows.mixed.maps import ENDLESS, FittedMaps

KINDS = [
    MixedColumn(transform="none"),
    MixedColumn(transform="asinh"),
    MixedColumn(transform="log", low=0.0),
    MixedColumn(transform="log", step=0.5),
    MixedColumn(transform="logit", low=0.0, high=1e4),
    MixedColumn(transform="quantiles"),
    MixedColumn(transform="quantiles", low=0.0),
    MixedColumn(transform="quantiles", low=0.0, high=8.0),
]
IDS = [f"{c.transform}-{c.low}-{c.high}" for c in KINDS]


def positive(rows: int = 3000) -> torch.Tensor:
    noise = torch.randn(rows, generator=torch.Generator().manual_seed(0)).double()
    return torch.sigmoid(noise * 2) * 8


def maps_of(values: torch.Tensor, column: MixedColumn) -> FittedMaps:
    return FittedMaps.of([fit_column(values, column)], [column])


@pytest.mark.parametrize("column", KINDS, ids=IDS)
def test_maps_are_inverted_exactly_and_their_slopes_are_those_of_differences(column):
    maps = maps_of(positive(), column)
    x = torch.cat([positive(400), torch.linspace(0.001, 7.999, 500).double()])[:, None]
    y, log_slope = maps.inverse(x)
    back, log_det = maps.forward(y)
    assert torch.allclose(back, x, rtol=1e-9, atol=1e-9)
    assert torch.allclose(log_det, -log_slope, atol=1e-7)
    step = 1e-6 * torch.ones_like(x)
    rise = maps.inverse(x + step)[0] - maps.inverse(x - step)[0]
    assert (rise > 0).all()
    # A knot may lie between the two points.
    off = ((rise / (2 * step)).log() - log_slope).abs().flatten()
    assert float(off.sort().values[-20]) < 1e-3


@pytest.mark.parametrize("column", KINDS, ids=IDS)
def test_all_scores_are_values_inside_the_bounds(column):
    maps = maps_of(positive(), column)
    y = torch.linspace(-12, 12, 999, dtype=torch.float64)[:, None]
    x, log_det = maps.forward(y)
    assert torch.isfinite(x).all()
    assert torch.isfinite(log_det).all()
    assert (x.diff(dim=0) >= 0).all()
    if column.low is not None and column.transform != "none":
        assert float(x.min()) >= column.low - 0.3
    if column.high is not None:
        assert float(x.max()) <= column.high + 0.1


@pytest.mark.parametrize("column", KINDS[:2] + KINDS[5:7], ids=IDS[:2] + IDS[5:7])
def test_a_single_far_value_does_not_set_the_scale(column):
    values = torch.cat([positive(), torch.tensor([1e12]).double()])
    scores = maps_of(values, column).inverse(values[:, None])[0][:-1, 0]
    assert 0.3 < float(scores.std()) < 3
    assert float(scores.abs().max()) < 12


def test_quantiles_become_about_gaussian():
    values = positive()
    scores = maps_of(values, KINDS[5]).inverse(values[:, None])[0][:, 0].sort().values
    exact = torch.special.ndtri((torch.arange(len(scores)) + 0.5) / len(scores))
    assert float((scores - exact).abs().mean()) < 0.05


def test_a_value_outside_of_the_bounds_has_no_density():
    column = MixedColumn(transform="logit", low=0.0, high=9.0)
    y, log_slope = maps_of(positive(), column).inverse(
        torch.tensor([[-1.0], [10.0], [4.0]]).double()
    )
    assert log_slope.flatten().isinf().tolist() == [True, True, False]
    assert torch.isfinite(y).all()


NUMBERS = st.floats(-1e15, 1e15, allow_nan=False) | st.sampled_from([0.0, 1.0, 1e-300, 5.0])


@settings(deadline=None)
@given(
    st.lists(NUMBERS, max_size=60),
    st.sampled_from(["none", "asinh", "quantiles", "log"]),
    st.sampled_from([0.0, 0.01]),
)
def test_any_values_make_a_finite_increasing_map(numbers, transform, step):
    column = MixedColumn(transform=transform, step=step)
    values = torch.tensor(numbers, dtype=torch.float64)
    if transform == "log":
        values = values.abs()
    maps = maps_of(values, column)
    y, log_slope = maps.inverse(values[:, None])
    assert torch.isfinite(y).all()
    assert torch.isfinite(log_slope).all()
    ordered = values.sort().values
    scores = maps.inverse(ordered[:, None])[0][:, 0]
    assert (scores.diff() >= -1e-9).all()
    x, log_det = maps.forward(torch.linspace(-8, 8, 33, dtype=torch.float64)[:, None])
    assert torch.isfinite(x).all()
    assert not log_det.isnan().any()


def test_no_values_and_equal_values_have_maps():
    for values in ([], [3.0], [3.0] * 50, [math.nan], [0.0] * 9 + [7.0]):
        for column in KINDS:
            maps = maps_of(torch.tensor(values, dtype=torch.float64), column)
            x, log_det = maps.forward(torch.linspace(-6, 6, 13, dtype=torch.float64)[:, None])
            assert np.isfinite(x.numpy()).all()
            assert np.isfinite(log_det.numpy()).all()


@pytest.mark.parametrize("step", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_few_rounded_values_are_not_sampled_far_beyond_the_data(step, seed):
    """Equal values at the ends, and single far ones, do not rule the tails of a small table."""
    generator = torch.Generator().manual_seed(seed)
    values = 200 + 14 * torch.randn(342, generator=generator, dtype=torch.float64)
    values = (values / step).round() * step
    values[0] = values.max() + 20
    spread = values + step * (torch.rand(342, generator=generator, dtype=torch.float64) - 0.5)
    maps = maps_of(spread, MixedColumn(transform="quantiles", step=step))
    ends = maps.forward(torch.tensor([[-4.0], [4.0]], dtype=torch.float64))[0]
    width = float(values.max() - values.min())
    assert values.min() - 0.5 * width < ends[0, 0] < values.min()
    assert values.max() - 20 < ends[1, 0] < values.max() + 0.5 * width


@pytest.mark.parametrize("shape", ["normal", "log-normal", "clusters"])
def test_smoothed_quantiles_fit_values_that_they_have_not_seen(shape: str) -> None:
    gains = []
    for seed in range(4):
        normal = torch.randn(2_200, generator=torch.Generator().manual_seed(seed)).double()
        clusters = normal + 12 * (torch.arange(2_200) % 2)
        rows = {"normal": normal, "log-normal": normal.exp(), "clusters": clusters}[shape]
        column = MixedColumn(transform="quantiles")
        likelihoods = []
        for smooth in (False, True):
            fit = fit_column(rows[:200], column, smooth=smooth)
            scores, log_slopes = FittedMaps.of([fit], [column]).inverse(rows[200:, None])
            likelihoods.append(float((log_slopes - 0.5 * scores.square()).mean()))
        gains.append(likelihoods[1] - likelihoods[0])
    assert sum(gains) / 4 > (0.0 if shape == "clusters" else 0.05)


def test_a_log_scale_whose_values_end_early_is_not_sampled_far_beyond_them() -> None:
    values = (torch.linspace(1, 2, 4_000, dtype=torch.float64) * math.log(10)).exp()
    maps = maps_of(values, MixedColumn(transform="log", low=0.0))
    scores = torch.tensor([[2.5], [5.0], [8.0]], dtype=torch.float64)
    x, log_det = maps.forward(scores)
    assert float(x[1]) < 2.5 * 100
    back, log_slope = maps.inverse(x)
    assert torch.allclose(back, scores)
    assert torch.allclose(log_slope, -log_det)
    step = 1e-6 * x
    rise = maps.inverse(x + step)[0] - maps.inverse(x - step)[0]
    assert torch.allclose((rise / (2 * step)).log(), log_slope, atol=1e-6)


def test_values_that_are_log_normal_or_heavier_are_not_limited() -> None:
    shares = (torch.arange(4_000, dtype=torch.float64) + 0.5) / 4_000
    for values in (torch.special.ndtri(shares).exp(), (1 - shares) ** -0.7):
        maps = maps_of(values, MixedColumn(transform="log", low=0.0))
        scores = torch.tensor([[5.0]], dtype=torch.float64)
        plain = maps._replace(reach=maps.reach * 0 + torch.tensor([-ENDLESS, ENDLESS]))
        assert torch.allclose(maps.forward(scores)[0], plain.forward(scores)[0])


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
