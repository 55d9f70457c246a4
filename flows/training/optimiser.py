"""Optimisers of `torch.optim`, with their moments as named tensors."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from flows.training.options import Optimiser

_KINDS: dict[Optimiser, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}


def make_optimiser(
    parameters: Iterable[nn.Parameter],
    name: Optimiser,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Return an optimiser of parameters on one device, fused where torch has a kernel.

    Args:
        weight_decay: Weight of the L2 penalty; of `adamw` the decoupled one.
    """
    moved = list(parameters)
    device = moved[0].device.type
    fused = device == "cpu" or (device == "cuda" and name != "adagrad")
    return _KINDS[name](moved, lr=learning_rate, weight_decay=weight_decay, fused=fused)


def moments_of(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return a copy of the moments of each parameter, named `index/moment`."""
    return {
        f"{index}/{name}": value.clone()
        for index, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
        if value is not None
    }


def restore_moments(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the moments of another optimiser of this kind, for the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value.clone()
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
