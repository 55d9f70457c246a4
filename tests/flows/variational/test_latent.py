"""Generative models with latent variables: exact posteriors, bounds of the evidence, their training."""

import itertools
import json

import numpy as np
import pytest
import torch

from flows import (
    EncoderSpec,
    FitError,
    Flow,
    FlowError,
    GaussianSpec,
    IafSpec,
    LatentSpec,
    LatentTarget,
    MafSpec,
    SpecError,
    VariationalOptions,
    build,
    compile_flow,
    count_parameters,
    fit_variational,
    flow_cost,
    row_evidence,
    spec_from_dict,
    spec_to_dict,
)
from flows.compiled.torch_flow import TorchFlow

LOADINGS = torch.tensor([[1.0, 0.5], [0.0, 1.0], [-1.0, 2.0]])
OFFSET, NOISE = torch.tensor([1.0, 0.0, -2.0]), 0.7
COVARIANCE = LOADINGS @ LOADINGS.t() + NOISE**2 * torch.eye(3)
ROWS = (
    OFFSET.double()
    + torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    @ torch.linalg.cholesky(COVARIANCE.double()).t()
)
BINARY = LatentSpec(
    flow=IafSpec(layers=2, hidden=[8], batch_norm=None, encoder=EncoderSpec([8], 4)),
    likelihood="bernoulli",
    hidden=[8],
)


def marginal() -> torch.distributions.Distribution:
    return torch.distributions.MultivariateNormal(OFFSET.double(), COVARIANCE.double())


def known(spec: LatentSpec | None = None) -> Flow:
    spec = spec or LatentSpec()
    flow = build(spec, 2, context_dim=3, seed=0)
    assert flow.decoder is not None
    flow.decoder.fix(LOADINGS, OFFSET, None if spec.likelihood == "bernoulli" else NOISE)
    return flow


def exact() -> Flow:
    """A flow that is the posterior itself: x = m + L u, with the mean linear in the context."""
    flow = known()
    assert flow.decoder is not None
    means, covariance, _ = flow.decoder.posterior(torch.cat([torch.zeros(1, 3), torch.eye(3)]))
    root = torch.linalg.cholesky(covariance)
    gain = (means[1:] - means[:1]).t()
    known_weights = {
        "transform.shift": means[0],
        "transform.log_scale": root.diagonal().log(),
        "transform.lower": (root / root.diagonal()[:, None])[1, :1],
        "transform.context_weight": torch.cat([gain, torch.zeros(2, 3)]),
    }
    flow.load_state_dict(flow.state_dict() | known_weights)
    return flow


def test_the_exact_evidence_is_that_of_the_marginal():
    decoder = known().decoder
    assert decoder is not None
    assert decoder.is_exact
    mean, covariance, evidence = decoder.posterior(ROWS)
    torch.testing.assert_close(evidence, marginal().log_prob(ROWS), rtol=0, atol=1e-5)
    # Bayes: the joint density is that of the posterior times the evidence, at any z.
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    posterior = torch.distributions.MultivariateNormal(mean, covariance)
    torch.testing.assert_close(
        decoder.log_joint(z, ROWS), posterior.log_prob(z) + evidence, rtol=0, atol=1e-4
    )


def test_bounds_of_the_exact_posterior_are_the_evidence():
    elbo, bound = row_evidence(compile_flow(exact()), ROWS.numpy(), samples=10, seed=0)
    wanted = marginal().log_prob(ROWS).numpy()
    np.testing.assert_allclose(elbo, wanted, atol=1e-4)
    np.testing.assert_allclose(bound, wanted, atol=1e-4)


def test_bounds_of_another_posterior_are_below_and_tighter_with_weights():
    elbo, bound = row_evidence(compile_flow(known()), ROWS.numpy(), samples=1000, seed=0)
    assert (elbo < bound).all()
    assert elbo.mean() < marginal().log_prob(ROWS).mean() - 0.1


def test_a_row_has_the_same_bounds_alone_and_for_the_same_seed():
    compiled = compile_flow(build(BINARY, 2, context_dim=3, seed=0))
    rows = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    together = np.array(row_evidence(compiled, rows, samples=20, seed=5))
    alone = np.array([row_evidence(compiled, row[None], samples=20, seed=5) for row in rows])
    np.testing.assert_allclose(together, alone[:, :, 0].T, rtol=0, atol=1e-12)
    assert (together != np.array(row_evidence(compiled, rows, samples=20, seed=6))).all()


def test_masses_of_all_binary_rows_sum_to_one():
    decoder = known(LatentSpec(likelihood="bernoulli")).decoder
    assert decoder is not None
    rows = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    z = torch.tensor([[0.3, -0.2]])
    masses = decoder.log_likelihood(z.expand(8, -1), rows).exp()
    assert float(masses.sum()) == pytest.approx(1, abs=1e-6)
    first = torch.sigmoid(z @ LOADINGS.t() + OFFSET).prod()
    assert float(masses[-1]) == pytest.approx(float(first), abs=1e-6)


