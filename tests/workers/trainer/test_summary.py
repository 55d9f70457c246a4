"""Summary of a training: sentences that are true of the model."""

import math

import numpy as np
import pytest
import torch

from flows import (
    FitOptions,
    GaussianMixtureSpec,
    GaussianSpec,
    MafSpec,
    build,
    compile_flow,
    ensemble_of,
    fit,
)
from flows.training.comparison import Gain, Gains, column_distances, gains_of
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
    assert plain.gaussian.mean == pytest.approx(0, abs=0.05)
    assert plain.mixture is not None
    assert plain.mixture.mean < -0.3
    assert bent.gaussian.mean > 0.5
    both = gains_of(ensemble_of(flows, [0.5, 0.5]), train, held_out, seed=0)
    assert both is not None
    assert bent.gaussian.mean - math.log(2) < both.gaussian.mean < bent.gaussian.mean + 0.5


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
    assert gains.gaussian.mean == pytest.approx(expected, abs=0.05)
    assert gains.mixture is not None
    assert gains.mixture.mean == pytest.approx(expected, abs=0.1)


def test_the_columns_that_fit_badly_are_named_and_no_others():
    flow = build(GaussianSpec(), 3, seed=0)
    rows = np.random.default_rng(0).normal(size=(1000, 3))
    rows[:, 1] = np.exp(rows[:, 1])
    assert list(column_distances(compile_flow(flow), rows, seed=0)) == [1]
    rows[:, 2] += 9
    rows[5:, 0] = np.nan
    assert list(column_distances(compile_flow(flow), rows, seed=0)) == [2, 1]


@pytest.mark.parametrize(
    ("gain", "error", "rises"),
    [(0.5, 0.2, True), (0.04, 0.28, False), (0.5, None, False), (None, 0.01, False)],
)
def test_more_training_is_advised_where_it_is_expected_to_gain_more_than_chance(gain, error, rises):
    metrics = {"epoch": 40, "expected_gain": gain, "validation_standard_error": error}
    assert is_rising(metrics) == rises


def expected_gain(rows, max_epochs, **options):
    flow = build(MafSpec(layers=2, hidden=[16], batch_norm=None), 2, seed=0)
    wanted = FitOptions(max_epochs=max_epochs, batch_size=100, **options)
    *_, last = fit(flow, rows[:1000], rows[1000:], options=wanted)
    return last.expected_gain


def test_a_training_that_was_cut_short_expects_to_gain_and_one_that_has_learnt_all_does_not():
    rows = (bananas(2000, seed=0) - 40) / 5
    slow = expected_gain(rows, 6, learning_rate=0.001)
    assert slow > 0.05
    done = expected_gain(rows, 60, learning_rate=0.01, patience=None)
    assert done is None or done < 0.02
    assert expected_gain(rows, 60, learning_rate=0.01, patience=1) is None


@pytest.mark.parametrize(
    ("gaussian", "mixture", "part", "told"),
    [
        (
            Gain(0.5, 0.1),
            None,
            "test",
            "On held-out rows the model is 0.50 nats per row better than one Gaussian.",
        ),
        (
            Gain(0.04, 0.28),
            Gain(-0.3, 0.2),
            "validation",
            (
                "On the validation rows, which chose the epoch, the model is as good as one Gaussian and"
                " as good as a mixture of Gaussians."
            ),
        ),
        (
            Gain(0.5, 0.1),
            Gain(-0.5, 0.1),
            "test",
            (
                "On held-out rows the model is 0.50 nats per row better than one Gaussian and 0.50 nats per"
                " row worse than a mixture of Gaussians. Train longer, or train a mixture of Gaussians"
                " instead."
            ),
        ),
    ],
)
def test_a_gain_within_its_error_is_told_as_none(gaussian, mixture, part, told):
    assert told_gains(Gains(gaussian, mixture), part) == [told]


def clusters(rows, *, seed):
    random = np.random.default_rng(seed)
    centres = np.array([[0.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]])
    return torch.from_numpy(centres[random.integers(4, size=rows)] + random.normal(size=(rows, 3)))


@pytest.mark.parametrize("count", [1, 4])
def test_the_mixture_is_the_one_that_a_model_of_mixtures_would_be(count):
    """A mixture of always 8 Gaussians overfits small tables: a flow looks better than it is."""
    rows = (
        clusters(80, seed=1)
        if count == 4
        else torch.from_numpy(np.random.default_rng(0).normal(size=(80, 5)))
    )
    other = (
        clusters(500, seed=2)
        if count == 4
        else torch.from_numpy(np.random.default_rng(1).normal(size=(500, 5)))
    )
    moments = rows.mean(dim=0), rows.std(dim=0)
    flow = build(GaussianMixtureSpec(), rows.shape[1], standardise=moments, seed=0)
    for _ in fit(flow, rows, other, options=FitOptions(max_epochs=1000, seed=3)):
        pass
    assert int((flow.transform.get_parameter("logits") > -5e3).sum()) == count
    gains = gains_of(flow, rows, other, seed=0)
    assert gains is not None
    assert gains.mixture is not None
    assert gains.mixture.mean == pytest.approx(0, abs=0.05)
