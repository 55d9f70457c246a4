import math

import pytest
import torch
from torch import Tensor

from flows import (
    FitError,
    Flow,
    FormulaTarget,
    GaussianSpec,
    LinearRegression,
    LogisticRegression,
    Potential,
    RealNvpSpec,
    Window,
    build,
    diagnose,
    quadrature_kl,
)
from flows.variational import posteriors
from flows.variational.diagnostics import importance_diagnostics, pareto_k
from tests.flows.cases import draw

X = draw(60, 2) @ torch.tensor([[2.0, 1.0], [0.0, 0.5]], dtype=torch.float64)
NOISE = draw(60, seed=1)
Y = 1.5 - 0.7 * X[:, 0] + 2 * X[:, 1] + 0.5 * NOISE
CLASSES = (X[:, 0] + NOISE > 0.3).double()
Z = draw(7, 3, seed=2)
DESIGN = torch.cat([torch.ones(60, 1, dtype=torch.float64), X], dim=1)


LINEAR = LinearRegression(X, Y, noise_scale=0.5, prior_scale=3.0)


POSTERIOR = LINEAR.posterior()


def gaussian(value: Tensor, scale: float) -> Tensor:
    constant = math.log(scale) + 0.5 * math.log(2 * math.pi)
    return (-0.5 * (value / scale).square() - constant).sum(dim=-1)


def test_the_linear_posterior_and_evidence_are_those_of_the_normal_equations():
    precision = DESIGN.t() @ DESIGN / 0.5**2 + torch.eye(3) / 3**2
    torch.testing.assert_close(POSTERIOR.covariance, precision.inverse())
    torch.testing.assert_close(POSTERIOR.mean, precision.inverse() @ DESIGN.t() @ Y / 0.5**2)
    mean, deviations = LINEAR.starting_point()
    torch.testing.assert_close(mean, POSTERIOR.mean)
    torch.testing.assert_close(deviations.square(), POSTERIOR.covariance.diagonal())
    covariance = 3.0**2 * DESIGN @ DESIGN.t() + 0.5**2 * torch.eye(60)
    marginal = torch.distributions.MultivariateNormal(torch.zeros_like(Y), covariance)
    assert POSTERIOR.log_evidence == pytest.approx(float(marginal.log_prob(Y)))


@pytest.mark.parametrize("rows", [1, 2, 60])
def test_the_linear_density_is_prior_times_likelihood(rows):
    target = LinearRegression(X[:rows], Y[:rows], noise_scale=0.5, prior_scale=3.0)
    expected = gaussian(Z, 3.0) + gaussian(Y[:rows] - Z @ DESIGN[:rows].t(), 0.5)
    torch.testing.assert_close(target.log_density(Z), expected)
    assert rows == 60 or float(target.posterior().covariance.diagonal().max()) > 3


def test_far_more_rows_than_float32_can_sum_keep_their_digits():
    x = torch.linspace(0, 1, 200_000)[:, None]
    target = LinearRegression(x, 1000 + x[:, 0], noise_scale=0.1, prior_scale=1e4)
    best = torch.tensor([[1000.0, 1.0]], dtype=torch.float64)
    constant = -200_000 * (0.5 * math.log(2 * math.pi) + math.log(0.1))
    expected = constant + float(gaussian(best, 1e4))
    assert float(target.log_density(best)) == pytest.approx(expected, abs=0.01)


def test_the_logistic_density_is_prior_times_likelihood_whatever_the_chunks(monkeypatch):
    target = LogisticRegression(X, CLASSES, prior_scale=3.0)
    bernoulli = torch.distributions.Bernoulli(logits=Z @ DESIGN.t())
    expected = gaussian(Z, 3.0) + bernoulli.log_prob(CLASSES).sum(dim=1)
    linear = LINEAR.log_density(Z)
    assert torch.equal(target.estimate(Z, generator=torch.Generator()), target.log_density(Z))
    for chunk in (posteriors.CHUNK_SIZE, 50, 20):
        monkeypatch.setattr(posteriors, "CHUNK_SIZE", chunk)
        torch.testing.assert_close(target.log_density(Z), expected)
        chunked = LinearRegression(X, Y, noise_scale=0.5, prior_scale=3.0)
        torch.testing.assert_close(chunked.log_density(Z), linear)
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


