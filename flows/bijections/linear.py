"""Affine maps initialised as `torch.nn.Linear` does, from a given generator."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from flows.cost import FLOAT_BYTES, Cost, Way

ActivationName = Literal["relu", "tanh", "elu", "gelu"]
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


def count_linear(widths: list[int]) -> int:
    """Return the number of weights and biases of affine maps between these widths."""
    return sum((below + 1) * above for below, above in pairwise(widths))


def network_cost(widths: Sequence[int], *, networks: int = 1) -> Cost:
    """Return the cost of parallel networks: weights, and activations per row.

    Args:
        widths: Units of the input, of each hidden layer and of the output.
        networks: Number of networks.
    """
    parameters = networks * count_linear(list(widths))
    hidden, out = sum(widths[1:-1]), widths[-1]
    way = Way(
        # An activation keeps its input or its output, the next layer its input.
        kept_row=FLOAT_BYTES * networks * (widths[0] + 2 * hidden + out),
        used_row=FLOAT_BYTES * (widths[0] + 4 * max(widths[1:]) + 2 * networks * out),
        operations=2 * networks * len(widths) + 8,
    )
    return Cost.both(
        way,
        parameters=parameters,
        layers=max(1, len(widths) - 2),
        width=max(widths[1:-1], default=0),
    )


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
