import numpy as np
import pytest

from flows import FlowError, quantiles_of, rank_among

HELD_OUT = np.random.default_rng(0).normal(size=5_000)


def test_ranks_are_the_shares_of_less_likely_rows():
    ranks = rank_among(HELD_OUT, quantiles_of(HELD_OUT))
    exact = HELD_OUT.argsort().argsort() / (len(HELD_OUT) - 1)
    assert np.abs(ranks - exact).max() < 0.001


def test_a_few_rows_are_ranked_exactly():
    quantiles = quantiles_of(np.array([-3.0, -1.0, -2.0]))
    wanted = np.array([-3.0, -2.5, -2.0, -1.5, -1.0])
    assert rank_among(wanted, quantiles) == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_what_is_beyond_all_rows_has_rank_0_or_1():
    ranks = rank_among(np.array([-1e9, -np.inf, 1e9, np.inf, np.nan]), quantiles_of(HELD_OUT))
    assert ranks[:4].tolist() == [0, 0, 1, 1]
    assert np.isnan(ranks[4])


def test_ties_share_the_middle_of_their_ranks_and_rounding_moves_them_little():
    quantiles = quantiles_of(np.repeat([-2.0, -1.0], 500))
    least, most = rank_among(np.array([-2.0, -1.0]), quantiles)
    assert (least, most) == pytest.approx((0.25, 0.75), abs=0.002)
    assert rank_among(np.array([-2.0 + 1e-6]), quantiles)[0] == pytest.approx(least, abs=1e-4)
    assert rank_among(np.array([-2.1, -0.9]), quantiles).tolist() == [0, 1]


def test_rows_without_a_density_count_as_the_least_likely():
    quantiles = quantiles_of(np.array([-np.inf, np.nan, -2.0, -1.0]))
    assert np.isfinite(quantiles).all()
    assert rank_among(np.array([-50.0]), quantiles)[0] == pytest.approx(2 / 3, abs=0.01)


def test_no_rows_have_no_quantiles():
    with pytest.raises(FlowError):
        quantiles_of(np.array([]))
