"""Affine maps initialised as `torch.nn.Linear` does, from a given generator."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from flows.specs.spec import ActivationName

ACTIVATIONS: dict[ActivationName, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "elu": F.elu,
    "gelu": F.gelu,
}


def uniform(shape: tuple[int, ...], *, fan_in: int, generator: torch.Generator) -> Tensor:
    """Return numbers uniform within fan_in^-1/2, PyTorch's default initialisation."""
    bound = fan_in**-0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def initial_linear(
    in_width: int, out_width: int, generator: torch.Generator, *, fan_in: int | None = None
) -> tuple[Float[Tensor, "out_width in_width"], Float[Tensor, " out_width"]]:
    """Return initial weight and bias; `fan_in` defaults to `in_width`."""
    fan_in = fan_in or in_width
    weight = uniform((out_width, in_width), fan_in=fan_in, generator=generator)
    return weight, uniform((out_width,), fan_in=fan_in, generator=generator)


def linear(in_width: int, out_width: int, generator: torch.Generator) -> nn.Linear:
    """Return an affine map with that initialisation."""
    layer = nn.Linear(in_width, out_width, device="meta")
    weight, bias = initial_linear(in_width, out_width, generator)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def network(widths: list[int], generator: torch.Generator) -> nn.ModuleList:
    """Return affine maps from each width to the next."""
    return nn.ModuleList(linear(below, above, generator) for below, above in pairwise(widths))


def apply_network(
    layers: nn.ModuleList, h: Tensor, activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the network's outputs, with the activation between its layers."""
    *hidden, out = layers
    for layer in hidden:
        h = activation(layer(h))
    result: Tensor = out(h)
    return result


def network_parameters(layers: nn.ModuleList) -> tuple[list[Tensor], list[Tensor]]:
    """Return weights and biases, layer by layer."""
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return [layer.weight for layer in linears], [layer.bias for layer in linears]
