import math

import pytest
import torch
from torch import Tensor

from flows import NsfSpec, build
from flows.families.nsf import RationalQuadratic
from flows.specs.nsf import MAX_BINS
from tests.flows.cases import draw, jacobian, trained

BINS = 8
SPLINE = RationalQuadratic(BINS, 5.0)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def parameters(numbers: int, *, scale: float = 1.0, bins: int = BINS) -> Tensor:
    return scale * draw(3 * bins - 1, numbers)


@pytest.mark.parametrize("bins", [2, 3, 8, MAX_BINS])
@pytest.mark.parametrize("bound", [0.1, 5.0, 1e6])
def test_the_directions_cancel_up_to_the_seams_and_beyond(bins, bound):
    spline = RationalQuadratic(bins, bound)
    x = bound * torch.linspace(-1.5, 1.5, 1001, dtype=torch.float64)
    given = parameters(1001, bins=bins)
    u, log_det = spline.inverse(x, given)
    back, back_log_det = spline.forward(u, given)
    torch.testing.assert_close(back, x, rtol=1e-8, atol=1e-9 * bound)
    torch.testing.assert_close(back_log_det, -log_det, rtol=1e-6, atol=1e-6)


def test_one_spline_rises_and_has_no_jumps():
    x = torch.linspace(-5.2, 5.2, 40_001, dtype=torch.float64)
    u, log_det = SPLINE.inverse(x, parameters(1, scale=2).expand(-1, len(x)))
    steps = u.diff()
    assert bool((steps > 0).all())
    trapezoid = (log_det.exp()[1:] + log_det.exp()[:-1]) / 2 * x.diff()
    torch.testing.assert_close(trapezoid, steps, rtol=0.1, atol=1e-5)
    assert float(u[0]) == -5.2
    assert float(u[-1]) == 5.2


def test_parameters_of_0_are_the_identity():
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    for direction in (SPLINE.inverse, SPLINE.forward):
        result, log_det = direction(x, torch.zeros(3 * BINS - 1, 101, dtype=torch.float64))
        torch.testing.assert_close(result, x)
        torch.testing.assert_close(log_det, torch.zeros_like(x))


@every_dtype
@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_what_is_not_in_the_interval_passes_and_nan_stays(dtype, direction):
    largest = torch.finfo(dtype).max
    values = [math.nan, math.inf, -math.inf, largest, -largest, 5.1, 0.0]
    x = torch.tensor(values, dtype=dtype)
    result, log_det = getattr(SPLINE, direction)(x, parameters(len(x), scale=5).to(dtype))
    torch.testing.assert_close(result[:-1], x[:-1], rtol=0, atol=0, equal_nan=True)
    assert log_det[:-1].tolist() == [0] * 6
    assert abs(float(result[-1])) < 5


@pytest.mark.parametrize("scale", [1.0, 5.0, 50.0, 1e4])
def test_float32_holds_near_knots_and_for_extreme_splines(scale):
    """The error of a root is that of the number given, seen through the slope."""
    given = parameters(4000, scale=scale).float()
    u = torch.linspace(-5, 5, 4000)
    x, log_det = SPLINE.forward(u, given)
    assert bool(x.isfinite().all())
    assert bool(log_det.isfinite().all())
    again, log_slope = SPLINE.inverse(x.double(), given.double())
    rounding = 1e-5 * (1 + log_slope.exp())
    assert bool(((again - u).abs() <= rounding).all())


def test_knots_themselves_have_one_value_from_both_sides():
    given = torch.zeros(3 * BINS - 1, 3)
    knot = -5 + 10 / BINS
    x = torch.tensor([knot - 1e-6, knot, knot + 1e-6])
    torch.testing.assert_close(SPLINE.inverse(x, given)[0], x, rtol=0, atol=2e-6)


@every_dtype
def test_gradients_are_finite_everywhere(dtype):
    x = torch.tensor([math.inf, 1e30, 5, 5 - 1e-7, 0, -5, -1e30], dtype=dtype, requires_grad=True)
    given = parameters(7, scale=20).to(dtype).requires_grad_()
    for direction in (SPLINE.inverse, SPLINE.forward):
        result, log_det = direction(x, given)
        grads = torch.autograd.grad(result[1:].sum() + log_det.sum(), [x, given])
        assert all(bool(grad.isfinite().all()) for grad in grads)


def test_coupling_layers_swap_their_halves():
    flow = build(NsfSpec(layers=1, hidden=[8], coupling=True), 4, seed=0)
    x = torch.tensor([[0.3, -0.4, 1.2, 0.7]])
    u = flow.inverse(x)[0]
    assert (u == x).tolist() == [[True, False, True, False]]
    flow = build(NsfSpec(layers=2, hidden=[8], coupling=True), 4, seed=0)
    assert not bool((flow.inverse(x)[0] == x).any())


@pytest.mark.parametrize("layers", [{"layers": 2}, {"layers": 1, "affine_layers": 1}], ids=str)
def test_two_layers_have_opposite_orders(layers):
    flow = build(NsfSpec(hidden=[16], **layers), 3, seed=0).double()
    found = jacobian(flow, torch.tensor([0.3, -0.4, 1.2], dtype=torch.float64))
    assert bool((found != 0).all())


def test_linear_maps_take_up_what_splines_do_not_reach():
    """Features that are all but the same: given the first, the others vary by a hundredth."""
    rows = (draw(3000, 1).repeat(1, 4) + 0.01 * draw(3000, 4, seed=1)).float()
    covariance, reached = torch.ones(4, 4) + 1e-4 * torch.eye(4), []
    wanted = -torch.distributions.MultivariateNormal(torch.zeros(4), covariance).entropy()
    options = {"learning_rate": 3e-2, "max_epochs": 20, "schedule": "cosine"}
    for linear in (False, True):
        flow = build(NsfSpec(layers=1, hidden=[16], bins=4, linear=linear), 4, seed=0)
        last = trained(flow, rows[:2000], rows[2000:], **options)
        reached.append(last.best_validation_log_likelihood)
    assert reached[0] < float(wanted) - 0.7
    assert reached[1] == pytest.approx(float(wanted), abs=0.3)


def test_bins_out_of_range_are_refused(unchecked):
    for bins in (1, MAX_BINS + 1):
        with pytest.raises(ValueError, match="bins"):
            unchecked(NsfSpec, bins=bins)
