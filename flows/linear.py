"""Affine maps initialised as `torch.nn.Linear` does, from a generator of our own."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def initial_linear(
    in_width: int, out_width: int, generator: torch.Generator
) -> tuple[Float[Tensor, "out_width in_width"], Float[Tensor, " out_width"]]:
    """Weight and bias, uniform within in_width^-1/2: the default initialisation of PyTorch."""
    bound = in_width**-0.5
    weight = torch.empty(out_width, in_width).uniform_(-bound, bound, generator=generator)
    return weight, torch.empty(out_width).uniform_(-bound, bound, generator=generator)


def linear(in_width: int, out_width: int, generator: torch.Generator) -> nn.Linear:
    """An affine map with that initialisation."""
    layer = nn.Linear(in_width, out_width, device="meta")
    weight, bias = initial_linear(in_width, out_width, generator)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer
