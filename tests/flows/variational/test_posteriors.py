import math

import pytest
import torch
from torch import Tensor

from flows import FitError, LinearRegression, LogisticRegression
from flows.variational import posteriors

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(60, 2, generator=GENERATOR, dtype=torch.float64) @ torch.tensor(
    [[2.0, 1.0], [0.0, 0.5]], dtype=torch.float64
)
NOISE = torch.randn(60, generator=GENERATOR, dtype=torch.float64)
Y = 1.5 - 0.7 * X[:, 0] + 2 * X[:, 1] + 0.5 * NOISE
CLASSES = (X[:, 0] + NOISE > 0.3).double()
Z = torch.randn(7, 3, generator=GENERATOR, dtype=torch.float64)
DESIGN = torch.cat([torch.ones(60, 1, dtype=torch.float64), X], dim=1)


def gaussian(value: Tensor, scale: float) -> Tensor:
    constant = math.log(scale) + 0.5 * math.log(2 * math.pi)
    return (-0.5 * (value / scale).square() - constant).sum(dim=-1)


def linear(noise_scale: float = 0.5) -> LinearRegression:
    return LinearRegression(X, Y, noise_scale=noise_scale, prior_scale=3.0)


def test_the_linear_density_is_prior_times_likelihood():
    expected = gaussian(Z, 3.0) + gaussian(Y - Z @ DESIGN.t(), 0.5)
    torch.testing.assert_close(linear().log_density(Z), expected)


def test_the_linear_posterior_is_that_of_the_normal_equations():
    precision = DESIGN.t() @ DESIGN / 0.5**2 + torch.eye(3) / 3**2
    found = linear().posterior()
    torch.testing.assert_close(found.covariance, precision.inverse())
    torch.testing.assert_close(found.mean, precision.inverse() @ DESIGN.t() @ Y / 0.5**2)


def test_the_linear_evidence_is_the_marginal_density_of_the_responses():
    covariance = 3.0**2 * DESIGN @ DESIGN.t() + 0.5**2 * torch.eye(60)
    marginal = torch.distributions.MultivariateNormal(
        torch.zeros(60, dtype=torch.float64), covariance
    )
    assert linear().posterior().log_evidence == pytest.approx(float(marginal.log_prob(Y)))


def test_density_over_posterior_is_the_evidence_everywhere():
    found = linear().posterior()
    posterior = torch.distributions.MultivariateNormal(found.mean, found.covariance)
    ratio = linear().log_density(Z) - posterior.log_prob(Z)
    torch.testing.assert_close(ratio, torch.full_like(ratio, found.log_evidence))


def test_rows_in_chunks_reduce_to_the_same_density(monkeypatch):
    whole = linear().log_density(Z)
    monkeypatch.setattr(posteriors, "CHUNK_SIZE", 20)
    torch.testing.assert_close(linear().log_density(Z), whole)


def test_far_more_rows_than_float32_can_sum_keep_their_digits():
    x = torch.linspace(0, 1, 200_000)[:, None]
    y = 1000 + x[:, 0]
    target = LinearRegression(x, y, noise_scale=0.1, prior_scale=1e4)
    best = torch.tensor([[1000.0, 1.0]], dtype=torch.float64)
    found = float(target.log_density(best))
    constant = -200_000 * (0.5 * math.log(2 * math.pi) + math.log(0.1))
    prior = float(gaussian(best, 1e4))
    assert found - constant - prior == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("rows", [1, 2])
def test_fewer_rows_than_coefficients_leave_the_prior(rows):
    target = LinearRegression(X[:rows], Y[:rows], noise_scale=0.5, prior_scale=3.0)
    expected = gaussian(Z, 3.0) + gaussian(Y[:rows] - Z @ DESIGN[:rows].t(), 0.5)
    torch.testing.assert_close(target.log_density(Z), expected)
    assert float(target.posterior().covariance.diagonal().max()) > 3


def test_the_logistic_density_is_prior_times_likelihood():
    target = LogisticRegression(X, CLASSES, prior_scale=3.0)
    bernoulli = torch.distributions.Bernoulli(logits=Z @ DESIGN.t())
    expected = gaussian(Z, 3.0) + bernoulli.log_prob(CLASSES).sum(dim=1)
    torch.testing.assert_close(target.log_density(Z), expected)


