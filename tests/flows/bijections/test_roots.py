import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from flows.bijections.roots import MAX_EVALUATIONS, TOLERANCE, invert

DTYPES = [torch.float32, torch.float64]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def cubic(x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    return x**3 + slope * x, torch.log(3 * x.square() + slope)


def wiggle(x: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's method alone cycles and diverges on it: flat and steep in turn."""
    return x + depth * torch.sin(x), torch.log1p(depth * torch.cos(x))


def steps(x: Tensor, steepness: Tensor) -> tuple[Tensor, Tensor]:
    """A staircase of three steep steps, nearly flat between them."""
    places = torch.tensor([-3.0, 0.1, 4.0], dtype=x.dtype)
    z = steepness * (x[..., None] - places)
    log_slope = torch.nn.functional.logsigmoid(z) + torch.nn.functional.logsigmoid(-z)
    slope = 1e-3 + (steepness * log_slope.exp()).sum(dim=-1)
    return 1e-3 * x + torch.sigmoid(z).sum(dim=-1), slope.log()


def logistic_mixture(
    x: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor
) -> tuple[Tensor, Tensor]:
    """The logit of a mixture's distribution function, exact in both tails."""
    z = (x - means) * torch.exp(-log_scales)
    weights = log_weights.log_softmax(dim=0)
    above, below = torch.nn.functional.logsigmoid(z), torch.nn.functional.logsigmoid(-z)
    log_cdf, log_rest = (weights + above).logsumexp(0), (weights + below).logsumexp(0)
    log_density = (weights + above + below - log_scales).logsumexp(0)
    return log_cdf - log_rest, log_density - log_cdf - log_rest


def _mixture(dtype: torch.dtype, shape: tuple[int, ...] = (50,), *, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(3, 4, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return [draws[0], 5 * draws[1], draws[2]]


@every_dtype
@settings(deadline=None)
@given(
    root=st.floats(-1e6, 1e6, width=32),
    depth=st.floats(-0.9375, 0.9375, width=32),
)
def test_a_root_is_found_to_the_stated_tolerance(dtype, root, depth):
    expected = torch.tensor([root], dtype=torch.float64)
    y, _ = wiggle(expected, torch.tensor(depth, dtype=torch.float64))
    x, _ = invert(wiggle, y.to(dtype), torch.tensor(depth, dtype=dtype))
    # The rounding of y and of the sine, as seen through the slope, comes on top.
    rounding = 4 * torch.finfo(dtype).eps * max(1, abs(root)) / (1 - abs(depth))
    error = abs(float(x) - root)
    assert error <= TOLERANCE[dtype] * max(1, abs(root)) + rounding


@every_dtype
@pytest.mark.parametrize("steepness", [1.0, 30.0, 1e3, 1e6])
def test_staircases_do_not_mislead_the_search(dtype, steepness):
    y = torch.linspace(-1, 4, 501, dtype=dtype)
    steep = torch.tensor(steepness, dtype=dtype)
    x, _ = invert(steps, y, steep)
    width = TOLERANCE[dtype] * x.abs().clamp(min=1)
    assert bool((steps(x - width, steep)[0] <= y).all())
    assert bool((steps(x + width, steep)[0] >= y).all())


@every_dtype
def test_far_roots_are_found(dtype):
    largest = 1e300 if dtype == torch.float64 else 1e37
    y = torch.tensor([0, 1e-30, 1e-6, 1e10, largest], dtype=dtype)
    y = torch.cat([y, -y])
    x, _ = invert(cubic, y, torch.tensor(1e-4, dtype=dtype))
    torch.testing.assert_close(cubic(x, torch.tensor(1e-4))[0], y, rtol=1e-5, atol=1e-12)


@every_dtype
def test_roots_in_both_tails_of_a_mixture_are_found(dtype):
    y = torch.linspace(-200, 200, 50, dtype=dtype)
    parameters = _mixture(dtype)
    x, log_det = invert(logistic_mixture, y, *parameters)
    back, log_slope = logistic_mixture(x, *parameters)
    close = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(back, y, rtol=close, atol=close)
    torch.testing.assert_close(log_det, -log_slope)


@pytest.mark.parametrize("seed", range(2))
def test_first_and_second_derivatives_equal_finite_differences(seed):
    generator = torch.Generator().manual_seed(seed)
    y = 4 * torch.randn(2, 3, generator=generator, dtype=torch.float64)
    inputs = [y, *_mixture(torch.float64, (2, 3), seed=seed)]
    inputs = [tensor.requires_grad_() for tensor in inputs]

    def function(y: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        return invert(logistic_mixture, y, *parameters)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def test_third_derivatives_are_those_of_the_inverse_function():
    y = torch.tensor([0.3, 2.0], dtype=torch.float64, requires_grad=True)

    def exponential(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.exp(x), x

    value, _ = invert(exponential, y)
    for order in range(1, 4):
        (value,) = torch.autograd.grad(value.sum(), y, create_graph=True)
        expected = (-1) ** (order - 1) * math.factorial(order - 1) * y.detach() ** -order
        torch.testing.assert_close(value.detach(), expected)


def test_a_shared_parameter_gets_the_gradients_of_all_elements():
    y = torch.randn(6, dtype=torch.float64)
    slope = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda slope: invert(cubic, y, slope), slope)
    assert torch.autograd.gradgradcheck(lambda slope: invert(cubic, y, slope), slope)


def test_only_the_inputs_that_need_gradients_get_them():
    y = torch.randn(4, requires_grad=True)
    unused = torch.zeros(1, requires_grad=True)
    x, _ = invert(lambda x, slope, _: cubic(x, slope), y, torch.ones(4), unused)
    x.sum().backward()
    assert y.grad is not None
    assert unused.grad is None


@every_dtype
@settings(max_examples=6, deadline=None)
@given(y=st.lists(st.floats(-1e4, 1e4, width=32) | st.just(math.nan), min_size=1, max_size=20))
def test_an_element_does_not_depend_on_those_beside_it(dtype, y):
    values = torch.tensor(y, dtype=dtype)
    slope = torch.tensor(1e-3, dtype=dtype)
    together, _ = invert(cubic, values, slope)
    alone = torch.cat([invert(cubic, value[None], slope)[0] for value in values])
    torch.testing.assert_close(alone, together, rtol=1e-6, atol=0, equal_nan=True)


@every_dtype
def test_an_empty_batch_has_no_roots(dtype):
    x, log_det = invert(cubic, torch.empty(0, 3, dtype=dtype), torch.ones(3, dtype=dtype))
    assert x.shape == log_det.shape == (0, 3)


@every_dtype
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_gives_nan_at_once(dtype, value):
    calls = []

    def counted(x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(x)
        return cubic(x, slope)

    usual, bad = torch.ones(3, dtype=dtype), torch.tensor([1.0, value, 2.0], dtype=dtype)
    assert invert(counted, bad, usual)[0].isnan().tolist() == [False, True, False]
    assert invert(counted, usual, bad)[0].isnan().tolist() == [False, True, False]
    assert len(calls) < MAX_EVALUATIONS / 4


@every_dtype
def test_values_that_the_function_does_not_reach_give_nan(dtype):
    def bounded(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(x), torch.log1p(-torch.tanh(x).square())

    y = torch.tensor([-3, 0.5, 1.5], dtype=dtype)
    assert invert(bounded, y)[0].isnan().tolist() == [True, False, True]


@every_dtype
def test_where_the_rounded_function_is_flat_any_point_of_the_stretch_will_do(dtype):
    def flat(x: Tensor) -> tuple[Tensor, Tensor]:
        return x**15, math.log(15) + 14 * x.abs().log()

    y = torch.tensor([0.0, 1e-40 if dtype == torch.float32 else 1e-320], dtype=dtype)
    x, _ = invert(flat, y)
    assert bool((x.abs() < 1e-2).all())


@every_dtype
def test_smooth_functions_take_few_evaluations(dtype):
    calls = []

    def counted(x: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(x)
        return logistic_mixture(x, *parameters)

    invert(counted, torch.linspace(-10, 10, 50, dtype=dtype), *_mixture(dtype))
    assert len(calls) < 25
