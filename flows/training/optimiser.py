"""Optimisers of `torch.optim`, with their moments as named tensors."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from flows.training.options import Optimiser

_KINDS: dict[Optimiser, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
}


class GradientDescent:
    """Steps of an optimiser along the gradients of parameters, fused where torch has a kernel.

    Args:
        weight_decay: Weight of the L2 penalty; of `adamw` the decoupled one.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        name: Optimiser,
        *,
        learning_rate: float,
        weight_decay: float = 0.0,
    ) -> None:
        moved = list(parameters)
        device = moved[0].device.type
        fused = device == "cpu" or (device == "cuda" and name != "adagrad")
        self._optimiser = _KINDS[name](
            moved, lr=learning_rate, weight_decay=weight_decay, fused=fused
        )

    @property
    def learning_rate(self) -> float:
        """Length of a step."""
        rate: float = self._optimiser.param_groups[0]["lr"]
        return rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._optimiser.param_groups[0]["lr"] = rate

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._optimiser.zero_grad()

    def step(self) -> None:
        """Move each parameter that has a gradient."""
        self._optimiser.step()

    def tensors(self) -> dict[str, Tensor]:
        """Return a copy of the moments of each parameter, named `index/moment`."""
        return {
            f"{index}/{name}": value.clone()
            for index, moments in self._optimiser.state_dict()["state"].items()
            for name, value in moments.items()
            if value is not None
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Load the moments of another optimiser of this kind, for the same parameters."""
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, _, name = key.partition("/")
            state.setdefault(int(index), {})[name] = value.clone()
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})
