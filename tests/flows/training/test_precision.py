"""In which precision training steps multiply, and what they take for zero."""

import pytest
import torch

from flows import (
    FitOptions,
    MafSpec,
    PlanarSpec,
    Potential,
    VariationalOptions,
    build,
    fit,
    fit_variational,
)
from flows.training.precision import denormals_as_zero, medium_is_exact, products

CPU = torch.device("cpu")
LARGE = 2**24


def asked(*, mixed=False, device=CPU, multiplications=LARGE):
    with products(mixed=mixed, device=device, multiplications=multiplications):
        return torch.get_float32_matmul_precision()


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr("flows.training.precision.medium_is_exact", lambda: True)


@pytest.mark.usefixtures("exact")
def test_large_products_go_where_nothing_is_lost():
    assert asked() == "medium"
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("choice", [{"multiplications": 1000}, {"device": torch.device("cuda")}])
def test_others_stay_as_they_are(choice):
    assert asked(**choice) == "highest"
    assert asked(**choice, mixed=True) == "medium"


def test_where_something_is_lost_only_mixed_precision_takes_it(monkeypatch):
    monkeypatch.setattr("flows.training.precision.medium_is_exact", lambda: False)
    assert asked() == "highest"
    assert asked(mixed=True) == "medium"


def test_the_precision_comes_back_after_an_error():
    with pytest.raises(ZeroDivisionError), products(mixed=True, device=CPU, multiplications=1):
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == "highest"


def test_bfloat16_would_be_found_out():
    """The product that is looked at, rounded as bfloat16 rounds, is not the exact one."""
    factor = torch.full((4, 4), 1 + 2.0**-12)
    assert torch.equal(factor.bfloat16().float(), torch.ones(4, 4))


@pytest.mark.skipif(not medium_is_exact(), reason="this processor has units for bfloat16")
@pytest.mark.parametrize("shape", [(250, 9, 500), (128, 1284, 784), (512, 64, 1512)])
def test_what_is_called_exact_is_as_near_as_float32(shape):
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, inner, generator=generator)
    right = torch.randn(inner, columns, generator=generator)
    wanted = left.double() @ right.double()
    errors = []
    for mixed in (False, True):
        with products(mixed=mixed, device=CPU, multiplications=1):
            errors.append((left @ right - wanted).abs().max())
    assert errors[1] < 4 * errors[0]


def test_a_wide_flow_trains_to_the_same_likelihood_either_way(monkeypatch):
    rows = torch.randn(600, 4, generator=torch.Generator().manual_seed(0)).cumsum(dim=1)
    reached = []
    for exact in (False, medium_is_exact()):
        monkeypatch.setattr("flows.training.precision.medium_is_exact", lambda exact=exact: exact)
        flow = build(MafSpec(layers=2, hidden=[160, 160]), 4, seed=1)
        options = FitOptions(batch_size=200, max_epochs=3, patience=None)
        *_, last = fit(flow, rows[:400], rows[400:], options=options)
        reached.append(last.best_validation_log_likelihood)
    assert reached[1] == pytest.approx(reached[0], abs=1e-3)


def takes_denormals_for_zero():
    return bool(torch.full((1,), torch.finfo(torch.float32).tiny) / 2 == 0)


flushes = pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this processor cannot take denormals for zero"
)


@flushes
def test_denormals_are_zero_inside_alone():
    with denormals_as_zero():
        assert takes_denormals_for_zero()
        with denormals_as_zero():
            pass
        assert takes_denormals_for_zero()
    assert not takes_denormals_for_zero()


@flushes
def test_denormals_come_back_after_an_error():
    with pytest.raises(ZeroDivisionError), denormals_as_zero():
        raise ZeroDivisionError
    assert not takes_denormals_for_zero()


@flushes
def test_training_takes_denormals_for_zero():
    seen = []
    rows = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    for _ in fit(
        build(MafSpec(layers=1, hidden=[4]), 2, seed=0),
        rows,
        rows,
        options=FitOptions(batch_size=32, max_epochs=2),
        on_batch=lambda _done, _batches: seen.append(takes_denormals_for_zero()),
    ):
        assert not takes_denormals_for_zero()
    for _ in fit_variational(
        build(PlanarSpec(layers=1, closed="sampling"), 2, seed=0),
        Potential("U1"),
        options=VariationalOptions(iterations=4, report_every=2),
        on_step=lambda _done, _steps: seen.append(takes_denormals_for_zero()),
    ):
        assert not takes_denormals_for_zero()
    assert len(seen) >= 8
    assert all(seen)
