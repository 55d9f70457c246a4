"""Summary of a training: sentences that are true of the model."""

import math

import numpy as np
import pytest
import torch

from flows import FitOptions, GaussianSpec, MafSpec, build, compile_flow, ensemble_of, fit
from flows.training.comparison import column_distances, gains_of
from workers.trainer.summary import is_rising, told_gains


def bananas(rows: int, *, seed: int) -> torch.Tensor:
    noise = torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed)).double()
    noise[:, 1] = noise[:, 0].square() + 0.3 * noise[:, 1]
    return noise * 5 + 40


def test_a_gaussian_gains_nothing_over_a_gaussian_and_a_flow_gains_where_data_bend():
    train, held_out = bananas(2000, seed=0), bananas(1000, seed=1)
    moments = train.mean(dim=0), train.std(dim=0)
    gains, flows = [], []
    for spec in (GaussianSpec(), MafSpec(layers=2, hidden=[16], batch_norm=None)):
        flow = build(spec, 2, standardise=moments, seed=0)
        options = FitOptions(learning_rate=0.03, batch_size=250, max_epochs=10)
        for _ in fit(flow, train, held_out, options=options):
            pass
        gains.append(gains_of(flow, train, held_out, seed=0))
        flows.append(flow)
    plain, bent = gains
    assert plain is not None
    assert bent is not None
    assert plain.gaussian == pytest.approx(0, abs=0.05)
    assert plain.mixture is not None
    assert plain.mixture < -0.3
    assert bent.gaussian > 0.5
    both = gains_of(ensemble_of(flows, [0.5, 0.5]), train, held_out, seed=0)
    assert both is not None
    assert bent.gaussian - math.log(2) < both.gaussian < bent.gaussian + 0.5


def test_with_a_context_both_are_densities_given_it():
    noise = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0)).double()
    noise[:, 0] += 2 * noise[:, 1]
    rows, other = noise[:2000] * 3 + 7, noise[2000:] * 3 + 7
    moments = rows.mean(dim=0), rows.std(dim=0)
    flow = build(
        GaussianSpec(),
        1,
        standardise=(moments[0][:1], moments[1][:1]),
        context_dim=1,
        standardise_context=(moments[0][1:], moments[1][1:]),
        seed=0,
    )
    for _ in fit(flow, rows, other, options=FitOptions(learning_rate=0.02, max_epochs=10)):
        pass
    gains = gains_of(flow, rows, other, seed=0)
    assert gains is not None
    exact = -0.5 * math.log(2 * math.pi * math.e * 9)  # of x given the context
    expected = float(flow.log_prob_of_table(other).detach().mean()) - exact
    assert gains.gaussian == pytest.approx(expected, abs=0.05)
    assert gains.mixture == pytest.approx(expected, abs=0.1)


def test_the_columns_that_fit_badly_are_named_and_no_others():
    flow = build(GaussianSpec(), 3, seed=0)
    rows = np.random.default_rng(0).normal(size=(1000, 3))
    rows[:, 1] = np.exp(rows[:, 1])
    assert list(column_distances(compile_flow(flow), rows, seed=0)) == [1]
    rows[:, 2] += 9
    rows[5:, 0] = np.nan
    assert list(column_distances(compile_flow(flow), rows, seed=0)) == [2, 1]


@pytest.mark.parametrize(
    ("best", "reason", "rises"),
    [(40, "max_epochs", True), (20, "max_epochs", False), (40, "patience", False)],
)
def test_a_training_that_a_limit_ended_at_its_best_epoch_still_rose(best, reason, rises):
    metrics = {"epoch": 40, "best_epoch": best, "stop_reason": reason}
    assert is_rising(metrics) == rises


@pytest.mark.parametrize(
    ("gaussian", "mixture", "told"),
    [
        (0.5, None, "0.50 nats per row better than one Gaussian."),
        (-0.001, 0.002, "as good as one Gaussian and as good as a mixture of Gaussians."),
    ],
)
def test_a_gain_of_nothing_is_told_as_none(gaussian, mixture, told):
    assert told_gains(gaussian, mixture) == [f"On held-out rows the model is {told}"]
