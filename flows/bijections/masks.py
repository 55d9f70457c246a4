"""Degrees and masks of masked autoencoders (Germain et al. 2015, "MADE").

Inputs and outputs have the degrees 1 to `dim`, in their natural order; another order is a
permutation beside the layer. A hidden unit of degree m may see the inputs 1 to m. A context is
seen by every unit; with one, there are hidden units of degree 0, which see nothing else, so that
the first feature depends on it too.
"""

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor


def input_degrees(dim: int) -> Int[Tensor, " dim"]:
    """The degrees of inputs and outputs: 1 to `dim`."""
    return torch.arange(1, dim + 1)


def hidden_degrees(width: int, dim: int, *, lowest: int = 1) -> Int[Tensor, " width"]:
    """Degrees from `lowest` to `dim - 1` in rising order, spread evenly over the units of a layer.

    That they rise is a promise: samplers cut layers into ranges of units by it.

    Args:
        width: units in the layer.
        dim: features, more than `lowest`: one feature alone leaves no valid degree.
        lowest: 1, or 0 if there is a context.
    """
    return torch.linspace(lowest, dim - 1, width, dtype=torch.float64).round().long()


def random_degrees(
    width: int, dim: int, *, lowest: int, generator: torch.Generator
) -> Int[Tensor, " width"]:
    """Degrees drawn evenly from `lowest` to `dim - 1`, in no order (Germain et al. 2015, 4.2)."""
    return torch.randint(lowest, dim, (width,), generator=generator)


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


def made_masks(
    degrees: list[Tensor], outputs: int, *, separate: bool = False, direct: bool = False
) -> list[Tensor]:
    """The masks of a network with several outputs a feature, all first ones before all second.

    Args:
        degrees: of the inputs, then of each hidden layer.
        outputs: numbers a feature.
        separate: each output has hidden units of its own: those of a layer belong to the outputs
            in turns.
        direct: the last mask has a column for each input too, after those of the hidden units:
            the outputs see the inputs without a hidden unit between them, strictly.
    """
    masks = [hidden_mask(above, below) for below, above in pairwise(degrees)]
    masks.append(output_mask(degrees[0], degrees[-1]).repeat(outputs, 1))
    if separate:
        owners = [torch.arange(len(layer)) % outputs for layer in degrees[1:]]
        owners.append(torch.arange(outputs).repeat_interleave(len(degrees[0])))
        for layer, (below, above) in enumerate(pairwise(owners), start=1):
            masks[layer] *= above[:, None] == below[None, :]
    if direct:
        seen = output_mask(degrees[0], degrees[0]).repeat(outputs, 1)
        masks[-1] = torch.cat([masks[-1], seen], dim=1)
    return masks
