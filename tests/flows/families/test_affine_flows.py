"""Gaussians, MAF and RealNVP, and the bound of their log scales."""

import dataclasses

import pytest
import torch

from flows import (
    BatchNormSpec,
    FlowSpec,
    GaussianSpec,
    HafSpec,
    IafSpec,
    MadeSpec,
    MafSpec,
    RealNvpSpec,
    build,
    compile_flow,
    evaluate,
)
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.compose import Permutation, Reverse
from flows.bijections.coupling.affine import Coupling
from flows.bijections.transformers import bounded
from flows.families.gaussian import Gaussian
from flows.families.made import Made
from tests.flows.cases import draw, enlarged, jacobian, trained


def gaussian(dim: int, *, full: bool = True, context_dim: int = 0) -> Gaussian:
    generator = torch.Generator().manual_seed(0)
    layer = Gaussian(dim, full=full, generator=generator, context_dim=context_dim).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    return layer


@pytest.mark.parametrize("full", [True, False])
def test_the_density_is_that_of_torchs_gaussian(full):
    layer, x = gaussian(4, full=full), draw(9, 4, seed=1)
    root = layer.log_scale.exp().diag()
    if layer.lower is not None:
        triangle = torch.eye(4, dtype=torch.float64)
        triangle[tuple(torch.tril_indices(4, 4, offset=-1))] = layer.lower
        root = root @ triangle
    reference = torch.distributions.MultivariateNormal(layer.shift, scale_tril=root)
    u, log_det = layer.inverse(x)
    base = torch.distributions.Normal(torch.zeros_like(u), 1.0)
    torch.testing.assert_close(base.log_prob(u).sum(dim=1) + log_det, reference.log_prob(x))


def test_maximum_likelihood_finds_mean_and_covariance():
    mix = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-2.0, 1.0, 0.5]])
    x = draw(2000, 3).float() @ mix.t() + torch.tensor([5.0, 0.0, -1.0])
    flow = build(GaussianSpec(), 3, standardise=(x.mean(dim=0), x.std(dim=0)), seed=0)
    options = {"learning_rate": 0.1, "batch_size": 500, "max_epochs": 60, "schedule": "cosine"}
    trained(flow, x, x, patience=None, **options)
    reference = torch.distributions.MultivariateNormal(x.mean(dim=0), x.t().cov(correction=0))
    best = float(reference.log_prob(x).mean())
    assert best - 1e-3 < evaluate(flow, x).mean < best + 1e-5


@pytest.mark.parametrize(
    ("spec", "kinds"),
    [
        (
            MafSpec(layers=3, hidden=[8]),
            [Made, BatchNorm, Reverse, Made, BatchNorm, Reverse, Made, BatchNorm],
        ),
        (MafSpec(layers=2, hidden=[8], batch_norm=None), [Made, Reverse, Made]),
        (RealNvpSpec(layers=2, hidden=[8]), [Coupling, BatchNorm, Coupling, BatchNorm]),
    ],
    ids=["maf", "maf-plain", "realnvp"],
)
def test_each_layer_has_a_batch_norm_on_its_noise_side_and_an_order_of_its_own(spec, kinds):
    assert [type(part) for part in build(spec, 4, seed=0).transform.parts()] == kinds


@pytest.mark.parametrize("full", [True, False])
def test_a_context_moves_mean_and_scale_row_by_row(full):
    layer = gaussian(3, full=full, context_dim=2)
    context = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.3, -2.0]], dtype=torch.float64)
    u = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x, log_det = layer.forward(u, context)
    assert layer.context_weight is not None
    moves, stretches = (context @ layer.context_weight.t()).chunk(2, dim=1)
    plain, plain_log_det = layer.forward(u)
    torch.testing.assert_close(log_det, plain_log_det + stretches.sum(dim=1))
    stretched = (plain - layer.shift) * stretches.exp() + layer.shift + moves
    torch.testing.assert_close(x, stretched)

    back, inverse_log_det = layer.inverse(x, context)
    torch.testing.assert_close(back, u)
    torch.testing.assert_close(inverse_log_det, -log_det)


def test_the_layer_next_to_the_data_has_the_natural_order():
    flow = build(MafSpec(layers=1, hidden=[32], batch_norm=None), 4, seed=0).double()
    found = jacobian(flow, draw(4))
    assert torch.equal(found, found.tril())