def test_logistic_gradients_equal_finite_differences_whatever_the_chunks(monkeypatch):
    target = LogisticRegression(X, CLASSES)
    whole = target.log_density(Z)
    monkeypatch.setattr(posteriors, "CHUNK_SIZE", 50)
    torch.testing.assert_close(target.log_density(Z), whole)
    assert torch.autograd.gradcheck(target.log_density, Z.clone().requires_grad_())


def test_logistic_estimates_are_unbiased():
    target = LogisticRegression(X, CLASSES, batch_rows=10)
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([target.estimate(Z, generator=generator) for _ in range(1500)])
    error = draws.std(dim=0) / len(draws) ** 0.5
    assert bool((error > 0).all())
    assert bool(((draws.mean(dim=0) - target.log_density(Z)).abs() < 4 * error).all())
    again = target.estimate(Z, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again, draws[0])


def test_without_batch_rows_the_estimate_is_exact():
    target = LogisticRegression(X, CLASSES)
    estimate = target.estimate(Z, generator=torch.Generator())
    assert torch.equal(estimate, target.log_density(Z))


@pytest.mark.parametrize("prior_scale", [0.1, 10.0, 1e4])
@pytest.mark.parametrize("separable", [False, True])
def test_the_logistic_starting_point_is_the_mode(prior_scale, separable):
    classes = (X[:, 0] > 0.3).double() if separable else CLASSES
    target = LogisticRegression(X, classes, prior_scale=prior_scale)
    mode, deviations = target.starting_point()
    z = mode.clone()[None].requires_grad_()
    target.log_density(z).sum().backward()
    assert z.grad is not None
    hessian = torch.autograd.functional.hessian(
        lambda v: (
            gaussian(v, prior_scale)
            + torch.distributions.Bernoulli(logits=DESIGN @ v).log_prob(classes).sum()
        ),
        mode,
    )
    expected = torch.linalg.inv(-hessian).diagonal().sqrt()
    assert float((z.grad[0] * expected).abs().max()) < 1e-3
    torch.testing.assert_close(deviations, expected, rtol=1e-4, atol=0)


def test_the_linear_starting_point_is_the_posterior():
    mean, deviations = linear().starting_point()
    torch.testing.assert_close(mean, linear().posterior().mean)
    torch.testing.assert_close(deviations.square(), linear().posterior().covariance.diagonal())


def test_coefficients_have_the_names_of_their_columns():
    assert linear().names == ("intercept", "x1", "x2")
    assert LogisticRegression(X, CLASSES, columns=["age", "dose"]).names[1:] == ("age", "dose")


@pytest.mark.parametrize("cls", [LinearRegression, LogisticRegression])
@pytest.mark.parametrize(
    ("x", "y", "choices", "words"),
    [
        (X[:5], CLASSES[:4], {}, "as many responses"),
        (X[:0], CLASSES[:0], {}, "not empty"),
        (X * math.inf, CLASSES, {}, "not finite"),
        (X, CLASSES * math.nan, {}, "not finite"),
        (X, CLASSES, {"columns": ["a"]}, "1 names for 2 columns"),
        (X, CLASSES, {"prior_scale": 0.0}, "prior_scale"),
    ],
)
def test_rows_that_do_not_fit_are_refused(cls, x, y, choices, words):
    with pytest.raises(FitError, match=words):
        cls(x, y, **choices)


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(FitError, match="noise_scale"):
        linear(noise_scale=-1.0)
    with pytest.raises(FitError, match="0 or 1"):
        LogisticRegression(X, CLASSES + 1)
    with pytest.raises(FitError, match="batch_rows"):
        LogisticRegression(X, CLASSES, batch_rows=0)


def test_a_step_to_the_mode_that_rises_at_once_looks_at_the_rows_twice(monkeypatch):
    compared = []
    log_density = LogisticRegression.log_density

    def counted(target, z):
        compared.append(len(z))
        return log_density(target, z)

    monkeypatch.setattr(LogisticRegression, "log_density", counted)
    LogisticRegression(X, CLASSES).starting_point()
    assert set(compared) == {1}
    assert len(compared) % 2 == 0
