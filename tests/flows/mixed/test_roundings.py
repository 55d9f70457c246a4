import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from flows import Denoise, GaussianSpec, MixedColumn, MixedSpec, build
from flows.compiled.sampling import calibrate_samples
from flows.mixed.building import fit_encoding
from flows.mixed.encoding import TableEncoding
from flows.mixed.roundings import measure_roundings, round_like
from flows.preprocess import Preprocessing
from flows.specs.mixed import DECADES, STEPS

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
    data = torch.where(noise() < 0.6, exact.mul(10).round() / 10, exact)
    assert share_on(rounded(7 * noise() + 0.0012, data), 0.1) == pytest.approx(0.6, abs=0.02)


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


COLUMNS = [
    MixedColumn(levels=3),
    MixedColumn(noise=0.5, step=0.01),
    MixedColumn(noise=0.1, step=1.0),
]


def rows(count: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(count, 3, dtype=torch.float64, generator=generator)
    levels, amounts = (table[:, 0] * 3).floor(), (table[:, 1] * 2 - 0.7).clamp(min=0)
    return torch.stack([levels, (amounts * 100).round() / 100, (table[:, 2] * 9).round()], dim=1)


def fitted() -> TableEncoding:
    flow = build(MixedSpec(columns=COLUMNS, rows=4000), 3, seed=0)
    fit_encoding(flow, rows())
    assert isinstance(flow.preprocessing, TableEncoding)
    return flow.preprocessing


def test_training_rows_get_the_noise_where_it_is_wider_than_the_step() -> None:
    encoding, table = fitted(), rows()
    moved = (encoding.spread(table, generator=torch.Generator().manual_seed(0)) - table).abs()
    assert moved[:, 0].max() == 0
    assert 0.24 < moved[:, 1].max() <= 0.25
    assert 0.49 < moved[:, 2].max() <= 0.5
    columns = [MixedColumn(step=1.0, spikes=[0.0])]
    own = build(MixedSpec(columns=columns), 1, seed=0).preprocessing
    spike, value = own.spread(torch.tensor([[0.0], [5.0]]), generator=torch.Generator())[:, 0]
    assert spike == 0
    assert 0 < abs(value - 5) <= 0.5


def test_samples_come_without_the_noise() -> None:
    encoding, table = fitted(), rows()
    noisy = encoding.spread(table, generator=torch.Generator().manual_seed(1))
    found = encoding.to_grid(noisy)
    shares = [(values[:, 1] == 0).double().mean().item() for values in (table, noisy, found)]
    assert shares[0] > 0.3
    assert shares[1] == 0
    assert abs(shares[2] - shares[0]) < 0.01
    assert found[:, 1].min() == 0
    assert torch.equal(found[:, 2], table[:, 2])


def test_samples_of_a_mixed_column_that_repeats_its_values_are_none_beside() -> None:
    listed = torch.tensor([8.0, 8.5, 12.0, 12.7, 13.0, 16.0], dtype=torch.float64)
    table = torch.stack([listed[torch.arange(900) % 6], torch.linspace(0, 1, 900).double()], dim=1)
    flow = build(MixedSpec(columns=[MixedColumn(step=0.1, repeated=6), MixedColumn()]), 2, seed=0)
    fit_encoding(flow, table)
    given = flow.preprocessing.spread(table, generator=torch.Generator().manual_seed(1))
    assert torch.equal(flow.preprocessing.to_grid(given), table)
    between = torch.tensor([[12.4, 0.5], [14.1, 0.5], [99.0, 0.5]], dtype=torch.float64)
    assert flow.preprocessing.to_grid(between)[:, 0].tolist() == [12.7, 13.0, 16.0]


def test_the_maps_are_saved_with_the_weights() -> None:
    one = fitted()
    other = build(MixedSpec(columns=COLUMNS, rows=4000), 3, seed=1).preprocessing
    other.load_state_dict(one.state_dict())
    noisy = one.spread(rows(), generator=torch.Generator().manual_seed(1))
    assert torch.equal(other.to_grid(noisy), one.to_grid(noisy))


def spiky(rows: int = 20_000, *, low: float | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(rows, dtype=torch.float64, generator=generator)
    values[torch.rand(rows, generator=generator) < 0.6] = 0.25 if low is None else low
    return (values if low is None else values.clamp(min=low))[:, None]


def noisy(values: torch.Tensor, width: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(values.shape, generator=generator, dtype=torch.float64) - 0.5
    return values + width * noise


def test_values_with_noise_get_their_distribution_back() -> None:
    values = spiky()
    found = maps_of(values, MixedColumn(noise=0.5)).clean(noisy(values, 0.5))
    assert (found == 0.25).double().mean() == pytest.approx(0.6, abs=0.01)
    shares = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    assert torch.allclose(found.quantile(shares), values.quantile(shares), atol=0.05)
    assert (found - noisy(values, 0.5)).abs().max() < 0.5


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["lowest", "highest"])
def test_a_shared_value_at_an_end_is_an_end(sign: float) -> None:
    values = sign * spiky(low=0.0)
    denoise = maps_of(values, MixedColumn(noise=0.5))
    far = sign * torch.tensor([[-7.0], [9.0]], dtype=torch.float64)
    beyond, other = (sign * denoise.clean(far)[:, 0]).tolist()
    assert beyond == 0.0
    assert other == pytest.approx(9.0, abs=0.5)  # beyond the others samples are only shifted


def maps_of(values: Tensor, *columns: MixedColumn) -> Denoise:
    outer = Preprocessing(columns=columns)
    outer.fit(values)
    assert outer.denoise is not None
    return outer.denoise


@pytest.mark.parametrize("width", [0.0, 0.5])
def test_samples_of_a_column_that_repeats_its_values_are_these(width: float) -> None:
    generator = torch.Generator().manual_seed(2)
    listed = torch.rand(200, dtype=torch.float64, generator=generator).square().sort().values
    values = listed[(torch.rand(20_000, generator=generator) ** 2 * 200).long()][:, None]
    outer = Preprocessing(columns=[MixedColumn(step=min(0.1, width), noise=width, repeated=200)])
    outer.fit(values)
    given = noisy(values, width or 1e-7)
    found = outer.to_grid(given)
    assert torch.isin(found, listed).all()
    shares = [torch.bincount(torch.searchsorted(listed, x[:, 0])) / 20_000 for x in (values, found)]
    assert (shares[0] - shares[1]).cumsum(0).abs().max() < 0.01
    if not width:
        assert torch.equal(found, values)


def test_maps_follow_what_a_flow_draws_from_fifty_values_on() -> None:
    values, outer = spiky(), Preprocessing(columns=[MixedColumn(noise=0.5)])
    outer.fit(values)
    maps = outer.denoise
    assert maps is not None
    before = maps.noisy.clone()
    for drawn, stays in ((49, True), (50, False)):
        outer.calibrate(values, noisy(values, 0.5)[:drawn])
        assert torch.equal(maps.noisy, before) is stays


def test_other_columns_stay_and_what_is_no_number_is_none() -> None:
    values = torch.cat([spiky(), spiky(), spiky()], dim=1)
    rows = noisy(values, 0.5)
    rows[3] = torch.nan
    found = maps_of(values, MixedColumn(), MixedColumn(noise=0.5), MixedColumn()).clean(rows)
    assert torch.equal(found[4:, [0, 2]], rows[4:, [0, 2]])
    assert found[3].isnan().all()


@pytest.mark.parametrize("fault", ["places", "noisy"])
def test_maps_of_a_file_that_are_none_are_refused(fault: str) -> None:
    denoise = maps_of(spiky(), MixedColumn(noise=0.5))
    denoise.check(1)
    getattr(denoise, fault)[0] = 7 if fault == "places" else -torch.arange(130.0)
    with pytest.raises(ValueError, match="samples"):
        denoise.check(1)


@pytest.mark.parametrize("mixed", [True, False])
def test_samples_have_values_as_often_as_training_rows_whatever_the_flow_has_learnt(
    mixed: bool,
) -> None:
    listed = torch.tensor([0.0, 1.0, 3.0, 4.5, 9.0], dtype=torch.float64)
    counts = torch.tensor([300, 100, 400, 150, 50])
    table = torch.stack([listed.repeat_interleave(counts), torch.linspace(0, 1, 1000).double()], 1)
    context = None if mixed else torch.linspace(-1, 1, 1000).double()[:, None]
    columns = [MixedColumn(repeated=5), MixedColumn()]
    if context is None:
        flow = build(MixedSpec(columns=columns), 2, seed=0)
    else:
        flow = build(GaussianSpec(), 2, context_dim=1, columns=columns, seed=0)
    fit_encoding(flow, table)
    scores = flow.log_prob(table, context)
    calibrate_samples(flow, table if context is None else torch.cat([table, context], 1), seed=1)
    drawn = flow.sample(1000, generator=torch.Generator().manual_seed(2), context=context)
    shares = (drawn[:, :1] == listed).double().mean(dim=0)
    assert torch.allclose(shares, counts.double() / 1000, atol=0.05)
    assert torch.equal(scores, flow.log_prob(table, context))
