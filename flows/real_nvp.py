"""Real NVP: affine coupling layers (Dinh et al. 2017)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.base import Bijection
from flows.batch_norm import BatchNorm, BatchNormSpec
from flows.compose import Chain
from flows.errors import SpecError
from flows.folding import Pending, Step, tanh_as_sigmoid
from flows.linear import linear
from flows.spec import Spec, check_choice, check_hidden, check_positive


@dataclass(frozen=True)
class RealNvpSpec(Spec):
    """Affine coupling layers, a batch norm on the noise side of every one.

    Both directions are 1 pass a layer.

    Attributes:
        layers: coupling layers.
        hidden: units of each hidden layer of each of a coupling's two networks.
        batch_norm: None leaves it out.
    """

    family: Literal["realnvp"] = "realnvp"
    layers: int = 8
    hidden: list[int] = field(default_factory=lambda: [128])
    batch_norm: BatchNormSpec | None = field(default_factory=BatchNormSpec)

    def __post_init__(self) -> None:
        check_choice("family", self.family, ("realnvp",))
        check_positive("layers", self.layers)
        check_hidden(self.hidden)

    def check_dim(self, dim: int) -> None:
        """A coupling layer needs two features: one half conditions the other."""
        super().check_dim(dim)
        if dim < 2:
            raise SpecError(
                "dimension-unsupported",
                "realnvp needs at least 2 features: one half of them conditions the other",
            )

    def count_parameters(self, dim: int) -> int:
        """Two networks a layer, and two numbers a feature and batch norm."""
        total = 0
        for layer in range(self.layers):
            copied = (dim + 1) // 2 if layer % 2 == 0 else dim // 2
            widths = [copied, *self.hidden, dim - copied]
            total += 2 * sum((below + 1) * above for below, above in pairwise(widths))
        return total + (2 * dim * self.layers if self.batch_norm is not None else 0)

    def build(self, dim: int, generator: torch.Generator) -> Bijection:
        """The chain of layers; the one next to the data copies features 0, 2, 4, ..."""
        parts: list[Bijection] = []
        for layer in range(self.layers):
            parts.append(
                Coupling(dim, self.hidden, copies_even=layer % 2 == 0, generator=generator)
            )
            if self.batch_norm is not None:
                parts.append(BatchNorm(dim, self.batch_norm))
        return Chain(parts)


class Coupling(Bijection):
    """x_a = u_a, x_b = t(u_a) + u_b exp(s(u_a)) (Dinh et al. 2017, equations 7 and 8).

    a are the features with an even index, counted from 0, or those with an odd one; b the others.
    s and t are networks with tanh and ReLU hidden units and linear outputs; they read and write
    the halves by index. log|det du/dx| = -sum of s. Both directions are 1 pass.

    We depart from the paper in s, whose output is not squashed (as Papamakarios et al. 2017).
    """

    places: Tensor

    def __init__(
        self, dim: int, hidden: list[int], *, copies_even: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.dim = dim
        self.copies_even = copies_even
        even, odd = (dim + 1) // 2, dim // 2
        copied, moved = (even, odd) if copies_even else (odd, even)
        self.scale_layers = _network([copied, *hidden, moved], generator)
        self.shift_layers = _network([copied, *hidden, moved], generator)
        order = torch.arange(dim)
        places = torch.argsort(torch.cat([order[half] for half in self._halves()]))
        self.register_buffer("places", places, persistent=False)

    def forward(
        self, u: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Noise to data."""
        copied, moved = self._split(u)
        log_scale, shift = self._condition(copied)
        x = self._join(copied, torch.addcmul(shift, moved, log_scale.exp()))
        return x, log_scale.sum(dim=1)

    def inverse(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Data to noise."""
        copied, moved = self._split(x)
        log_scale, shift = self._condition(copied)
        u = self._join(copied, (moved - shift) * torch.exp(-log_scale))
        return u, -log_scale.sum(dim=1)

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """One step, its tanh written as sigmoid, which takes in the pending map of what it moves and reads.

        With x = y a + b of the pending map, the networks read y through a and b, and the moved
        half has the shift (t - b) / a and the log scale s - log a. The copied half stays pending.
        """
        copied, moved = self._halves()
        scale, shift = pending.scale, pending.shift
        networks = []
        for layers, gain, offset in (
            (self.scale_layers, torch.ones_like(scale[moved]), -scale[moved].log()),
            (self.shift_layers, 1 / scale[moved], -shift[moved] / scale[moved]),
        ):
            weights, biases = _parameters(layers)
            if layers is self.scale_layers:
                weights, biases = tanh_as_sigmoid(weights, biases)
            biases[0] = biases[0] + weights[0] @ shift[copied]
            weights[0] = weights[0] * scale[copied]
            # With the signs turned in the weights, u_b = (x_b + minus_t) exp(minus_s).
            biases[-1] = -(biases[-1] * gain + offset)
            weights[-1] = -(weights[-1] * gain[:, None])
            pairs = zip(weights, (bias[:, None] for bias in biases), strict=True)
            networks.append([(pending.cast(weight), pending.cast(bias)) for weight, bias in pairs])
        return [_CouplingStep(*networks, copied=copied, moved=moved)], pending.without(moved)

    def _halves(self) -> tuple[slice, slice]:
        even, odd = slice(0, None, 2), slice(1, None, 2)
        return (even, odd) if self.copies_even else (odd, even)

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        copied, moved = self._halves()
        return rows[:, copied], rows[:, moved]

    def _join(self, copied: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([copied, moved], dim=1).index_select(1, self.places)

    def _condition(self, copied: Tensor) -> tuple[Tensor, Tensor]:
        return (
            _apply(self.scale_layers, copied, torch.tanh),
            _apply(self.shift_layers, copied, torch.relu),
        )


_Network = list[tuple[Tensor, Tensor]]


class _CouplingStep(Step):
    """A folded layer."""

    def __init__(
        self, minus_log_scale: _Network, minus_shift: _Network, *, copied: slice, moved: slice
    ) -> None:
        self._minus_log_scale, self._minus_shift = minus_log_scale, minus_shift
        self._copied, self._moved = copied, moved

    def inverse(
        self, x: Float[Tensor, "dim batch"]
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "moved batch"]]:
        log_det, minus_shift = self._condition(x)
        u = x.clone()
        u[self._moved].add_(minus_shift).mul_(log_det.exp())
        return u, log_det

    def forward(
        self, u: Float[Tensor, "dim batch"]
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "moved batch"]]:
        minus_log_scale, minus_shift = self._condition(u)
        log_det = minus_log_scale.neg_()
        x = u.clone()
        x[self._moved].mul_(log_det.exp()).sub_(minus_shift)
        return x, log_det

    def tensors(self) -> list[Tensor]:
        networks = (self._minus_log_scale, self._minus_shift)
        return [tensor for network in networks for pair in network for tensor in pair]

    def _condition(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        copied = rows[self._copied]
        return (
            _apply_folded(self._minus_log_scale, copied, torch.sigmoid_),
            _apply_folded(self._minus_shift, copied, torch.relu_),
        )


def _network(widths: list[int], generator: torch.Generator) -> nn.ModuleList:
    return nn.ModuleList(linear(below, above, generator) for below, above in pairwise(widths))


def _parameters(layers: nn.ModuleList) -> tuple[list[Tensor], list[Tensor]]:
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return [layer.weight for layer in linears], [layer.bias for layer in linears]


def _apply(layers: nn.ModuleList, h: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    *hidden, out = layers
    for layer in hidden:
        h = activation(layer(h))
    result: Tensor = out(h)
    return result


def _apply_folded(network: _Network, h: Tensor, activation_: Callable[[Tensor], Tensor]) -> Tensor:
    *hidden, (out_weight, out_bias) = network
    for weight, bias in hidden:
        h = activation_(torch.addmm(bias, weight, h))
    return torch.addmm(out_bias, out_weight, h)
