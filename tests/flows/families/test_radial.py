import pytest
import torch
from torch import Tensor

from flows.families.radial import Radial, _undo


def _radial(dim: int, layers: int) -> Radial:
    generator = torch.Generator().manual_seed(0)
    return Radial(dim, layers, context_dim=0, generator=generator).double()


def _set(radial: Radial, centre: list[float], size: float, strength: float) -> None:
    with torch.no_grad():
        radial.raw.base.copy_(torch.tensor([[*centre, size, strength]]))


def test_one_layer_is_the_equation_of_the_paper():
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