def test_a_random_order_is_drawn_before_each_following_layer():
    parts = build(MafSpec(layers=4, hidden=[8], order="random"), 9, seed=0).transform.parts()
    orders = [tuple(part.order.tolist()) for part in parts if isinstance(part, Permutation)]
    assert len(set(orders)) == 3


def test_batch_norm_specs_out_of_range_are_refused(unchecked):
    with pytest.raises(ValueError, match="momentum"):
        BatchNormSpec(momentum=1.0)
    with pytest.raises(ValueError, match="statistics"):
        unchecked(BatchNormSpec, statistics="batch")


def test_layers_copy_even_and_odd_features_in_turn():
    flow = build(RealNvpSpec(layers=3, hidden=[8], batch_norm=None), 5, seed=0).double()
    for index, layer in enumerate(flow.transform.parts()):
        copied, moved = slice(index % 2, None, 2), slice(1 - index % 2, None, 2)
        found = jacobian(layer, draw(5))
        assert torch.equal(found[copied], torch.eye(5, dtype=torch.float64)[copied])
        block = found[moved][:, moved]
        assert torch.equal(block, block.diag().diag())
        assert bool((found[moved][:, copied] != 0).all())


def test_scale_networks_are_smooth_and_shift_networks_piecewise_linear():
    flow = build(RealNvpSpec(layers=1, hidden=[8], batch_norm=None), 2, seed=0).double()
    (layer,) = flow.transform.parts()
    x = torch.zeros(201, 2, dtype=torch.float64)
    x[:, 0] = torch.linspace(-3, 3, 201, dtype=torch.float64)
    with torch.no_grad():
        u, log_det = layer.inverse(x)
        shift = -u[:, 1] * torch.exp(-log_det)
    bends = shift.diff(n=2).abs() > 1e-12
    assert 1 <= int(bends.sum()) <= 16
    assert bool((log_det.diff(n=2).abs() > 1e-12).sum() > 150)


BOUND = 3.0
SPECS: list[FlowSpec] = [
    MadeSpec(hidden=[16], activation="relu", log_scale_bound=BOUND),
    MafSpec(layers=3, hidden=[16], activation="relu", log_scale_bound=BOUND),
    IafSpec(layers=3, hidden=[16], activation="relu", log_scale_bound=BOUND),
    HafSpec(layers=3, hidden=[16], activation="relu", log_scale_bound=BOUND),
    RealNvpSpec(layers=3, hidden=[16], log_scale_bound=BOUND),
]
every_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.family)


def test_the_bound_is_never_reached_and_the_slope_at_0_is_1():
    raw = torch.tensor([-1e30, -4.0, 0.0, 4.0, 1e30], dtype=torch.float64, requires_grad=True)
    found = bounded(raw, 2.0)
    expected = torch.tensor([-2.0, -4 / 3, 0.0, 4 / 3, 2.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert raw.grad is not None
    assert raw.grad[2] == 1


@every_spec
def test_scales_overflow_only_without_the_bound(spec):
    rows = 30 * draw(200, 4).float()
    for bound in (BOUND, None):
        flow = build(dataclasses.replace(spec, log_scale_bound=bound), 4, seed=1)
        flow = enlarged(flow, 80 if spec.family == "realnvp" else 20)
        compiled = compile_flow(flow)
        found = [
            *(flow.log_prob(rows).detach(), flow.forward(rows)[0].detach()),
            *(compiled.log_prob(rows.numpy()), compiled.forward(rows.numpy())[0]),
        ]
        finite = [bool(torch.as_tensor(values).isfinite().all()) for values in found]
        assert all(finite) if bound else not any(finite[:2])


def test_a_context_far_off_makes_no_scale_overflow():
    spec = IafSpec(layers=1, hidden=[8], log_scale_bound=BOUND)
    flow = enlarged(build(spec, 4, context_dim=2, seed=1), 20)
    generator, context = torch.Generator().manual_seed(0), torch.tensor([[1e4, -1e4]])
    assert bool(flow.sample(50, generator=generator, context=context).isfinite().all())


def test_a_bound_needs_scales():
    with pytest.raises(ValueError, match="needs a conditional with scales"):
        MadeSpec(conditional="bernoulli", log_scale_bound=1.0)