def test_what_cannot_be_is_impossible_and_what_lacks_has_no_evidence():
    compiled = compile_flow(build(BINARY, 2, context_dim=3, seed=0))
    rows = np.array([[0.0, 1.0, 0.5], [0.0, np.nan, 1.0], [0.0, 1.0, 1.0]])
    elbo, bound = row_evidence(compiled, rows, samples=5, seed=0)
    assert elbo[0] == bound[0] == -np.inf
    assert np.isnan([elbo[1], bound[1]]).all()
    assert np.isfinite([elbo[2], bound[2]]).all()


def fitted(flow: Flow, rows: torch.Tensor, **options: object) -> list[float]:
    chosen = VariationalOptions(schedule="cosine", batch_size=64, **options)  # type: ignore[arg-type]
    return [one.elbo for one in fit_variational(flow, LatentTarget(flow, rows), options=chosen)]


def test_training_learns_the_decoder_and_leaves_a_known_one():
    generator = torch.Generator().manual_seed(0)
    rows = (torch.rand(300, 3, generator=generator) < torch.tensor([0.9, 0.5, 0.1])).float()
    learnt = build(BINARY, 2, context_dim=3, seed=0)
    first, *_, last = fitted(learnt, rows, learning_rate=0.02, iterations=100, report_every=20)
    assert last > first + 0.2
    fixed = known(LatentSpec(likelihood="bernoulli"))
    assert fixed.decoder is not None
    before = [weights.clone() for weights in fixed.decoder.parameters()]
    fitted(fixed, rows, learning_rate=0.02, iterations=20, report_every=10)
    assert all(map(torch.equal, before, fixed.decoder.parameters()))


def test_a_training_resumes_to_the_bit_with_its_decoder():
    rows = (torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    options = VariationalOptions(iterations=20, report_every=10, batch_size=16)
    undisturbed, resumed = (build(BINARY, 2, context_dim=3, seed=seed) for seed in (0, 1))
    reports = fit_variational(undisturbed, LatentTarget(undisturbed, rows), options=options)
    state = next(reports).snapshot()
    list(reports)
    target = LatentTarget(resumed, rows)
    list(fit_variational(resumed, target, options=options, state=state))
    names = [name for name in undisturbed.state_dict() if name.startswith("decoder")]
    assert names
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("spec", [BINARY, LatentSpec(), LatentSpec(hidden=[5, 4])], ids=str)
def test_the_spec_says_what_the_flow_takes(spec):
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))) == spec
    flow = build(spec, 2, context_dim=3, seed=0)
    weights = sum(one.numel() for one in flow.parameters())
    assert count_parameters(spec, 2, 3) == weights
    cost = flow_cost(spec, 2, 3)
    assert cost.flow_bytes >= sum(one.nbytes for one in flow.state_dict().values())
    assert cost.loaded_bytes >= compile_flow(flow).size_bytes


@pytest.mark.parametrize(
    "fields",
    [
        {"flow": {"family": "latent"}},
        {"flow": {"family": "mixed"}},
        {"flow": {"family": "made", "conditional": "bernoulli"}},
        {"likelihood": "poisson"},
        {"hidden": [0]},
        {"activation": "sine"},
        {"encoder": {}},
        {"dim": 2},
    ],
    ids=str,
)
def test_a_spec_of_something_else_is_refused(fields):
    with pytest.raises(SpecError) as caught:
        spec_from_dict({"family": "latent"} | fields)
    assert caught.value.code == "spec-invalid"


def test_latent_variables_need_data_and_their_flow():
    with pytest.raises(SpecError, match="columns that they explain"):
        build(LatentSpec(), 2, seed=0)
    drawn = LatentTarget(known(), ROWS).sample_context(200, generator=torch.Generator())
    assert torch.equal(drawn.unique(dim=0), ROWS.unique(dim=0))  # each of them, the last one too
    plain = build(GaussianSpec(), 2, context_dim=3, seed=0)
    with pytest.raises(FitError, match="no decoder"):
        LatentTarget(plain, ROWS)
    with pytest.raises(FitError, match="rows of 3 columns"):
        LatentTarget(known(), ROWS[:, :2])
    with pytest.raises(FlowError, match="no generative model"):
        row_evidence(TorchFlow(plain, device=torch.device("cpu")), ROWS.numpy(), samples=1, seed=0)
    with pytest.raises(FlowError, match="hidden layers"):
        known(LatentSpec(hidden=[4]))
    curved = build(LatentSpec(hidden=[4]), 2, context_dim=3, seed=0).decoder
    assert curved is not None
    with pytest.raises(FlowError, match="closed form"):
        curved.posterior(ROWS)
    with pytest.raises(SpecError, match="members must be of a single family"):
        spec_from_dict({"family": "ensemble", "members": [{"family": "latent"}], "weights": [1]})


def test_the_density_given_a_row_is_that_of_the_flow_alone():
    alone = build(MafSpec(layers=2, hidden=[8]), 2, context_dim=3, seed=3)
    spec = LatentSpec(flow=MafSpec(layers=2, hidden=[8]), hidden=[4])
    with_decoder = build(spec, 2, context_dim=3, seed=3)
    z = torch.zeros(6, 2)
    assert torch.equal(alone.log_prob(z, ROWS.float()), with_decoder.log_prob(z, ROWS.float()))
