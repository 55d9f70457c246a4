import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from flows.families.planar import Planar


def _planar(dim: int, layers: int, *, seed: int = 0) -> Planar:
    generator = torch.Generator().manual_seed(seed)
    return Planar(dim, layers, context_dim=0, generator=generator).double()


def _raw(weight: Tensor, free: Tensor, bias: Tensor) -> Tensor:
    return torch.cat([weight, free, bias[None]])[None]


def test_one_layer_is_the_equation_of_the_paper():
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
