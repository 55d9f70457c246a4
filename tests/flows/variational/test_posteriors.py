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
from flows.families.gaussian import Gaussian
from flows.variational import posteriors
from flows.variational.diagnostics import importance_diagnostics, pareto_k

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


def gaussian_flow(mean: Tensor, root: Tensor) -> Flow:
    """The flow whose density is exactly N(mean, root root^T)."""
    dim = len(mean)
    flow = build(GaussianSpec(), dim, seed=0).double()
    layer = flow.transform
    assert isinstance(layer, Gaussian)
    scale = root.diagonal()
    with torch.no_grad():
        layer.shift.copy_(mean)
        layer.log_scale.copy_(scale.log())
        if layer.lower is not None:
            rows, columns = torch.tril_indices(dim, dim, offset=-1)
            layer.lower.copy_((root / scale[:, None])[rows, columns])
    return flow


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def regression() -> LinearRegression:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    y = x[:, 0] - 2 + 0.5 * torch.randn(50, generator=generator, dtype=torch.float64)
    return LinearRegression(x, y, noise_scale=0.5)


def test_the_elbo_of_the_exact_posterior_is_the_evidence_without_variance():
    target = regression()
    posterior = target.posterior()
    flow = gaussian_flow(posterior.mean, torch.linalg.cholesky(posterior.covariance))
    found = diagnose(flow, target, samples=1000, seed=0)
    assert found.elbo == pytest.approx(posterior.log_evidence, abs=1e-9)
    assert found.log_evidence == pytest.approx(posterior.log_evidence, abs=1e-9)
    assert found.elbo_standard_error < 1e-9
    assert found.log_evidence_standard_error < 1e-9
    assert found.effective_sample_size == pytest.approx(1000)
    assert found.pareto_k == 0
    assert (found.samples, found.non_finite, found.verdict) == (1000, 0, "good")


def test_a_wide_proposal_finds_the_evidence_within_its_error():
    target = regression()
    posterior = target.posterior()
    root = torch.linalg.cholesky(posterior.covariance)
    found = diagnose(gaussian_flow(posterior.mean, 1.5 * root), target, samples=4000, seed=0)
    assert found.verdict == "good"
    error = found.log_evidence_standard_error
    assert 0 < error < 0.05
    assert abs(found.log_evidence - posterior.log_evidence) < 4 * error
    # KL(q || p) of two Gaussians whose roots differ by a factor of 1.5.
    kl = 3 * (0.5 * 1.5**2 - 0.5 - math.log(1.5))
    assert found.elbo == pytest.approx(
        posterior.log_evidence - kl, abs=4 * found.elbo_standard_error
    )
    assert found.effective_sample_size < 3000


def test_the_evidences_error_is_the_spread_over_seeds():
    target = FormulaTarget("-0.5 * z1^2", 1)
    flow = gaussian_flow(double(0.5), double(1.3)[:, None])
    found = [diagnose(flow, target, samples=400, seed=seed) for seed in range(200)]
    spread = torch.tensor([one.log_evidence for one in found]).std()
    stated = torch.tensor([one.log_evidence_standard_error for one in found]).mean()
    assert float(spread / stated) == pytest.approx(1, abs=0.2)


def test_a_narrow_proposal_is_found_unreliable():
    target = FormulaTarget("-0.5 * (z1^2 + z2^2)", 2)
    narrow = gaussian_flow(double(0, 0), 0.4 * torch.eye(2, dtype=torch.float64))
    found = diagnose(narrow, target, samples=4000, seed=0)
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
        shape_found = pareto_k(-shape * chances.log())
        assert shape_found is not None
        found.append(shape_found)
    mean = sum(found) / len(found)
    # The fit is drawn towards 0.5 as by 10 observations beside the tail's 190.
    assert mean == pytest.approx((190 * shape + 10 * 0.5) / 200, abs=0.05)


def test_bounded_weights_have_no_heavy_tail():
    generator = torch.Generator().manual_seed(0)
    found = pareto_k(torch.rand(4000, generator=generator, dtype=torch.float64).log())
    assert found is not None
    assert found < 0


def test_the_pareto_shape_does_not_depend_on_scale_or_order():
    logs = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert pareto_k(logs + 5000) == pytest.approx(pareto_k(logs))
    assert pareto_k(logs.flip(0)) == pareto_k(logs)


def test_a_single_weight_that_outweighs_all_is_unreliable():
    logs = torch.linspace(0, 1e6, 1000, dtype=torch.float64)
    found = importance_diagnostics(logs)
    assert found.pareto_k is None
    assert found.verdict == "unreliable"
    assert found.effective_sample_size == pytest.approx(1)
    assert all(
        math.isfinite(value)
        for value in (found.elbo, found.log_evidence, found.log_evidence_standard_error)
    )


def test_few_samples_are_not_judged():
    found = importance_diagnostics(torch.zeros(10))
    assert found.pareto_k is None
    assert found.verdict == "unreliable"


def test_samples_of_density_0_leave_the_elbo_of_the_rest():
    target = FormulaTarget("log(z1) - log(z1)", 1)  # 0 on the right, not a number on the left
    flow = gaussian_flow(double(0), double(1)[:, None])
    found = diagnose(flow, target, samples=2000, seed=0)
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
    q_root = torch.tensor([[0.8, 0.0], [0.3, 0.6]], dtype=torch.float64)
    flow = gaussian_flow(double(0.4, -0.2), q_root)
    target = FormulaTarget("3 - 0.5 * (z1 - z2)^2 - 0.5 * z2^2", 2)
    p = torch.distributions.MultivariateNormal(
        double(0, 0), precision_matrix=torch.tensor([[1.0, -1.0], [-1.0, 2.0]]).double()
    )
    q = torch.distributions.MultivariateNormal(double(0.4, -0.2), scale_tril=q_root)
    found = quadrature_kl(flow, target, window=Window.square(9.0))
    expected = float(torch.distributions.kl_divergence(q, p))
    assert found.kl == pytest.approx(expected, abs=1e-6)
    assert found.mass_inside == pytest.approx(1, abs=1e-6)
    assert found.log_evidence == pytest.approx(3 + math.log(2 * math.pi), abs=1e-6)


def test_densities_are_normalised_on_the_window():
    flow = gaussian_flow(double(0), double(1)[:, None])
    target = FormulaTarget("-0.5 * z1^2", 1)
    found = quadrature_kl(flow, target, window=Window((-1.0,), (1.0,)))
    assert found.kl == pytest.approx(0, abs=1e-9)
    inside = math.erf(1 / math.sqrt(2))
    assert found.mass_inside == pytest.approx(inside, abs=1e-6)
    expected = math.log(inside * math.sqrt(2 * math.pi))
    assert found.log_evidence == pytest.approx(expected, abs=1e-6)


def test_the_window_of_the_target_is_the_default():
    flow = build(GaussianSpec(), 2, seed=0)
    found = quadrature_kl(flow, Potential("U2"), points=100)
    assert found.window == Window.square(4.0)
    # The wave's section along z2 is a Gaussian of scale 0.4, everywhere well inside.
    expected = math.log(8 * 0.4 * math.sqrt(2 * math.pi))
    assert found.log_evidence == pytest.approx(expected, abs=1e-4)
    assert found.kl > 1


def test_mass_where_the_target_has_none_is_infinitely_wrong():
    flow = gaussian_flow(double(0), double(1)[:, None])
    target = FormulaTarget("log(max(z1, 0))", 1)
    assert quadrature_kl(flow, target, window=Window((-1.0,), (1.0,))).kl == math.inf


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
