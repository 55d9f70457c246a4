"""Masked autoencoders with Gaussian conditionals (Germain et al. 2015, Papamakarios et al. 2017)."""

import functools
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.base import Bijection
from flows.compose import Chain, Permutation
from flows.folding import MaskedAffine, Pending, Step, tanh_as_sigmoid
from flows.fused import (
    ACTIVATIONS,
    ActivationName,
    Pullback,
    conditioner,
    masked_affine_vjp,
)
from flows.linear import initial_linear
from flows.masks import hidden_degrees, hidden_mask, input_degrees, output_mask
from flows.sequential import SequentialSampler
from flows.spec import Spec, check_choice, check_hidden

FOLDED_ACTIVATIONS = {
    "sigmoid": torch.sigmoid_,
    **{name: activation.apply_ for name, activation in ACTIVATIONS.items() if name != "tanh"},
}

# Rows that the sampler takes at a time: their hidden units stay in the processor's cache.
SAMPLE_ROWS = 512


@dataclass(frozen=True)
class MadeSpec(Spec):
    """One Gaussian MADE.

    Attributes:
        hidden: units of each hidden layer.
        order: of the features: `natural`, or `random`, drawn from the seed.
        activation: between the layers.
    """

    family: Literal["made"] = "made"
    hidden: list[int] = field(default_factory=lambda: [512])
    order: Literal["natural", "random"] = "natural"
    activation: ActivationName = "tanh"

    def __post_init__(self) -> None:
        check_choice("family", self.family, ("made",))
        check_hidden(self.hidden)
        check_choice("order", self.order, ("natural", "random"))
        check_choice("activation", self.activation, get_args(ActivationName))

    def count_parameters(self, dim: int) -> int:
        """Weights and biases."""
        return count_made_parameters(dim, self.hidden)

    def build(self, dim: int, generator: torch.Generator) -> Bijection:
        """The layer, behind a permutation if the order is random."""
        parts: list[Bijection] = []
        if self.order == "random":
            parts.append(Permutation(torch.randperm(dim, generator=generator)))
        parts.append(Made(dim, self.hidden, activation=self.activation, generator=generator))
        return Chain(parts)


class MaskedLinear(nn.Module):
    """The parameters of an affine map some of whose weights are 0 for good.

    The weights are masked when made, when loaded and when the module changes between training and
    evaluation, and every gradient is masked. So an optimiser that starts from them, with any
    weight decay, never leaves them, and the training loop may use them as they are.
    """

    mask: Tensor

    def __init__(
        self, mask: Float[Tensor, "out_width in_width"], generator: torch.Generator
    ) -> None:
        """Initialises as `torch.nn.Linear` does: uniform within in_width^-1/2."""
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        weight, bias = initial_linear(mask.shape[1], len(mask), generator)
        self.weight = nn.Parameter(weight * mask)
        self.bias = nn.Parameter(bias)
        self.register_load_state_dict_post_hook(_mask_after_load)  # type: ignore[no-untyped-call]  # torch's own

    def apply_mask(self) -> None:
        """Sets the masked weights to 0, outside of any graph that holds them."""
        self.weight.data.mul_(self.mask)

    def train(self, mode: bool = True) -> "MaskedLinear":  # noqa: FBT001, FBT002  torch's signature
        """Changes between training and evaluation."""
        self.apply_mask()
        super().train(mode)
        return self


def _mask_after_load(module: nn.Module, _keys: object) -> None:
    assert isinstance(module, MaskedLinear)  # noqa: S101  registered by that class alone
    module.apply_mask()