@pytest.mark.parametrize("prior_scale", [0.1, 10.0, 1e4])
@pytest.mark.parametrize("separable", [False, True])
def test_the_logistic_starting_point_is_the_mode(prior_scale, separable):
    classes = (X[:, 0] > 0.3).double() if separable else CLASSES

    def log_density(z: Tensor) -> Tensor:
        likelihood = torch.distributions.Bernoulli(logits=DESIGN @ z).log_prob(classes).sum()
        density: Tensor = gaussian(z, prior_scale) + likelihood
        return density

    mode, deviations = LogisticRegression(X, classes, prior_scale=prior_scale).starting_point()
    hessian = torch.autograd.functional.hessian(log_density, mode)
    expected = torch.linalg.inv(-hessian).diagonal().sqrt()
    slope = torch.autograd.functional.jacobian(log_density, mode)
    assert float((slope * expected).abs().max()) < 1e-3
    torch.testing.assert_close(deviations, expected, rtol=1e-4, atol=0)


BOTH = (LinearRegression, LogisticRegression)


@pytest.mark.parametrize(
    ("kinds", "x", "y", "choices", "words"),
    [
        (BOTH, X[:5], CLASSES[:4], {}, "as many responses"),
        (BOTH, X[:0], CLASSES[:0], {}, "not empty"),
        (BOTH, X * math.inf, CLASSES, {}, "not finite"),
        (BOTH, X, CLASSES * math.nan, {}, "not finite"),
        (BOTH, X, CLASSES, {"columns": ["a"]}, "1 names for 2 columns"),
        (BOTH, X, CLASSES, {"prior_scale": 0.0}, "prior_scale"),
        (BOTH[:1], X, Y, {"noise_scale": -1.0}, "noise_scale"),
        (BOTH[1:], X, CLASSES + 1, {}, "0 or 1"),
        (BOTH[1:], X, CLASSES, {"batch_rows": 0}, "batch_rows"),
    ],
)
def test_rows_and_choices_that_do_not_fit_are_refused(kinds, x, y, choices, words):
    for kind in kinds:
        with pytest.raises(FitError, match=words):
            kind(x, y, **choices)


def test_coefficients_have_the_names_of_their_columns():
    assert LINEAR.names == ("intercept", "x1", "x2")
    assert LogisticRegression(X, CLASSES, columns=["age", "dose"]).names[1:] == ("age", "dose")


def gaussian_flow(mean: list[float] | Tensor, root: Tensor) -> Flow:
    """The flow whose density is exactly N(mean, root root^T)."""
    dim, scale = len(root), root.diagonal()
    flow = build(GaussianSpec(), dim, seed=0).double()
    weights = flow.state_dict()
    weights["transform.shift"] = torch.as_tensor(mean)
    weights["transform.log_scale"] = scale.log()
    if dim > 1:
        below = torch.tril_indices(dim, dim, offset=-1)
        weights["transform.lower"] = (root / scale[:, None])[below[0], below[1]]
    flow.load_state_dict(weights)
    return flow


def normal(mean: float = 0.0, scale: float = 1.0) -> Flow:
    return gaussian_flow([mean], torch.tensor([[scale]], dtype=torch.float64))


def test_the_elbo_of_the_exact_posterior_is_the_evidence_without_variance():
    flow = gaussian_flow(POSTERIOR.mean, torch.linalg.cholesky(POSTERIOR.covariance))
    found = diagnose(flow, LINEAR, samples=1000, seed=0)
    assert found.elbo == pytest.approx(POSTERIOR.log_evidence, abs=1e-9)
    assert found.log_evidence == pytest.approx(POSTERIOR.log_evidence, abs=1e-9)
    assert found.elbo_standard_error < 1e-9
    assert found.log_evidence_standard_error < 1e-9
    assert found.effective_sample_size == pytest.approx(1000)
    assert (found.samples, found.non_finite, found.verdict) == (1000, 0, "good")
    assert found.pareto_k == 0


