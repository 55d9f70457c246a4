"""Masked networks, which condition each feature on those before it."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from flows.bijections.base import Batch
from flows.bijections.linear import ACTIVATIONS, initial_linear, uniform
from flows.specs.costs import Conditioner
from flows.specs.spec import ActivationName


class _MaskedGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a mask: cheaper than a product with the mask."""

    @staticmethod
    def forward(tensor: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG004  for the gradient
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ANN401, ARG004  torch's signature
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401  torch's signature
        (mask,) = ctx.saved_tensors
        return grad.mul_(mask), None  # the product of a layer, which nothing else reads


class MaskedLinear(nn.Module):
    """Parameters of an affine map some of whose weights are always 0.

    The weights are masked when made, when loaded and when the module changes between training and
    evaluation, and every gradient is masked. So the masked weights stay 0 in an optimiser that
    starts from them, with any weight decay, and the training loop may use them as they are.
    """

    mask: Tensor

    def __init__(
        self,
        mask: Float[Tensor, "out_width in_width"],
        generator: torch.Generator,
        *,
        fan_in: int | None = None,
    ) -> None:
        """Initialise uniformly within fan_in^-1/2, as PyTorch does; fan_in is in_width if None."""
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        weight, bias = initial_linear(mask.shape[1], len(mask), generator, fan_in=fan_in)
        self.weight = nn.Parameter(weight * mask)
        self.bias = nn.Parameter(bias)
        self.register_load_state_dict_post_hook(_mask_after_load)  # type: ignore[no-untyped-call]  # torch's own

    def masked_weight(self) -> Tensor:
        """Return the masked weight; in training it is 0 already, and its gradient is masked."""
        if not self.training:
            return self.weight * self.mask
        weight: Tensor = _MaskedGradient.apply(self.weight, self.mask)  # type: ignore[no-untyped-call]  # torch's own
        return weight

    def apply_mask(self) -> None:
        """Set the masked weights to 0, outside of any autograd graph that holds them."""
        self.weight.data.mul_(self.mask)

    def train(self, mode: bool = True) -> "MaskedLinear":  # noqa: FBT001, FBT002  torch's signature
        """Switch between training and evaluation."""
        self.apply_mask()
        super().train(mode)
        return self


def _mask_after_load(module: nn.Module, _keys: object) -> None:
    assert isinstance(module, MaskedLinear)  # noqa: S101  registered by that class alone
    module.apply_mask()


def masked_layers(
    conditioner: Conditioner, dim: int, outputs: int, generator: torch.Generator
) -> nn.ModuleList:
    """Return the affine maps, untrained."""
    degrees, direct = tensors_of(conditioner.degrees(dim, outputs)), conditioner.is_direct(dim)
    masks = made_masks(degrees, outputs, separate=conditioner.separate, direct=direct)
    widths = [dim, *conditioner.hidden]
    widths[-1] += dim if direct else 0
    return nn.ModuleList(
        MaskedLinear(mask, generator, fan_in=width)
        for mask, width in zip(masks, widths, strict=False)
    )


def context_weights(
    conditioner: Conditioner, outputs: int, generator: torch.Generator
) -> nn.Parameter | None:
    """Return the context weights of the first hidden layer."""
    if conditioner.context_dim == 0:
        return None
    width = conditioner.hidden[0] * (outputs if conditioner.separate else 1)
    shape = (width, conditioner.context_dim)
    return nn.Parameter(uniform(shape, fan_in=conditioner.context_dim, generator=generator))


def run_masked(
    x: Batch,
    weights: list[Tensor],
    biases: list[Tensor],
    *,
    activation: ActivationName,
    first: Float[Tensor, "batch width"] | None = None,
) -> Float[Tensor, "batch outputs_dim"]:
    """Return the network's outputs.

    Args:
        weights: Masked weights of the layers; the last ones may have columns for the input itself
            after those for the hidden units.
        first: Contribution of the context to the first layer.
    """
    apply = ACTIVATIONS[activation]
    h = x
    for index, (weight, bias) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
        h = F.linear(h, weight, bias)
        if index == 0 and first is not None:
            h = h + first
        h = apply(h)
    if weights[-1].shape[1] > h.shape[1]:
        h = torch.cat([h, x], dim=1)
    return F.linear(h, weights[-1], biases[-1])


def input_degrees(dim: int) -> Int[Tensor, " dim"]:
    """Return the degrees of inputs and outputs: 1 to `dim`."""
    return torch.arange(1, dim + 1)


def tensors_of(degrees: list[npt.NDArray[np.int64]]) -> list[Tensor]:
    """Return degrees as tensors."""
    return [torch.from_numpy(layer) for layer in degrees]


def random_degrees(
    width: int, dim: int, *, lowest: int, generator: torch.Generator
) -> Int[Tensor, " width"]:
    """Return degrees drawn uniformly from `lowest` to `dim - 1` (Germain et al. 2015, 4.2)."""
    return torch.randint(lowest, dim, (width,), generator=generator)


def hidden_mask(
    above: Int[Tensor, " out_width"], below: Int[Tensor, " in_width"]
) -> Float[Tensor, "out_width in_width"]:
    """Return 1 where a hidden unit may see a unit of the layer below: degree >= degree."""
    return (above[:, None] >= below[None, :]).float()


def output_mask(
    above: Int[Tensor, " dim"], below: Int[Tensor, " in_width"]
) -> Float[Tensor, "dim in_width"]:
    """Return 1 where an output may see a hidden unit: degree > degree, strictly.

    With >= an output would see its own input, and the "density" would not be normalised.
    """
    return (above[:, None] > below[None, :]).float()


def made_masks(
    degrees: list[Tensor], outputs: int, *, separate: bool = False, direct: bool = False
) -> list[Tensor]:
    """Return the masks of a network with several outputs per feature, grouped by output.

    Args:
        degrees: Degrees of the inputs, then of each hidden layer.
        separate: True if each output has hidden units of its own: the units of a layer belong to
            the outputs in turns.
        direct: True if the last mask has a column for each input too, after those of the hidden
            units: the outputs see the inputs without a hidden unit between them, strictly.
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