class Made(Bijection):
    """x_i = shift_i(x_<i) + u_i exp(log_scale_i(x_<i)), in the natural order of the features.

    Papamakarios et al. 2017, equations 3 to 5, with alpha = log_scale and mu = shift, both from
    one network with the masks of Germain et al. 2015 (`flows.masks`; hidden degrees are spread
    evenly, not drawn). log|det du/dx| = -sum of log_scale.

    The inverse is 1 pass. The forward direction is sequential; without gradients it computes
    each hidden unit once, which costs about 1 pass of arithmetic, with gradients it is `dim`
    passes. With one feature the network is a bias.
    """

    def __init__(
        self,
        dim: int,
        hidden: list[int],
        *,
        activation: ActivationName,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.activation_name = activation
        self.activation = ACTIVATIONS[activation]
        self.layers = nn.ModuleList(
            MaskedLinear(mask, generator) for mask in made_masks(dim, hidden)
        )

    def forward(
        self, u: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Noise to data, sequential."""
        if torch.is_grad_enabled():
            return self._differentiable_forward(u)
        weights, biases, masks = self.network()
        masked = [weight * mask for weight, mask in zip(weights, masks, strict=True)]
        sampler = SequentialSampler(masked, biases, activation_=self.activation.apply_)
        pieces = [sampler.sample(rows.t()) for rows in torch.split(u, SAMPLE_ROWS)]
        x = torch.cat([piece[0] for piece in pieces], dim=1).t()
        return x, torch.cat([piece[1].sum(dim=0) for piece in pieces])

    def inverse(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Data to noise, 1 pass."""
        shift, log_scale = conditioner(x, *self.network(), activation=self.activation)
        return (x - shift) * torch.exp(-log_scale), -log_scale.sum(dim=1)

    def parameter_list(self) -> list[Tensor]:
        """All weights, then all biases."""
        weights, biases, _ = self.network()
        return weights + biases

    def inverse_vjp(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " #batch"], Pullback]:
        """The inverse with its pullback, hand-written."""
        return masked_affine_vjp(x, *self.network(), activation=self.activation)

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """One step, with the pending map in its weights.

        With x = y a + b of the pending map, the same layer in terms of y reads its input through
        a and b, and has the shift (shift - b) / a and the log scale log_scale - log a.
        """
        weights, biases, masks = self.network()
        weights = [weight * mask for weight, mask in zip(weights, masks, strict=True)]
        activation = self.activation_name
        if activation == "tanh":
            weights, biases = tanh_as_sigmoid(weights, biases)
            activation = "sigmoid"
        biases[0] = biases[0] + weights[0] @ pending.shift
        weights[0] = weights[0] * pending.scale
        scale = pending.scale
        rescale = torch.cat([1 / scale, torch.ones_like(scale)])
        offset = torch.cat([-pending.shift / scale, -scale.log()])
        biases[-1] = biases[-1] * rescale + offset
        weights[-1] = weights[-1] * rescale[:, None]
        layer = MaskedAffine(
            [pending.cast(weight) for weight in weights],
            [pending.cast(bias) for bias in biases],
            activation,
        )
        return [_MadeStep(layer)], pending.cleared()

    def network(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Weights, biases and masks, layer by layer."""
        layers = [layer for layer in self.layers if isinstance(layer, MaskedLinear)]
        return (
            [layer.weight for layer in layers],
            [layer.bias for layer in layers],
            [layer.mask for layer in layers],
        )

    def _differentiable_forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Feature by feature; each pass gives one more, and gradients go through all of them."""
        network = self.network()
        x = torch.zeros_like(u)
        log_scale = torch.zeros_like(u)
        for i in range(self.dim):
            shift, log_scale = conditioner(x, *network, activation=self.activation)
            column = shift[:, i] + u[:, i] * torch.exp(log_scale[:, i])
            x = torch.cat([x[:, :i], column[:, None], x[:, i + 1 :]], dim=1)
        return x, log_scale.sum(dim=1)


class _MadeStep(Step):
    """A folded layer, its features in natural order."""

    def __init__(self, layer: MaskedAffine) -> None:
        self._activation = layer.activation
        self._activation_ = FOLDED_ACTIVATIONS[layer.activation]
        # With the signs turned in the weights, u = (x + minus_shift) exp(minus_log_scale).
        *hidden, (weight, bias) = zip(layer.weights, layer.biases, strict=True)
        self._hidden = [(weight, bias[:, None]) for weight, bias in hidden]
        self._out = -weight, -bias[:, None]

    def inverse(
        self, x: Float[Tensor, "dim batch"]
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "dim batch"]]:
        h = x
        for weight, bias in self._hidden:
            h = self._activation_(torch.addmm(bias, weight, h))
        weight, bias = self._out
        minus_shift, log_det = torch.addmm(bias, weight, h).chunk(2)
        return minus_shift.add_(x).mul_(log_det.exp()), log_det

    def forward(
        self, u: Float[Tensor, "dim batch"]
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "dim batch"]]:
        return self._sampler.sample(u)

    def tensors(self) -> list[Tensor]:
        hidden = [tensor for pair in self._hidden for tensor in pair]
        return [*hidden, *self._out, *self._sampler.tensors()]

    def masked_affine(self) -> MaskedAffine:
        weights, biases = zip(*self._hidden, (-self._out[0], -self._out[1]), strict=True)
        return MaskedAffine(list(weights), [bias[:, 0] for bias in biases], self._activation)

    @functools.cached_property
    def _sampler(self) -> SequentialSampler:
        """Made when first needed: kernels may do its work."""
        layer = self.masked_affine()
        return SequentialSampler(layer.weights, layer.biases, activation_=self._activation_)


def made_masks(dim: int, hidden: list[int]) -> list[Float[Tensor, "out_width in_width"]]:
    """The masks of a network with two outputs a feature, all shifts before all log scales."""
    degrees = [input_degrees(dim)]
    if dim > 1:
        degrees += [hidden_degrees(width, dim) for width in hidden]
    masks = [hidden_mask(above, below) for below, above in pairwise(degrees)]
    out = output_mask(degrees[0], degrees[-1])
    return [*masks, torch.cat([out, out])]


def count_made_parameters(dim: int, hidden: list[int]) -> int:
    """Weights and biases of the network that `made_masks` describes."""
    widths = [dim, *(hidden if dim > 1 else []), 2 * dim]
    return sum((below + 1) * above for below, above in pairwise(widths))
