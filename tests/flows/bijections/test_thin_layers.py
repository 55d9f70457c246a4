"""What planar, radial and Sylvester flows have in common."""

import math

import pytest
import torch
from torch import Tensor

from flows import (
    FitOptions,
    PlanarSpec,
    RadialSpec,
    SylvesterSpec,
    build,
    fit,
)
from flows.bijections.base import Bijection
from flows.bijections.roots import invert
from flows.bijections.thin_layers import LayerParameters, bend, bend_log_slope, positive, unbend

Spec = PlanarSpec | RadialSpec | SylvesterSpec

SPECS: list[type[Spec]] = [PlanarSpec, RadialSpec, SylvesterSpec]
every_spec = pytest.mark.parametrize("spec", SPECS)
every_direction = pytest.mark.parametrize("closed", ["density", "sampling"])
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def _layers(spec: Spec, dim: int, *, context_dim: int = 0, spread: float = 0.0) -> Bijection:
    generator = torch.Generator().manual_seed(3)
    layers = spec.build(dim, generator, context_dim)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=spread)
    return layers.double()


def _rows(rows: int, dim: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=generator, dtype=torch.float64)


@every_spec
@every_direction
def test_strongly_bent_layers_are_inverted(spec, closed):
    for dim in (1, 2, 7):
        layers = _layers(spec(layers=8, closed=closed), dim, spread=2.0)
        u = _rows(200, dim)
        with torch.no_grad():
            x, log_det = layers.forward(u)
            back, log_det_back = layers.inverse(x)
        torch.testing.assert_close(back, u, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(log_det_back, -log_det, rtol=1e-5, atol=1e-5)


@every_spec
@every_direction
def test_a_context_conditions_every_number_of_every_layer(spec, closed):
    layers = _layers(spec(layers=3, closed=closed), 4, context_dim=2)
    context = _rows(30, 2, seed=1)
    for direction in (layers.forward, layers.inverse):
        layers.zero_grad()
        moved, log_det = direction(_rows(30, 4), context)
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
    quick(_rows(4, 3))
    with pytest.raises(AssertionError, match="searched"):
        slow(_rows(4, 3))


@every_spec
def test_a_row_that_is_not_finite_spoils_no_other(spec):
    layers = _layers(spec(layers=3), 3)
    x = _rows(5, 3)
    clean = layers.forward(x)[0]
    x[1, 0], x[3, 2] = math.nan, math.inf
    spoilt = layers.forward(x)[0]
    assert not bool(spoilt[[1, 3]].isfinite().all(dim=1).any())
    torch.testing.assert_close(spoilt[[0, 2, 4]], clean[[0, 2, 4]])


@every_spec
def test_new_flows_are_near_the_identity(spec):
    x = _rows(500, 6)
    with torch.no_grad():
        u, log_det = _layers(spec(), 6).inverse(x)
    gaussian = 0.5 * (u.square() - x.square()).sum(dim=1).mean() - log_det.mean()
    assert abs(float(gaussian)) < 1


@every_spec
def test_a_deep_stack_learns_two_moons(spec):
    rows, validation = _moons(1000, seed=1), _moons(1000, seed=2)
    flow = build(spec(), 2, standardise=(rows.mean(dim=0), rows.std(dim=0)), seed=0)
    options = FitOptions(learning_rate=0.02, batch_size=100, max_epochs=12, seed=0)
    for _ in fit(flow, rows, validation, options=options):
        pass
    gaussian = torch.distributions.MultivariateNormal(rows.mean(dim=0), torch.cov(rows.T))
    with torch.no_grad():
        score = float(flow.log_prob(validation).mean())
    assert score > float(gaussian.log_prob(validation).mean()) + 0.3


def _moons(rows: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(rows, generator=generator, dtype=torch.float64)
    moon = torch.stack([angle.cos(), angle.sin() - 0.25], dim=1)
    upper = torch.rand(rows, 1, generator=generator) < 0.5
    moon = torch.where(upper, moon, torch.tensor([1.0, 0.0]) - moon)
    return moon + 0.08 * torch.randn(rows, 2, generator=generator, dtype=torch.float64)


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


def test_a_bend_is_undone_as_by_the_general_search():
    y, gain = 4 * _rows(50, 4), positive(3 * _rows(50, 4, seed=1))
    torch.testing.assert_close(unbend(y, gain), invert(bend, y, gain), rtol=1e-10, atol=1e-10)


def test_derivatives_of_an_undone_bend_equal_finite_differences():
    inputs = [_rows(3, 2).requires_grad_(), positive(_rows(1, 2, seed=1)).requires_grad_()]
    assert torch.autograd.gradcheck(unbend, inputs)
    assert torch.autograd.gradgradcheck(unbend, inputs)


def test_undoing_a_bend_takes_few_steps(monkeypatch):
    y, gain = 3 * _rows(50, 4), positive(2 * _rows(50, 4, seed=1))
    expected = unbend(y, gain)[0]
    monkeypatch.setattr("flows.bijections.thin_layers.MAX_BEND_STEPS", 12)
    assert torch.equal(unbend(y, gain)[0], expected)


@every_dtype
def test_the_slope_of_a_bend_keeps_its_digits_when_it_is_nearly_flat(dtype):
    gain = torch.tensor([1e-30, 1e-6, 1.0, 1e6], dtype=dtype)
    a = torch.tensor([0.0, 1e-4, 0.5, 20.0], dtype=dtype)[:, None]
    _, log_slope = bend(a, gain)
    exact = torch.log(a.double().tanh().square() + gain.double() * a.double().cosh() ** -2)
    torch.testing.assert_close(log_slope.double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bend_log_slope(torch.tanh(a), gain), log_slope)


def test_the_slope_of_a_bend_is_autograds():
    a = _rows(50, 1).squeeze(1).requires_grad_()
    gain = positive(3 * _rows(50, 1, seed=1).squeeze(1))
    value, log_slope = bend(a, gain)
    (slope,) = torch.autograd.grad(value.sum(), a)
    torch.testing.assert_close(log_slope.exp(), slope)


def test_the_positive_function_is_1_at_0_and_never_0():
    torch.testing.assert_close(positive(torch.zeros(1)), torch.ones(1))
    assert bool((positive(torch.tensor([-80.0, 80.0])) > 0).all())


def test_layer_parameters_of_one_row_stand_for_all():
    generator = torch.Generator().manual_seed(0)
    parameters = LayerParameters(torch.ones(4, 3), context_dim=0, generator=generator)
    assert parameters(None).shape == (4, 1, 3)
    conditional = LayerParameters(torch.ones(4, 3), context_dim=2, generator=generator)
    assert conditional(torch.zeros(5, 2)).shape == (4, 5, 3)
    torch.testing.assert_close(conditional(torch.zeros(5, 2)), torch.ones(4, 5, 3))
