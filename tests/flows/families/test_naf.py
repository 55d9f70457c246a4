import math

import pytest
import torch
from torch import Tensor

from flows import NafSpec, build, evaluate
from flows.bijections.transformers import Transformer
from flows.families.naf import DeepDenseSigmoidal, DeepSigmoidal
from tests.flows.cases import draw, trained

UNITS = 6
MAPS = {"dsf": DeepSigmoidal(UNITS), "ddsf": DeepDenseSigmoidal(UNITS, torch.Generator())}
every_map = pytest.mark.parametrize("name", list(MAPS))


def _map(name: str, dtype: torch.dtype = torch.float64) -> Transformer:
    if name == "dsf":
        return DeepSigmoidal(UNITS)
    generator = torch.Generator().manual_seed(1)
    return DeepDenseSigmoidal(UNITS, generator).to(dtype).requires_grad_(requires_grad=False)


def _parameters(transformer: Transformer, numbers: int, *, scale: float = 1.0) -> Tensor:
    return scale * draw(transformer.outputs, numbers)


def _sigmoid_sum(x: Tensor, slope: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
    return torch.logit((weight * torch.sigmoid(slope * x + shift)).sum(dim=0))


def _positive(raw: Tensor) -> Tensor:
    return torch.nn.functional.softplus(raw + math.log(math.expm1(0.999))) + 1e-3


def test_dsf_is_equation_8():
    dsf, x = _map("dsf"), torch.linspace(-3, 3, 50, dtype=torch.float64)
    raw, shift, logits = (given := _parameters(dsf, 50)).chunk(3)
    expected = _sigmoid_sum(x, _positive(raw), shift, logits.softmax(dim=0))
    torch.testing.assert_close(dsf.inverse(x, given)[0], expected)


def test_ddsf_is_two_dense_layers():
    ddsf, x = _map("ddsf"), torch.linspace(-3, 3, 50, dtype=torch.float64)
    assert isinstance(ddsf, DeepDenseSigmoidal)
    given = _parameters(ddsf, 50)
    found = ddsf.inverse(x, given)[0]
    for i in range(50):
        a1, b1, w1, a2, b2, v2, w2 = given[:, i].chunk(7)
        inner = torch.sigmoid(_positive(a1) * x[i] + b1)
        h = torch.logit((ddsf.mix + w1).softmax(dim=1) @ inner)
        z = _positive(a2) * ((ddsf.read + v2).softmax(dim=1) @ h) + b2
        expected = torch.logit(w2.softmax(dim=0) @ torch.sigmoid(z))
        torch.testing.assert_close(found[i], expected)


@every_map
def test_parameters_of_0_are_the_identity(name):
    transformer, x = _map(name), torch.linspace(-30, 30, 101, dtype=torch.float64)
    given = torch.zeros(transformer.outputs, 101, dtype=torch.float64)
    u, log_det = transformer.inverse(x, given)
    torch.testing.assert_close(u, x)
    torch.testing.assert_close(log_det, torch.zeros_like(x), rtol=0, atol=1e-12)


@every_map
@pytest.mark.parametrize("size", [1e2, 1e4, 1e8, 1e30])
def test_far_tails_are_finite_and_exact_in_float32(name, size):
    x = torch.tensor([size, -size], dtype=torch.float64)
    given = _parameters(_map(name), 2)
    u, log_det = _map(name).inverse(x, given)
    rough, rough_log_det = _map(name, torch.float32).inverse(x.float(), given.float())
    torch.testing.assert_close(rough.double(), u, rtol=1e-5, atol=0)
    torch.testing.assert_close(rough_log_det.double(), log_det, rtol=0, atol=1e-4)


@every_map
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_root_of_what_the_map_gives_is_where_it_came_from(name, dtype):
    transformer = _map(name, dtype)
    given = _parameters(transformer, 300).to(dtype)
    x = torch.linspace(-200, 200, 300, dtype=dtype)
    u, log_det = transformer.inverse(x, given)
    back, back_log_det = transformer.forward(u, given)
    close = 1e-9 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(back, x, rtol=close, atol=close)
    torch.testing.assert_close(back_log_det, -log_det, rtol=close, atol=20 * close)


@every_map
def test_what_is_not_finite_gives_nan(name):
    transformer = _map(name)
    x = torch.tensor([math.nan, math.inf, -math.inf, 1.0], dtype=torch.float64)
    for direction in (transformer.inverse, transformer.forward):
        result, _ = direction(x, _parameters(transformer, 4))
        assert result.isfinite().tolist() == [False, False, False, True]


@every_map
def test_no_mass_leaks_in_float32(name):
    """What lies between two points is what lies between their noises."""
    transformer = _map(name, torch.float32)
    given = _parameters(transformer, 1).float().expand(-1, 200_001)
    x = torch.linspace(-400, 400, 200_001)
    density = transformer.log_density(x, given).double().exp()
    u = transformer.inverse(x, given)[0].double()
    mass = float(torch.special.ndtr(u[-1]) - torch.special.ndtr(u[0]))
    assert float(density.sum()) * 800 / 200_000 == pytest.approx(mass, abs=1e-5)
    assert mass > 0.999


def test_a_density_of_two_far_modes_is_learnt():
    sides = torch.randint(0, 2, (2000, 1), generator=torch.Generator().manual_seed(0)) * 6.0 - 3
    x = sides + 0.5 * draw(2000, 1)
    flow = build(NafSpec(layers=1, units=8), 1, standardise=(x.mean(0), x.std(0)), seed=0)
    trained(flow, x[:1500], x[1500:], learning_rate=0.1, batch_size=200, max_epochs=12)
    best = -math.log(2) - 0.5 * math.log(2 * math.pi * math.e * 0.25)
    assert evaluate(flow, x[1500:]).mean == pytest.approx(best, abs=0.2)


def test_closed_chooses_the_direction_without_a_search():
    noise = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).double()
    density = build(NafSpec(layers=1, hidden=[8]), 3, seed=0).double()
    sampling = build(NafSpec(layers=1, hidden=[8], closed="sampling"), 3, seed=0).double()
    with torch.no_grad():
        torch.testing.assert_close(density.inverse(noise), sampling.forward(noise))
