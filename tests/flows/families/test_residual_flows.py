"""Planar, radial and Sylvester flows."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from flows import SpecError, SylvesterSpec, build
from flows.families.planar import Planar
from flows.families.radial import Radial, _undo
from flows.families.sylvester import Sylvester, orthonormal


def _planar(dim: int, layers: int, *, seed: int = 0) -> Planar:
    generator = torch.Generator().manual_seed(seed)
    return Planar(dim, layers, context_dim=0, generator=generator).double()


def _raw(weight: Tensor, free: Tensor, bias: Tensor) -> Tensor:
    return torch.cat([weight, free, bias[None]])[None]


def test_one_layer_of_a_planar_flow_is_the_equation_of_the_paper():
    planar = _planar(3, 1)
    with torch.no_grad():
        planar.raw.base.mul_(2)
    weight, free, bias = planar.raw.base.detach()[0].split([3, 3, 1])
    inner = weight @ free
    m = -1 + torch.log(1 + (torch.e - 1) * torch.exp(inner))
    push = free + (m - inner) * weight / weight.square().sum()
    u = torch.randn(10, 3, dtype=torch.float64)
    x, log_det = planar.forward(u)
    expected = u + push * torch.tanh(u @ weight + bias)[:, None]
    torch.testing.assert_close(x, expected)
    slope = 1 - torch.tanh(u @ weight + bias).square()
    torch.testing.assert_close(log_det, torch.log((1 + slope * (weight @ push)).abs()))


def test_layers_without_a_push_are_the_identity():
    planar = _planar(4, 5)
    with torch.no_grad():
        planar.raw.base[:, 4:8] = 0
    u = torch.randn(6, 4, dtype=torch.float64)
    x, log_det = planar.forward(u)
    torch.testing.assert_close(x, u)
    torch.testing.assert_close(log_det, torch.zeros(6, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(
    numbers=st.lists(
        st.floats(-6, 6).filter(lambda value: abs(value) > 1e-3), min_size=5, max_size=5
    )
)
def test_every_layer_is_invertible_whatever_its_parameters(numbers):
    planar = _planar(2, 1)
    with torch.no_grad():
        planar.raw.base.copy_(torch.tensor([numbers], dtype=torch.float64))
        u = torch.linspace(-3, 3, 31, dtype=torch.float64)[:, None] * torch.ones(2)
        x, log_det = planar.forward(u)
        back, _ = planar.inverse(x)
    assert bool(log_det.isfinite().all())
    # A nearly flat layer rounds neighbours to the same row: what is found maps to the same place.
    torch.testing.assert_close(planar.forward(back)[0], x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [1e-6, 1e-3, 1.0, 1e3])
def test_the_push_stays_bounded_where_the_weight_is_short_or_long(length):
    planar = _planar(2, 1)
    weight, free = torch.tensor([0.6, 0.8]) * length, torch.tensor([1.0, -2.0])
    with torch.no_grad():
        planar.raw.base.copy_(_raw(weight, free, torch.tensor(0.1))[0])
        moved = planar.forward(torch.randn(100, 2, dtype=torch.float64) / length)[0]
    assert float((moved - moved.mean(dim=0)).abs().max()) < 10 / length + 10


def _radial(dim: int, layers: int) -> Radial:
    generator = torch.Generator().manual_seed(0)
    return Radial(dim, layers, context_dim=0, generator=generator).double()


def _set(radial: Radial, centre: list[float], size: float, strength: float) -> None:
    with torch.no_grad():
        radial.raw.base.copy_(torch.tensor([[*centre, size, strength]]))


def test_one_layer_of_a_radial_flow_is_the_equation_of_the_paper():
    radial = _radial(3, 1)
    _set(radial, [0.5, -1.0, 2.0], 0.3, -1.2)
    centre = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    growth = torch.e - 1
    alpha = 3**0.5 * torch.log(1 + growth * torch.tensor(0.3, dtype=torch.float64).exp())
    beta = alpha * (-1 + torch.log(1 + growth * torch.tensor(-1.2, dtype=torch.float64).exp()))
    u = torch.randn(10, 3, dtype=torch.float64)
    r = (u - centre).norm(dim=1)
    x, log_det = radial.forward(u)
    torch.testing.assert_close(x, u + (beta / (alpha + r))[:, None] * (u - centre))
    h = 1 / (alpha + r)
    expected = 2 * torch.log(1 + beta * h) + torch.log(1 + beta * h - beta * r * h**2)
    torch.testing.assert_close(log_det, expected)


def test_layers_of_no_strength_are_the_identity():
    radial = _radial(4, 5)
    with torch.no_grad():
        radial.raw.base[:, -1] = 0
    u = torch.randn(6, 4, dtype=torch.float64)
    x, log_det = radial.forward(u)
    torch.testing.assert_close(x, u)
    torch.testing.assert_close(log_det, torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("strength", [-20.0, -3.0, 0.0, 5.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_distance_is_found_again_at_all_scales(strength, dtype):
    alpha = torch.tensor(1.5, dtype=dtype)
    room = alpha * torch.nn.functional.softplus(torch.tensor(strength, dtype=dtype))
    r = torch.logspace(-6, 6, 49, dtype=dtype)
    s = r * (room + r) / (alpha + r)
    torch.testing.assert_close(_undo(s, alpha, room), r, rtol=20 * torch.finfo(dtype).eps, atol=0)


def test_derivatives_of_the_distance_are_right_where_the_formula_branches():
    alpha = torch.tensor(1.5, dtype=torch.float64)
    inputs = [torch.tensor([2.0, 0.5, 4.0], dtype=torch.float64).requires_grad_() for _ in "sr"]

    def undo(s: Tensor, room: Tensor) -> Tensor:
        return _undo(s, alpha, room)

    assert torch.autograd.gradcheck(undo, inputs)
    assert torch.autograd.gradgradcheck(undo, inputs)


def test_a_point_at_the_centre_stays_there_with_finite_gradients():
    radial = _radial(2, 1)
    _set(radial, [0.5, -0.25], 0.0, 1.0)
    point = torch.tensor([[0.5, -0.25]], dtype=torch.float64, requires_grad=True)
    for direction in (radial.forward, radial.inverse):
        moved, log_det = direction(point)
        assert torch.equal(moved, point)
        (grad,) = torch.autograd.grad(moved.sum() + log_det.sum(), point)
        assert bool(grad.isfinite().all())


def _sylvester(dim: int, units: int, *, layers: int = 1) -> Sylvester:
    generator = torch.Generator().manual_seed(0)
    flow = Sylvester(dim, units, layers=layers, context_dim=0, generator=generator)
    return flow.double()


@pytest.mark.parametrize(("dim", "units"), [(1, 1), (3, 1), (4, 4), (9, 5), (40, 40)])
def test_the_basis_is_that_of_the_product_of_reflections(dim, units):
    vectors = torch.randn(2, dim, units, dtype=torch.float64)
    product = torch.eye(dim, dtype=torch.float64).expand(2, dim, dim)
    for unit in range(units):
        v = vectors[:, :, unit : unit + 1]
        reflection = torch.eye(dim) - 2 * v @ v.mT / v.square().sum(dim=1, keepdim=True)
        product = product @ reflection
    basis = orthonormal(vectors)
    torch.testing.assert_close(basis, product[:, :, :units])
    one = torch.eye(units, dtype=torch.float64).expand(2, units, units)
    torch.testing.assert_close(basis.mT @ basis, one)


def test_one_layer_of_a_sylvester_flow_is_the_equation_of_the_paper():
    flow = _sylvester(4, 3)
    with torch.no_grad():
        flow.raw.base.mul_(3)
    layers = flow.layers(None)
    q, r, s = layers.basis[0, 0], layers.outer[0, 0], layers.inner[0, 0]
    assert torch.equal(r, r.triu())
    assert torch.equal(s, s.triu())
    assert bool((r.diagonal() * s.diagonal() > -1).all())
    torch.testing.assert_close(1 + r.diagonal() * s.diagonal(), layers.gain[0, 0])
    u = torch.randn(10, 4, dtype=torch.float64)
    x, log_det = flow.forward(u)
    bend = torch.tanh(u @ q @ s.T + layers.bias[0])
    torch.testing.assert_close(x, u + bend @ (q @ r).T)
    small = torch.eye(3) + torch.diag_embed(1 - bend.square()) @ s @ r
    torch.testing.assert_close(log_det, small.logdet())


def test_units_default_to_the_features():
    flow = build(SylvesterSpec(layers=2), 5, seed=0)
    narrow = build(SylvesterSpec(layers=2, units=5), 5, seed=0)
    x = torch.randn(4, 5)
    assert torch.equal(flow.log_prob(x), narrow.log_prob(x))


def test_what_is_orthogonal_to_all_units_stays_where_it_is():
    flow = _sylvester(5, 2, layers=1)
    basis = flow.layers(None).basis[0, 0]
    u = torch.randn(8, 5, dtype=torch.float64)
    across = torch.eye(5) - basis @ basis.T
    torch.testing.assert_close(flow.forward(u)[0] @ across, u @ across)


def test_more_units_than_features_are_refused():
    with pytest.raises(SpecError, match="units needs at least 4 features") as caught:
        build(SylvesterSpec(units=4), 3, seed=0)
    assert caught.value.code == "dimension-unsupported"
