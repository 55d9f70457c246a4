"""Optimisers go on from their moments to the bit."""

from typing import get_args

import pytest
import torch
from torch import nn

from flows.training.optimiser import GradientDescent
from flows.training.options import Optimiser


def some_parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(size, generator=generator)) for size in ((3, 2), (4,), ())]


def step(optimiser: GradientDescent, parameters: list[nn.Parameter], number: int) -> None:
    optimiser.zero_grad()
    # The last one has a gradient only now and then.
    used = parameters[: 2 + number % 2]
    losses = [(parameter - number).square().sum() for parameter in used]
    torch.stack(losses).sum().backward()
    optimiser.step()


@pytest.mark.parametrize("name", get_args(Optimiser))
def test_restored_moments_go_on_to_the_bit(name: Optimiser) -> None:
    stopped, whole = some_parameters(), some_parameters()
    first, undisturbed = (
        GradientDescent(of, name, learning_rate=0.1, weight_decay=0.1) for of in (stopped, whole)
    )
    for number in range(5):
        if number == 3:
            moments = first.tensors()
            first = GradientDescent(stopped, name, learning_rate=0.1, weight_decay=0.1)
            first.restore(moments)
        step(first, stopped, number)
        step(undisturbed, whole, number)
    assert all(map(torch.equal, stopped, whole))