def test_a_wide_proposal_finds_the_evidence_within_its_error():
    flow = gaussian_flow(POSTERIOR.mean, 1.5 * torch.linalg.cholesky(POSTERIOR.covariance))
    found = diagnose(flow, LINEAR, samples=4000, seed=0)
    error = found.log_evidence_standard_error
    assert 0 < error < 0.05
    assert abs(found.log_evidence - POSTERIOR.log_evidence) < 4 * error
    # KL(q || p) of two Gaussians whose roots differ by a factor of 1.5.
    kl = 3 * (0.5 * 1.5**2 - 0.5 - math.log(1.5))
    allowed = 4 * found.elbo_standard_error
    assert found.elbo == pytest.approx(POSTERIOR.log_evidence - kl, abs=allowed)
    assert found.verdict == "good"
    assert found.effective_sample_size < 3000


def test_the_evidences_error_is_the_spread_over_seeds():
    target, flow = FormulaTarget("-0.5 * z1^2", 1), normal(0.5, 1.3)
    found = [diagnose(flow, target, samples=400, seed=seed) for seed in range(200)]
    spread = torch.tensor([one.log_evidence for one in found]).std()
    stated = torch.tensor([one.log_evidence_standard_error for one in found]).mean()
    assert float(spread / stated) == pytest.approx(1, abs=0.2)


def test_a_narrow_proposal_is_found_unreliable():
    narrow = gaussian_flow([0, 0], 0.4 * torch.eye(2, dtype=torch.float64))
    found = diagnose(narrow, FormulaTarget("-0.5 * (z1^2 + z2^2)", 2), samples=4000, seed=0)
    assert found.pareto_k is not None
    assert found.pareto_k > 0.7
    assert found.verdict == "unreliable"
    assert "misses mass" in found.explanation


@pytest.mark.parametrize("shape", [0.1, 0.4, 0.6, 0.9, 1.5])
def test_the_pareto_shape_of_pareto_weights_is_found(shape):
    found = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        chances = torch.rand(4000, generator=generator, dtype=torch.float64)
        found.append(pareto_k(-shape * chances.log()) or math.nan)
    # The fit is drawn towards 0.5 as by 10 observations beside the tail's 190.
    assert sum(found) / 20 == pytest.approx((190 * shape + 10 * 0.5) / 200, abs=0.05)


def test_the_pareto_shape_knows_no_scale_or_order_and_bounded_weights_have_no_heavy_tail():
    logs = draw(1000)
    assert pareto_k(logs + 5000) == pytest.approx(pareto_k(logs))
    assert pareto_k(logs.flip(0)) == pareto_k(logs)
    uniform = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (pareto_k(uniform.log()) or math.nan) < 0


def test_a_single_weight_that_outweighs_all_is_unreliable_and_few_samples_are_not_judged():
    found = importance_diagnostics(torch.linspace(0, 1e6, 1000, dtype=torch.float64))
    assert (found.pareto_k, found.verdict) == (None, "unreliable")
    assert found.effective_sample_size == pytest.approx(1)
    for value in (found.elbo, found.log_evidence, found.log_evidence_standard_error):
        assert math.isfinite(value)
    found = importance_diagnostics(torch.zeros(20))  # of whose fifth no tail is fitted
    assert (found.pareto_k, found.verdict) == (None, "unreliable")


def test_samples_of_density_0_leave_the_elbo_of_the_rest():
    target = FormulaTarget("log(z1) - log(z1)", 1)  # 0 on the right, not a number on the left
    found = diagnose(normal(), target, samples=2000, seed=0)
    assert found.non_finite == pytest.approx(1000, abs=100)
    logs = torch.cat([torch.zeros(300), torch.full((700,), -math.inf)])
    assert importance_diagnostics(logs).log_evidence == pytest.approx(math.log(0.3))
    assert importance_diagnostics(logs).elbo == pytest.approx(math.log(0.3))


