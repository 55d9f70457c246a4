"""Optimisers of `torch.optim`, and their moments as named tensors."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from flows.training.options import Optimiser

_CLASSES: dict[Optimiser, Callable[..., torch.optim.Optimizer]] = {
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
    """Return the chosen optimiser, fused where torch has a kernel for it."""
    chosen = list(parameters)
    fused = chosen[0].device.type == "cpu" or name != "adagrad"
    return _CLASSES[name](
        chosen,
        lr=learning_rate,
        weight_decay=weight_decay,
        fused=fused and chosen[0].device.type in ("cpu", "cuda"),
    )


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return a copy of the optimiser's state of each parameter, named `index/moment`."""
    return {
        f"{index}/{name}": value.clone()
        for index, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
        if value is not None
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the state of another optimiser of its kind, for the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value.clone()
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def set_learning_rate(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    """Change the learning rate from the next step on."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
