"""Gradients of shares of a batch, which processes compute and rank 0 adds."""

from dataclasses import replace

import pytest
import torch

from flows import (
    BatchNormSpec,
    FitOptions,
    FlowSpec,
    GaussianMixtureSpec,
    MafSpec,
    MixedColumn,
    MixedSpec,
    NsfSpec,
    build,
)
from flows.training.data_parallel import is_worthwhile
from flows.training.steps import AutogradSteps, Steps, choose_steps

ROWS, DIM = 64, 4
OPTIONS = FitOptions(batch_size=ROWS)


def steps_of(spec: FlowSpec, seed: int, *, compiled: bool) -> Steps:
    flow = build(spec, DIM, seed=seed).train()
    kind = (
        choose_steps(flow, OPTIONS, batch_size=ROWS) if compiled else AutogradSteps(flow, OPTIONS)
    )
    assert isinstance(kind, AutogradSteps) != compiled
    return kind


def table() -> torch.Tensor:
    return torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    "spec", [MafSpec(layers=2, hidden=[8], batch_norm=None), NsfSpec(layers=2, hidden=[8])]
)
def test_gradients_of_shares_add_up_to_that_of_the_batch(spec: FlowSpec, *, compiled: bool) -> None:
    one, other = (steps_of(spec, seed, compiled=compiled) for seed in (0, 1))
    rows = table()
    whole = float(one.compute(rows))
    gradient = one.gradient().clone()
    assert gradient.abs().max() > 0

    other.set_weights(one.weights())
    parts, total = torch.zeros_like(gradient), 0.0
    for share in rows.tensor_split(3):
        total += float(other.compute(share))
        parts += other.gradient() * (len(share) / ROWS)

    assert total == pytest.approx(whole, rel=1e-5)
    assert torch.allclose(parts, gradient, rtol=1e-3, atol=1e-5)
    other.set_gradient(gradient)
    for steps in (one, other):
        steps.learning_rate = 1e-2
        steps.move(1)
    assert torch.equal(one.weights(), other.weights())


def test_sharing_pays_for_large_steps_alone() -> None:
    small, large = (
        build(MafSpec(layers=2, hidden=[units, units]), DIM, seed=0) for units in (16, 512)
    )
    assert is_worthwhile(large, batch_size=1000, processes=2)
    assert not is_worthwhile(small, batch_size=1000, processes=2)
    assert not is_worthwhile(large, batch_size=999, processes=2)


def test_mixtures_and_batch_norms_of_mixed_flows_are_not_shared() -> None:
    columns = [MixedColumn(levels=2), MixedColumn(), MixedColumn(), MixedColumn()]
    maf = MafSpec(layers=2, hidden=[512, 512], batch_norm=None)
    mixture = GaussianMixtureSpec(components=4)
    for flow, shared in (
        (maf, True),
        (replace(maf, batch_norm=BatchNormSpec()), False),
        (mixture, False),
    ):
        mixed = build(MixedSpec(columns=columns, flow=flow, hidden=[2048]), DIM, seed=0)
        assert is_worthwhile(mixed, batch_size=10_000, processes=2) == shared
    assert not is_worthwhile(build(mixture, DIM, seed=0), batch_size=10**8, processes=2)


def test_the_largest_batch_is_one_of_as_few_as_there_may_be() -> None:
    options = FitOptions(batch_size=300)
    assert [options.largest_batch(rows) for rows in (1, 300, 301, 480, 900, 901)] == [
        *(1, 300, 151, 240, 300, 226)
    ]
