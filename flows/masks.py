"""Degrees and masks of masked autoencoders (Germain et al. 2015, "MADE").

Inputs and outputs have the degrees 1 to `dim`, in their natural order; another order is a
permutation beside the layer. A hidden unit of degree m may see the inputs 1 to m.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def input_degrees(dim: int) -> Int[Tensor, " dim"]:
    """The degrees of inputs and outputs: 1 to `dim`."""
    return torch.arange(1, dim + 1)


def hidden_degrees(width: int, dim: int) -> Int[Tensor, " width"]:
    """Degrees from 1 to `dim - 1` in rising order, spread evenly over the units of a layer.

    That they rise is a promise: samplers cut layers into ranges of units by it.

    Args:
        width: units in the layer.
        dim: features, at least 2: one feature leaves no valid degree.
    """
    return torch.linspace(1, dim - 1, width, dtype=torch.float64).round().long()


def units_known(width: int, dim: int) -> list[int]:
    """How many units of a hidden layer have a degree of at most 0, 1, ..., dim."""
    degrees = hidden_degrees(width, dim)
    known: list[int] = torch.searchsorted(degrees, torch.arange(dim + 1), right=True).tolist()
    return known


def hidden_mask(
    above: Int[Tensor, " out_width"], below: Int[Tensor, " in_width"]
) -> Float[Tensor, "out_width in_width"]:
    """1 where a hidden unit may see a unit of the layer below: degree >= degree."""
    return (above[:, None] >= below[None, :]).float()


def output_mask(
    above: Int[Tensor, " dim"], below: Int[Tensor, " in_width"]
) -> Float[Tensor, "dim in_width"]:
    """1 where an output may see a hidden unit: degree > degree, strictly.

    With >= an output would see its own input, and the "density" would not be normalised.
    """
    return (above[:, None] > below[None, :]).float()
