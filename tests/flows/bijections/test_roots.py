import functools
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from flows import PlanarSpec, RadialSpec, SylvesterSpec
from flows.bijections.base import Bijection
from flows.bijections.roots import MAX_EVALUATIONS, TOLERANCE, invert
from flows.bijections.thin_layers import bend, bend_log_slope, positive, unbend
from tests.flows.cases import draw, stirred

every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


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
    draws = draw(3, 4, *shape, seed=seed).to(dtype)
    return [draws[0], 5 * draws[1], draws[2]]


@every_dtype
@settings(deadline=None)
@given(root=st.floats(-1e6, 1e6, width=32), depth=st.floats(-0.9375, 0.9375, width=32))
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
    inputs = [4 * draw(2, 3, seed=seed), *_mixture(torch.float64, (2, 3), seed=seed)]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    function = functools.partial(invert, logistic_mixture)
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
    empty, log_det = invert(cubic, usual.new_empty(0, 3), usual)
    assert empty.shape == log_det.shape == (0, 3)


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


Spec = PlanarSpec | RadialSpec | SylvesterSpec

SPECS: list[type[Spec]] = [PlanarSpec, RadialSpec, SylvesterSpec]
every_spec = pytest.mark.parametrize("spec", SPECS)
every_direction = pytest.mark.parametrize("closed", ["density", "sampling"])


def _layers(spec: Spec, dim: int, *, context_dim: int = 0, spread: float = 0.0) -> Bijection:
    layers = spec.build(dim, torch.Generator().manual_seed(3), context_dim)
    return stirred(layers, spread).double()


@every_spec
@every_direction
def test_strongly_bent_layers_are_inverted(spec, closed):
    for dim in (1, 2, 7):
        layers = _layers(spec(layers=8, closed=closed), dim, spread=2.0)
        u = draw(200, dim)
        with torch.no_grad():
            x, log_det = layers.forward(u)
            back, log_det_back = layers.inverse(x)
        torch.testing.assert_close(back, u, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(log_det_back, -log_det, rtol=1e-5, atol=1e-5)


@every_spec
@every_direction
def test_a_context_conditions_every_number_of_every_layer(spec, closed):
    layers = _layers(spec(layers=3, closed=closed), 4, context_dim=2)
    context = draw(30, 2, seed=1)
    for direction in (layers.forward, layers.inverse):
        layers.zero_grad()
        moved, log_det = direction(draw(30, 4), context)
        (moved.square().sum() + log_det.sum()).backward()
        for name, parameter in layers.named_parameters():
            assert parameter.grad is not None, name
            assert bool((parameter.grad != 0).all()), name


@pytest.mark.parametrize("spec", [PlanarSpec, SylvesterSpec])
@every_direction
def test_the_closed_direction_searches_no_root(spec, closed, monkeypatch):
    def search(*_: object) -> None:
        raise AssertionError("searched")

    for module in ("planar", "sylvester"):
        monkeypatch.setattr(f"flows.families.{module}.unbend", search)
    layers = _layers(spec(layers=2, closed=closed), 3)
    directions = [layers.inverse, layers.forward]
    quick, slow = directions if closed == "density" else reversed(directions)
    quick(draw(4, 3))
    with pytest.raises(AssertionError, match="searched"):
        slow(draw(4, 3))


@every_spec
def test_new_flows_are_near_the_identity(spec):
    x = draw(500, 6)
    with torch.no_grad():
        u, log_det = _layers(spec(), 6).inverse(x)
    gaussian = 0.5 * (u.square() - x.square()).sum(dim=1).mean() - log_det.mean()
    assert abs(float(gaussian)) < 1


@every_dtype
def test_a_bend_is_undone_at_all_gains(dtype):
    gain = torch.logspace(-12, 6, 73, dtype=dtype)[:, None]
    size = torch.logspace(-9, 4, 53, dtype=dtype)
    y = torch.cat([-size, torch.zeros(1, dtype=dtype), size]).repeat(73, 1)
    a, log_slope = unbend(y, gain)
    back, expected = bend(a.double(), gain.double())
    close = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(back, y.double(), rtol=close, atol=close)
    torch.testing.assert_close(log_slope.double(), -expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(a.sign(), y.sign())


def test_derivatives_of_an_undone_bend_equal_finite_differences():
    inputs = [draw(3, 2).requires_grad_(), positive(draw(1, 2, seed=1)).requires_grad_()]
    assert torch.autograd.gradcheck(unbend, inputs)
    assert torch.autograd.gradgradcheck(unbend, inputs)


@every_dtype
def test_the_slope_of_a_bend_keeps_its_digits_when_it_is_nearly_flat(dtype):
    gain = torch.tensor([1e-30, 1e-6, 1.0, 1e6], dtype=dtype)
    a = torch.tensor([0.0, 1e-4, 0.5, 20.0], dtype=dtype)[:, None]
    _, log_slope = bend(a, gain)
    exact = torch.log(a.double().tanh().square() + gain.double() * a.double().cosh() ** -2)
    torch.testing.assert_close(log_slope.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bend_log_slope(torch.tanh(a), gain), log_slope)


def test_the_slope_of_a_bend_is_autograds():
    a = draw(50, 1).squeeze(1).requires_grad_()
    gain = positive(3 * draw(50, 1, seed=1).squeeze(1))
    value, log_slope = bend(a, gain)
    (slope,) = torch.autograd.grad(value.sum(), a)
    torch.testing.assert_close(log_slope.exp(), slope)


def test_the_positive_function_is_1_at_0_and_never_0():
    torch.testing.assert_close(positive(torch.zeros(1)), torch.ones(1))
    assert bool((positive(torch.tensor([-80.0, 80.0])) > 0).all())
