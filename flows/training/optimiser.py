"""Optimisers of `torch.optim` in their functional form, and their moments as named tensors.

The classes of `torch.optim` import PyTorch's compiler at their first use, which takes a second of
processor time in each process that trains; their functions do not.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from flows.training.options import Optimiser

_MOMENTS: dict[Optimiser, tuple[str, ...]] = {
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "adagrad": ("step", "sum"),
    "sgd": (),
}


class GradientDescent:
    """Steps of an optimiser along the gradients of parameters, fused where torch has a kernel.

    Args:
        parameters: Parameters to change, all on one device.
        name: Optimiser that decides the steps.
        learning_rate: Length of a step.
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
        self.learning_rate = learning_rate
        self._parameters = list(parameters)
        self._name = name
        self._weight_decay = weight_decay
        device = self._parameters[0].device.type
        self._fused = device == "cpu" or (device == "cuda" and name != "adagrad")
        self._names = _MOMENTS[name]
        self._count = torch.zeros((), device=device if self._fused else "cpu")
        self._moments: dict[int, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self) -> None:
        """Move each parameter that has a gradient."""
        moved: list[Tensor] = []
        gradients: list[Tensor] = []
        moments: list[dict[str, Tensor]] = []
        for index, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                moved.append(parameter)
                gradients.append(parameter.grad)
                moments.append(self._moments.setdefault(index, {}) or self._begin(index))
        with torch.no_grad():
            self._move(
                moved, gradients, {name: [of[name] for of in moments] for name in self._names}
            )

    def _move(
        self, moved: list[Tensor], gradients: list[Tensor], moments: dict[str, list[Tensor]]
    ) -> None:
        options: dict[str, Any] = {
            "lr": self.learning_rate,
            "weight_decay": self._weight_decay,
            "maximize": False,
            "fused": self._fused,
        }
        match self._name:
            case "sgd":
                buffers: list[Tensor | None] = [None] * len(moved)
                options |= {"momentum": 0.0, "dampening": 0.0, "nesterov": False}
                sgd(moved, gradients, buffers, **options)
            case "adagrad":
                options |= {"lr_decay": 0.0, "eps": 1e-10}
                adagrad(moved, gradients, moments["sum"], moments["step"], **options)
            case _:
                options |= {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False}
                options["decoupled_weight_decay"] = self._name == "adamw"
                first, second = moments["exp_avg"], moments["exp_avg_sq"]
                adam(moved, gradients, first, second, [], moments["step"], **options)

    def _begin(self, index: int) -> dict[str, Tensor]:
        """Return the moments of a parameter that has not moved yet."""
        parameter, moments = self._parameters[index], self._moments[index]
        for name in self._names:
            moments[name] = torch.zeros_like(self._count if name == "step" else parameter)
        return moments

    def tensors(self) -> dict[str, Tensor]:
        """Return a copy of the moments of each parameter, named `index/moment`."""
        return {
            f"{index}/{name}": value.clone()
            for index, moments in self._moments.items()
            for name, value in moments.items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Load the moments of another optimiser of this kind, for the same parameters."""
        self._moments = {}
        for key, value in tensors.items():
            index, _, name = key.partition("/")
            like = self._count if name == "step" else self._parameters[int(index)]
            moments = self._moments.setdefault(int(index), {})
            moments[name] = value.to(device=like.device, dtype=like.dtype, copy=True)
