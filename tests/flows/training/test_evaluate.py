"""Evaluation of a trained flow, and the calibration of its ranks."""

import math

import numpy as np
import pytest
import torch

from flows import FitError, FlowError, evaluate, quantiles_of, rank_among
from tests.flows.cases import example_rows, find, trained_flow


def test_it_gives_the_mean_and_two_standard_errors():
    flow = trained_flow(find("maf"), 3)
    x = example_rows(101, 3, seed=1)
    with torch.no_grad():
        scores = flow.log_prob(x)
    result = evaluate(flow, x, chunk_rows=10)
    assert result.rows == 101
    assert result.mean == pytest.approx(float(scores.mean()))
    assert result.two_standard_errors == pytest.approx(2 * float(scores.std()) / math.sqrt(101))


def test_sums_are_taken_in_float64():
    flow = trained_flow(find("maf"), 3).float()
    x = example_rows(20_000, 3, seed=1).float()
    with torch.no_grad():
        exact = flow.log_prob(x).double().mean()
    assert evaluate(flow, x).mean == pytest.approx(float(exact), rel=1e-6)


def test_the_mode_of_the_flow_is_kept_and_not_used():
    flow = trained_flow(find("maf"), 3)
    x = example_rows(40, 3, seed=1)
    expected = evaluate(flow, x)
    assert evaluate(flow.train(), x) == expected
    assert flow.training
    evaluate(flow.eval(), x)
    assert not flow.training


def test_one_row_has_no_standard_error():
    result = evaluate(trained_flow(find("made"), 3), example_rows(1, 3))
    assert math.isfinite(result.mean)
    assert math.isnan(result.two_standard_errors)


def test_no_rows_are_refused():
    with pytest.raises(FitError, match="no rows"):
        evaluate(trained_flow(find("made"), 3), torch.empty(0, 3))


def test_each_chunk_is_told():
    told = []
    evaluate(
        trained_flow(find("made"), 3),
        example_rows(25, 3),
        chunk_rows=10,
        on_chunk=lambda: told.append(1),
    )
    assert len(told) == 3


HELD_OUT = np.random.default_rng(0).normal(size=5_000)


@pytest.mark.parametrize("rows", [5, 50, 400, 1000])
def test_a_rank_counts_the_row_and_the_rows_that_are_at_most_as_likely(rows):
    held_out, fresh = HELD_OUT[:rows], HELD_OUT[-1000:]
    ranks = rank_among(fresh, quantiles_of(held_out), rows=rows)
    exact = (1 + (held_out <= fresh[:, None]).sum(axis=1)) / (rows + 1)
    assert np.mean(np.abs(ranks - exact) > 1e-12) < 0.005  # some differ by less than rounding does


def test_of_many_rows_the_ranks_are_as_fine_as_the_rows():
    fresh = np.random.default_rng(1).normal(size=2_000)
    ranks = rank_among(fresh, quantiles_of(HELD_OUT), rows=len(HELD_OUT))
    exact = (1 + (fresh[:, None] >= HELD_OUT).sum(axis=1)) / (len(HELD_OUT) + 1)
    assert np.abs(ranks - exact).max() < 0.001
    assert len(np.unique(ranks)) > 1_900


@pytest.mark.parametrize("interpolated", [False, True])
@pytest.mark.parametrize("rows", [9, 50, 333])
def test_fresh_rows_are_below_a_rank_as_seldom_as_it_says(rows, interpolated):
    """Models of before kept quantiles that were interpolated between rows."""
    random = np.random.default_rng(rows)
    trials, each = 2_000, 20
    below = {0.01: 0, 0.05: 0}
    for _ in range(trials):
        held_out = random.standard_t(3, size=rows)
        quantiles = quantiles_of(held_out)
        if interpolated:
            quantiles = np.quantile(held_out, np.linspace(0, 1, 1001))
        ranks = rank_among(random.standard_t(3, size=each), quantiles, rows=rows)
        for rank in below:
            below[rank] += int((ranks <= rank).sum())
    for rank, count in below.items():
        # Fresh rows of one trial are judged by the same rows, so the share of each trial is one draw.
        deviation = np.sqrt(rank * (1 - rank) * (1 / each + 1 / rows) / trials)
        assert count / (trials * each) < rank + 4 * deviation


def test_what_is_beyond_all_rows_has_the_least_and_the_greatest_rank():
    beyond = np.array([-1e9, -1e300, -np.inf, 1e9, np.inf, np.nan])
    ranks = rank_among(beyond, quantiles_of(HELD_OUT), rows=5_000)
    assert ranks[:5] == pytest.approx([1 / 5001, 1 / 5001, 0, 1, 1])
    assert np.isnan(ranks[5])


def test_rows_that_are_as_likely_all_count_and_rounding_changes_nothing():
    quantiles = quantiles_of(np.repeat([-2.0, -1.0], 500))
    for moved in (0.0, 1e-6, -1e-6):
        ranks = rank_among(np.array([-2.0, -1.0]) + moved, quantiles, rows=1000)
        assert ranks == pytest.approx([501 / 1001, 1])
    ranks = rank_among(np.array([-2.1, -1.5, -0.9]), quantiles, rows=1000)
    assert ranks == pytest.approx([1 / 1001, 501 / 1001, 1])


def test_rows_without_a_density_count_as_the_least_likely():
    quantiles = quantiles_of(np.array([-np.inf, np.nan, -2.0, -1.0]))
    assert np.isfinite(quantiles).all()
    ranks = rank_among(np.array([-50.0, -np.inf]), quantiles, rows=4)
    assert ranks == pytest.approx([3 / 5, 3 / 5])


def test_no_rows_have_no_quantiles():
    with pytest.raises(FlowError):
        quantiles_of(np.array([]))
