"""Scales and spikes of columns of numbers."""

import numpy as np
import pytest

from tabular.ingest.numbers import MAX_SPIKES, choose_transform, find_spikes

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
