"""Gaussians, MAF and RealNVP, and the bound of their log scales."""

import dataclasses

import pytest
import torch
from torch import Tensor

from flows import (
    BatchNormSpec,
    FitOptions,
    Flow,
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
    fit,
)
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.compose import Permutation, Reverse
from flows.bijections.coupling.affine import Coupling
from flows.bijections.transformers import bounded
from flows.families.gaussian import Gaussian
from flows.families.made import Made


def gaussian(dim: int, *, full: bool = True, context_dim: int = 0) -> Gaussian:
    generator = torch.Generator().manual_seed(0)
    layer = Gaussian(dim, full=full, generator=generator, context_dim=context_dim).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    return layer


@pytest.mark.parametrize("full", [True, False])
def test_the_density_is_that_of_torchs_gaussian(full):
    layer = gaussian(4, full=full)
    root = layer.log_scale.exp().diag()
    if layer.lower is not None:
        triangle = torch.eye(4, dtype=torch.float64)
        triangle[tuple(torch.tril_indices(4, 4, offset=-1))] = layer.lower
        root = root @ triangle
    reference = torch.distributions.MultivariateNormal(layer.shift, scale_tril=root)
    x = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, log_det = layer.inverse(x)
    base = torch.distributions.Normal(torch.zeros_like(u), 1.0)
    torch.testing.assert_close(base.log_prob(u).sum(dim=1) + log_det, reference.log_prob(x))


def test_maximum_likelihood_finds_mean_and_covariance():
    generator = torch.Generator().manual_seed(0)
    mix = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-2.0, 1.0, 0.5]])
    x = torch.randn(2000, 3, generator=generator) @ mix.t() + torch.tensor([5.0, 0.0, -1.0])
    flow = build(GaussianSpec(), 3, standardise=(x.mean(dim=0), x.std(dim=0)), seed=0)
    options = FitOptions(
        learning_rate=0.1, batch_size=500, max_epochs=60, patience=None, schedule="cosine"
    )
    for _ in fit(flow, x, x, options=options):
        pass
    reference = torch.distributions.MultivariateNormal(x.mean(dim=0), x.t().cov(correction=0))
    best = float(reference.log_prob(x).mean())
    assert best - 1e-3 < evaluate(flow, x).mean < best + 1e-5


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


def test_an_unknown_covariance_is_refused(unchecked):
    with pytest.raises(ValueError, match="covariance must be one of diagonal, full"):
        unchecked(GaussianSpec, covariance="spherical")


def test_each_layer_has_a_batch_norm_on_its_noise_side_and_the_order_is_reversed_between():
    parts = build(MafSpec(layers=3, hidden=[8]), 4, seed=0).transform.parts()
    kinds = [type(part) for part in parts]
    assert kinds == [Made, BatchNorm, Reverse, Made, BatchNorm, Reverse, Made, BatchNorm]


def test_the_layer_next_to_the_data_has_the_natural_order():
    flow = build(MafSpec(layers=1, hidden=[32], batch_norm=None), 4, seed=0).double()
    x = torch.randn(4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda r: flow.inverse(r[None])[0][0], x)
    assert isinstance(jacobian, torch.Tensor)
    assert torch.equal(jacobian, jacobian.tril())


def test_a_random_order_is_drawn_before_each_following_layer():
    parts = build(MafSpec(layers=4, hidden=[8], order="random"), 9, seed=0).transform.parts()
    orders = [tuple(part.order.tolist()) for part in parts if isinstance(part, Permutation)]
    assert len(set(orders)) == 3


def test_batch_norm_can_be_left_out():
    parts = build(MafSpec(layers=2, hidden=[8], batch_norm=None), 4, seed=0).transform.parts()
    assert not any(isinstance(part, BatchNorm) for part in parts)


def test_batch_norm_specs_out_of_range_are_refused(unchecked):
    with pytest.raises(ValueError, match="momentum"):
        BatchNormSpec(momentum=1.0)
    with pytest.raises(ValueError, match="statistics"):
        unchecked(BatchNormSpec, statistics="batch")


def _jacobian(layer: Coupling) -> Tensor:
    x = torch.randn(layer.dim, dtype=torch.float64)
    result = torch.autograd.functional.jacobian(lambda row: layer.inverse(row[None])[0][0], x)
    assert isinstance(result, Tensor)
    return result


def test_layers_copy_even_and_odd_features_in_turn():
    flow = build(RealNvpSpec(layers=3, hidden=[8], batch_norm=None), 5, seed=0).double()
    for index, layer in enumerate(flow.transform.parts()):
        assert isinstance(layer, Coupling)
        copied, moved = slice(index % 2, None, 2), slice(1 - index % 2, None, 2)
        jacobian = _jacobian(layer)
        assert torch.equal(jacobian[copied], torch.eye(5, dtype=torch.float64)[copied])
        block = jacobian[moved][:, moved]
        assert torch.equal(block, block.diag().diag())
        assert bool((jacobian[moved][:, copied] != 0).all())


def test_each_layer_has_a_batch_norm_on_its_noise_side():
    parts = build(RealNvpSpec(layers=2, hidden=[8]), 4, seed=0).transform.parts()
    assert [type(part) for part in parts] == [Coupling, BatchNorm, Coupling, BatchNorm]


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


def _wild(spec: FlowSpec, *, context_dim: int = 0) -> Flow:
    """A flow whose weights are many times those of a new one."""
    flow = build(spec, 4, context_dim=context_dim, seed=1).eval()
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "weight" in name:
                parameter.mul_(80 if spec.family == "realnvp" else 20)
    return flow


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
    rows = 30 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    for bound in (BOUND, None):
        flow = _wild(dataclasses.replace(spec, log_scale_bound=bound))
        with torch.no_grad():
            found = [flow.log_prob(rows), flow.forward(rows)[0]]
        compiled = compile_flow(flow)
        found += [torch.tensor(compiled.log_prob(rows.numpy()))]
        found += [torch.tensor(compiled.forward(rows.numpy())[0])]
        finite = [bool(values.isfinite().all()) for values in found]
        assert all(finite) if bound else not any(finite[:2])


def test_a_context_far_off_makes_no_scale_overflow():
    flow = _wild(IafSpec(layers=1, hidden=[8], log_scale_bound=BOUND), context_dim=2)
    samples = flow.sample(
        50, generator=torch.Generator().manual_seed(0), context=torch.tensor([[1e4, -1e4]])
    )
    assert bool(samples.isfinite().all())


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bound_is_a_number_above_0(wrong):
    with pytest.raises(ValueError, match="log_scale_bound must be a number above 0"):
        MafSpec(log_scale_bound=wrong)
    with pytest.raises(ValueError, match="needs a conditional with scales"):
        MadeSpec(conditional="bernoulli", log_scale_bound=1.0)