@pytest.mark.parametrize("logs", [torch.zeros(1), torch.full((9,), -math.inf)])
def test_nothing_to_judge_is_refused(logs):
    with pytest.raises(FitError, match="at least 2 samples"):
        importance_diagnostics(logs)


def test_diagnostics_leave_the_flow_and_the_global_generator_alone():
    flow = build(RealNvpSpec(layers=2, hidden=[8]), 2, seed=0).train()
    before = torch.random.get_rng_state()
    first = diagnose(flow, Potential("U1"), samples=600, seed=1)
    assert flow.training
    assert flow.dtype == torch.float32
    assert torch.equal(torch.random.get_rng_state(), before)
    assert diagnose(flow, Potential("U1"), samples=600, seed=1) == first
    assert diagnose(flow, Potential("U1"), samples=600, seed=2) != first


def test_the_kl_by_quadrature_of_two_gaussians_is_the_formula():
    mean, root = torch.tensor([0.4, -0.2]).double(), torch.tensor([[0.8, 0.0], [0.3, 0.6]]).double()
    target = FormulaTarget("3 - 0.5 * (z1 - z2)^2 - 0.5 * z2^2", 2)
    precision = torch.tensor([[1.0, -1.0], [-1.0, 2.0]]).double()
    p = torch.distributions.MultivariateNormal(torch.zeros(2).double(), precision_matrix=precision)
    q = torch.distributions.MultivariateNormal(mean, scale_tril=root)
    found = quadrature_kl(gaussian_flow(mean, root), target, window=Window.square(9.0))
    expected = float(torch.distributions.kl_divergence(q, p))
    assert found.kl == pytest.approx(expected, abs=1e-6)
    assert found.mass_inside == pytest.approx(1, abs=1e-6)
    assert found.log_evidence == pytest.approx(3 + math.log(2 * math.pi), abs=1e-6)


def test_densities_are_normalised_on_the_window():
    window, inside = Window((-1.0,), (2.0,)), (math.erf(0.5**0.5) + math.erf(2**0.5)) / 2
    found = quadrature_kl(normal(), FormulaTarget("-0.5 * z1^2", 1), window=window)
    assert found.kl == pytest.approx(0, abs=1e-9)
    assert found.mass_inside == pytest.approx(inside, abs=1e-6)
    assert found.log_evidence == pytest.approx(math.log(inside * math.sqrt(2 * math.pi)), abs=1e-6)
    nowhere = FormulaTarget("log(max(z1, 0))", 1)
    assert quadrature_kl(normal(), nowhere, window=window).kl == math.inf


def test_the_window_of_the_target_is_the_default():
    flow = build(GaussianSpec(), 2, seed=0)
    found = quadrature_kl(flow, Potential("U2"), points=100)
    assert found.window == Window.square(4.0)
    # The wave's section along z2 is a Gaussian of scale 0.4, everywhere well inside.
    expected = math.log(8 * 0.4 * math.sqrt(2 * math.pi))
    assert found.log_evidence == pytest.approx(expected, abs=1e-4)
    assert found.kl > 1


@pytest.mark.parametrize(
    ("dim", "window", "formula", "points"),
    [
        (1, None, "0 * z1", None),
        (3, Window((0.0,) * 3, (1.0,) * 3), "0 * z1", None),
        (1, Window.square(1.0), "0 * z1", None),
        (1, Window((0.0,), (1.0,)), "0 * z1", 0),
        (1, Window((0.0,), (1.0,)), "log(0)", None),
        (1, Window((0.0,), (1.0,)), "log(z1 - 0.5)", None),
    ],
)
def test_quadrature_without_a_density_on_a_window_is_refused(dim, window, formula, points):
    flow = build(GaussianSpec(), dim, seed=0)
    with pytest.raises(FitError, match="window"):
        quadrature_kl(flow, FormulaTarget(formula, dim), window=window, points=points)
