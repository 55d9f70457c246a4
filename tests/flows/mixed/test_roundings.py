import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from flows.mixed.roundings import DECADES, STEPS, measure_roundings, round_like

NO_SPIKES = torch.full((1, 1), math.nan)


def noise(count: int = 20_000) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def rounded(values: Tensor, like: Tensor, spikes: Tensor = NO_SPIKES) -> Tensor:
    return round_like(values[:, None], measure_roundings(like)[None], spikes)[:, 0]


def share_on(values: Tensor, step: float) -> float:
    counts = values / step
    return float(((counts - counts.round()).abs() < 1e-6).double().mean())


def test_samples_are_rounded_as_often_as_the_data():
    exact = 10 + 80 * noise()
    halves = torch.arange(20_000) % 10 == 0
    data = torch.where(halves, exact.floor() + 0.5, exact.round())

    found = rounded(exact + 0.00123, data)

    assert share_on(found, 0.5) == 1
    assert share_on(found, 1) == pytest.approx(share_on(data, 1), abs=0.01)
    assert (found - exact).abs().max() <= 0.51


def test_each_decade_has_steps_of_its_own():
    exact = 0.2 + 5 * noise()
    data = torch.where(exact < 1, exact.mul(1000).round() / 1000, exact.mul(100).round() / 100)

    found = rounded(exact + 0.00012, data)

    assert share_on(found[found < 1], 0.001) == 1
    assert share_on(found[found < 0.99], 0.01) == pytest.approx(0.1, abs=0.02)
    assert share_on(found[found >= 1], 0.01) == 1
    assert share_on(found[found >= 1], 0.1) == pytest.approx(0.1, abs=0.02)


def test_a_rare_value_of_many_digits_does_not_matter():
    data = (1 + 8 * noise()).mul(10).round() / 10
    data[7] = math.pi

    assert share_on(rounded(1 + 8 * noise() + 0.0123, data), 0.1) > 0.999


def test_values_without_a_grid_stay():
    exact = noise() * 7
    assert torch.equal(rounded(exact, exact), exact)


def test_no_value_is_rounded_to_a_spike():
    exact = 10 + 20 * noise()
    spikes = torch.tensor([[15.0, 16.0, 17.0]])
    data = exact.mul(2).round() / 2
    data = data[(data[:, None] != spikes).all(dim=1)]

    found = rounded(exact, data, spikes)

    assert not (found[:, None] == spikes).any()
    assert share_on(found, 0.5) > 0.99


@settings(max_examples=15, deadline=None)
@given(
    data=st.lists(st.floats(-1e30, 1e30) | st.integers(-99, 99).map(float), max_size=30),
    values=st.lists(st.floats(-1e30, 1e30) | st.just(math.nan), min_size=1, max_size=30),
)
def test_any_values_can_be_measured_and_rounded(data: list[float], values: list[float]) -> None:
    shares = measure_roundings(torch.tensor(data, dtype=torch.float64))
    before = torch.tensor(values, dtype=torch.float64)[:, None]

    after = round_like(before, shares[None], NO_SPIKES)

    assert shares.shape == (DECADES, STEPS)
    assert ((shares >= 0) & (shares <= 1 + 1e-9)).all()
    assert (shares.diff(dim=1) >= 0).all()
    assert torch.equal(after.isnan(), before.isnan())
    assert torch.equal(
        round_like(before, shares[None], NO_SPIKES)[~after.isnan()], after[~after.isnan()]
    )
    unit = 10.0 ** (before.abs().clamp(min=1e-6, max=1e9).log10().floor().nan_to_num(0) + 1e-9)
    digits = before.abs() * 1e-15  # that float64 cannot keep
    assert ((after - before).abs() <= unit + digits)[~before.isnan()].all()


def test_a_step_that_few_of_are_in_the_data_draws_no_values_to_it():
    """A 20.0 among 13.1 to 21.5 says nothing about multiples of ten."""
    data = (13 + 8.5 * noise(400)).mul(10).round() / 10
    data[:15] = 20.0
    found = rounded(((13 + 8.5 * noise()) * 10).round() / 10, data)
    assert float((found == 20.0).double().mean()) < 0.03
    assert float((found == 15.0).double().mean()) < 0.03
