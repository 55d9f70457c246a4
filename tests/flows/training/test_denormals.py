"""What training takes for zero."""

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
from flows.training.denormals import denormals_as_zero


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
