import pytest
import torch

from flows.bijections.gradients import ACTIVATIONS

every_activation = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)


@every_activation
@pytest.mark.parametrize("shape", [(3, 4), (100, 100)], ids=["small", "large"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activations_in_place_equal_those_out_of_place(activation, shape, dtype):
    z = 4 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    found = activation.apply_(z.clone())
    expected = activation.apply(z)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=4 * torch.finfo(dtype).eps)


@every_activation
def test_hand_written_derivatives_equal_autograds(activation):
    z = torch.randn(200, dtype=torch.float64, requires_grad=True)
    h = activation.apply(z)
    grad = torch.randn(200, dtype=torch.float64)
    (expected,) = torch.autograd.grad(h, z, grad, retain_graph=True)
    kept = z if activation.keeps_input else h
    found = activation.gradient_(grad.clone(), kept.detach())
    torch.testing.assert_close(found, expected)


@every_activation
def test_activations_pass_numbers_that_are_not_finite_on(activation):
    for size in (2, 10_000):
        z = torch.full((size,), float("nan"))
        assert bool(activation.apply_(z).isnan().all())
