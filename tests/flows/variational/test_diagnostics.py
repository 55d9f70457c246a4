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
    Potential,
    RealNvpSpec,
    Window,
    build,
    diagnose,
    quadrature_kl,
)
from flows.families.gaussian import Gaussian
from flows.variational.diagnostics import importance_diagnostics, pareto_k


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
