"""Optimisers step as the classes of `torch.optim`, to the bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from flows.training.optimiser import GradientDescent
from flows.training.options import Optimiser

CLASSES: dict[Optimiser, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}


def some_parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(size, generator=generator)) for size in ((3, 2), (4,), ())]


def step(optimiser: Any, parameters: list[nn.Parameter], number: int) -> None:
    optimiser.zero_grad()
    # The last one has a gradient only now and then.
    used = parameters[: 2 + number % 2]
    losses = [(parameter - number).square().sum() for parameter in used]
    torch.stack(losses).sum().backward()
    optimiser.step()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_and_moments_are_those_of_torch(name: Optimiser, weight_decay: float) -> None:
    mine, its = some_parameters(), some_parameters()
    ours = GradientDescent(mine, name, learning_rate=0.1, weight_decay=weight_decay)
    theirs = CLASSES[name](its, lr=0.1, weight_decay=weight_decay, fused=True)
    for number in range(5):
        if number == 3:
            moments = ours.tensors()
            ours = GradientDescent(mine, name, learning_rate=0.1, weight_decay=weight_decay)
            ours.restore(moments)
        step(ours, mine, number)
        step(theirs, its, number)
    assert all(map(torch.equal, mine, its))
    state = {
        f"{index}/{key}": value
        for index, moments in theirs.state_dict()["state"].items()
        for key, value in moments.items()
        if value is not None
    }
    assert ours.tensors().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in ours.tensors().items())
