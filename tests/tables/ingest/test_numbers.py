"""Scales and spikes of columns of numbers, and numbers that may stand for no value."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tabular.columns import Column
from tabular.formats import TableFormat
from tabular.ingest.numbers import (
    MAX_SPIKES,
    choose_transform,
    find_spikes,
    grid_step,
    is_ordinal,
)
from tabular.ingest.warnings import find_sentinels
from tests.tables.files import npy

RANDOM = np.random.default_rng(0)


def test_spikes_stand_out_of_what_is_beside_them():
    values = RANDOM.normal(size=20_000)
    assert find_spikes(values) == []
    assert find_spikes(RANDOM.poisson(30, 20_000).astype(float)) == []
    zeros = np.where(RANDOM.random(20_000) < 0.1, 0.0, np.exp(values))
    sentinels = np.where(RANDOM.random(20_000) < 0.02, -999.0, zeros)
    assert find_spikes(sentinels) == [-999.0, 0.0]
    round_ones = np.where(RANDOM.random(20_000) < 0.9, np.round(values, 1), values)
    assert len(find_spikes(round_ones)) <= MAX_SPIKES


def test_any_number_of_values_that_many_rows_share_are_spikes_beside_a_continuous_part():
    shared = np.log(np.arange(1.0, 41.0))
    column = np.concatenate([RANDOM.choice(shared, 3000), RANDOM.normal(5.0, 0.3, 1000)])
    assert find_spikes(column) == sorted(shared)
    assert find_spikes(np.round(RANDOM.normal(0.0, 3.0, 4000), 1)) == []  # a smooth grid


@pytest.mark.parametrize(
    ("column", "ordinal"),
    [
        (4.5 * RANDOM.integers(0, 23, 3000), True),
        (np.log(1.0 + RANDOM.poisson(5.0, 3000)), True),
        (RANDOM.poisson(5.0, 3000) / 3, True),
        (np.round(RANDOM.normal(61.0, 1.5, 3000), 1), False),  # a tenth is a decimal
        (np.append(RANDOM.normal(size=1500), np.zeros(1500)), False),
        (np.repeat(4.5 * np.arange(100), 3), False),  # too few rows for each
        (np.repeat(4.5 * np.arange(300), 20), False),  # too many values
    ],
)
def test_a_column_of_few_values_that_are_no_decimals_is_ordinal(column, ordinal):
    values, counts = np.unique(column, return_counts=True)
    assert is_ordinal(values, counts) == ordinal


def test_the_step_of_a_grid_is_what_all_values_are_multiples_of():
    assert grid_step(np.array([0.0, 4.5, 9.0, 31.5])) == pytest.approx(4.5)
    assert grid_step(np.round(np.arange(0, 20) / 3, 6)) == pytest.approx(1 / 3, rel=1e-6)
    assert grid_step(np.log(np.arange(1.0, 20.0))) == 0.0


def counted(*counts: int) -> NDArray[np.float64]:
    """A column of the values 0, 1, 2, ..., each as often as is said."""
    return np.repeat(np.arange(len(counts), dtype=float), counts)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_spike_is_compared_with_the_five_values_on_each_side_of_it(mirrored):
    """Without any one of them, or with one more, or with itself, another median would decide."""
    far = [15] * 300
    for count, is_spike in ((150, True), (149, False)):  # the median of five 10 and five 50 is 30
        counts = [*far, 10, *[10] * 5, count, *[50] * 5, 50, *far]
        place = counts.index(count)
        if mirrored:
            counts, place = counts[::-1], len(counts) - 1 - place
        assert find_spikes(counted(*counts)) == ([place] if is_spike else [])


@pytest.mark.parametrize("mirrored", [False, True])
def test_at_an_end_a_spike_has_neighbours_on_one_side_alone(mirrored):
    far = [30] * 300
    for count, is_spike in ((150, True), (149, False)):  # the median of 10, 10, 30, 40 and 40 is 30
        counts = [count, 10, 40, 10, 40, 30, 5, *far, *[5] * 5]
        place = 0
        if mirrored:
            counts, place = counts[::-1], len(counts) - 1
        assert find_spikes(counted(*counts)) == ([place] if is_spike else [])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RANDOM.normal(size=5000), "none"),
        (RANDOM.random(5000), "none"),
        (RANDOM.normal(100, 3, size=5000), "none"),
        (np.exp(RANDOM.normal(size=5000)), "log"),
        (RANDOM.standard_t(1.5, size=5000), "asinh"),
        (np.concatenate([RANDOM.normal(0, 1e-3, 2500), RANDOM.normal(9, 1e-3, 2500)]), "quantiles"),
        (np.ones(5000), "none"),
        (np.arange(10.0), "none"),
    ],
)
def test_the_scale_of_a_column_is_the_one_that_fits_its_values(values, expected):
    shuffled = np.random.default_rng(1).permutation(values)
    assert choose_transform(shuffled, decimals=None)[0] == expected


NUMBER = Column(name="pressure")


def readings(*more: float, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(60, 5, size=500).round(1)
    return np.concatenate([values, more])


@pytest.mark.parametrize("spikes", [(), (-999.0,)])
def test_a_number_of_several_cells_far_from_all_others_is_a_sentinel(spikes):
    column = Column(name="pressure", spikes=spikes)
    assert find_sentinels(readings(*[-999.0] * 5), column) == [-999.0]


def test_several_sentinels_of_a_column_are_all_named(accept):
    values = readings(*[-999.0] * 30, *[9999.0] * 30)
    summary = accept(npy(np.column_stack([values, values**2])), TableFormat.NPY)
    found = {one["column"]: one["detail"] for one in summary.warnings if one["code"] == "sentinel"}
    assert "-999, 9999 in 11 %" in found["x1"]
    assert "na_values=-999&na_values=9999:" in found["x1"]


def test_single_far_values_popular_ones_and_long_tails_are_no_sentinels():
    assert find_sentinels(readings(-999.0), NUMBER) == []
    assert find_sentinels(readings(*[60.0] * 200), Column(name="x", spikes=(60.0,))) == []
    amounts = np.concatenate([np.zeros(500), np.random.default_rng(0).lognormal(3, 1, 500)])
    assert find_sentinels(amounts, Column(name="x", spikes=(0.0,))) == []
    assert find_sentinels(np.random.default_rng(0).pareto(1, 2000).round(), NUMBER) == []
    assert find_sentinels(np.repeat([1.0, 2.0, 3.0, 99.0], 50), NUMBER) == []
