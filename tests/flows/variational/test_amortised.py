"""A linear model with Gaussian noise: the posterior of every context is known in closed form."""

import math

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from flows import (
    ConditionalTarget,
    EncoderSpec,
    FitError,
    Flow,
    FlowError,
    FlowSpec,
    FormulaTarget,
    GaussianSpec,
    RealNvpSpec,
    VariationalOptions,
    build,
    diagnose,
    fit_variational,
)

LOADINGS = torch.tensor([[1.0, 0.5], [0.0, 1.0], [-1.0, 2.0]], dtype=torch.float64)
NOISE = 0.7
MARGINAL = LOADINGS @ LOADINGS.t() + NOISE**2 * torch.eye(3, dtype=torch.float64)
GAIN = LOADINGS.t() @ MARGINAL.inverse()
COVARIANCE = torch.eye(2, dtype=torch.float64) - GAIN @ LOADINGS


class LinearGaussian(ConditionalTarget):
    """z ~ N(0, I) in 2 dimensions, context = LOADINGS z + noise: their joint density."""

    dim, context_dim, names = 2, 3, ("z1", "z2")

    def log_density(
        self, z: Float[Tensor, "batch dim"], context: Float[Tensor, "batch context_dim"]
    ) -> Float[Tensor, " batch"]:
        noise = context - z @ LOADINGS.t()
        constant = 2.5 * math.log(2 * math.pi) + 3 * math.log(NOISE)
        squares = z.square().sum(dim=1) + (noise / NOISE).square().sum(dim=1)
        return -0.5 * squares - constant

    def sample_context(
        self, n: int, *, generator: torch.Generator
    ) -> Float[Tensor, "batch context_dim"]:
        z = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        return z @ LOADINGS.t() + NOISE * noise


TARGET = LinearGaussian()


def trained(spec: FlowSpec, *, iterations: int, learning_rate: float) -> Flow:
    flow = build(spec, 2, context_dim=3, seed=0)
    options = VariationalOptions(
        learning_rate=learning_rate, schedule="cosine", batch_size=128, iterations=iterations
    )
    for _ in fit_variational(flow, TARGET, options=options):
        pass
    return flow


def evidence(context: Tensor) -> float:
    marginal = torch.distributions.MultivariateNormal(torch.zeros(3).double(), MARGINAL)
    return float(marginal.log_prob(context))


def moments(flow: Flow, context: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = flow.sample(20_000, generator=generator, context=context[None]).double()
    return x.mean(dim=0), x.t().cov()


CONTEXTS = [torch.tensor(values).double() for values in ([0.0, 0.0, 0.0], [2.0, -1.0, 0.5])]


@pytest.mark.slow
def test_a_gaussian_learns_the_posterior_of_every_context():
    flow = trained(GaussianSpec(), iterations=250, learning_rate=0.05)
    for context in CONTEXTS:
        mean, covariance = moments(flow, context)
        torch.testing.assert_close(mean, GAIN @ context, rtol=0, atol=0.03)
        torch.testing.assert_close(covariance, COVARIANCE, rtol=0, atol=0.03)
        found = diagnose(flow, TARGET, samples=4000, seed=0, context=context)
        assert found.verdict == "good"
        assert found.elbo == pytest.approx(evidence(context), abs=0.02)


@pytest.mark.slow
def test_an_encoder_and_a_coupling_flow_learn_it_too():
    spec = RealNvpSpec(
        layers=2, hidden=[16], batch_norm=None, encoder=EncoderSpec(hidden=[16], features=4)
    )
    flow = trained(spec, iterations=300, learning_rate=0.02)
    assert flow.context is not None
    start = build(spec, 2, context_dim=3, seed=0).state_dict()
    for name, value in flow.state_dict().items():
        assert "encoder" not in name or not torch.equal(value, start[name]), name
    for context in CONTEXTS:
        found = diagnose(flow, TARGET, samples=4000, seed=0, context=context)
        assert evidence(context) - 0.15 < found.elbo < evidence(context) + 0.01
        assert found.log_evidence == pytest.approx(evidence(context), abs=0.03)


def test_an_amortised_training_resumes_to_the_bit():
    options = VariationalOptions(iterations=20, report_every=10, batch_size=16)
    undisturbed, resumed = (build(GaussianSpec(), 2, context_dim=3, seed=s) for s in (0, 1))
    reports = fit_variational(undisturbed, TARGET, options=options)
    state = next(reports).snapshot()
    list(reports)
    list(fit_variational(resumed, TARGET, options=options, state=state))
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_the_newest_weights_are_kept_unless_they_are_clearly_worse():
    """Reports are about other contexts each, so that most differences between them are chance."""
    options = VariationalOptions(
        iterations=40, report_every=2, batch_size=32, learning_rate=1e-4, seed=1
    )
    flow = build(GaussianSpec(), 2, context_dim=3, seed=0)
    kept, best = [], -math.inf
    for report in fit_variational(flow, TARGET, options=options):
        if report.elbo > best - 2 * report.elbo_standard_error:
            kept.append(report.iteration)
        best = max(best, report.elbo)
        assert (report.best_iteration, report.best_elbo) == (kept[-1], best)
    assert len(kept) > 10


@pytest.mark.parametrize(
    ("target", "context_dim", "words"),
    [
        (TARGET, 0, "3 numbers of a context, the flow 0"),
        (TARGET, 2, "3 numbers of a context, the flow 2"),
        (FormulaTarget("0", 2), 3, "0 numbers of a context, the flow 3"),
    ],
)
def test_contexts_that_differ_are_refused(target, context_dim, words):
    flow = build(GaussianSpec(), 2, context_dim=context_dim, seed=0)
    with pytest.raises(FitError, match=words):
        fit_variational(flow, target, options=VariationalOptions())


def test_diagnostics_without_the_context_are_refused():
    flow = build(GaussianSpec(), 2, context_dim=3, seed=0)
    with pytest.raises(FlowError, match="context"):
        diagnose(flow, TARGET, samples=100, seed=0)
    with pytest.raises(FitError, match="context"):
        diagnose(build(GaussianSpec(), 2, seed=0), TARGET, samples=100, seed=0)
