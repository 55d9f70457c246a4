"""Masked autoregressive flow (Papamakarios et al. 2017)."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from flows.base import Bijection
from flows.batch_norm import BatchNorm, BatchNormSpec
from flows.compose import Chain, Permutation, Reverse
from flows.fused import ActivationName
from flows.made import Made, count_made_parameters
from flows.spec import Spec, check_choice, check_hidden, check_positive


@dataclass(frozen=True)
class MafSpec(Spec):
    """Gaussian MADE layers one after another.

    x = f_K o BN_K o f_(K-1) o ... o f_1 o BN_1 (u): a batch norm on the noise side of every
    layer, also between the last one and the base. The layer next to the data has the natural
    order. The inverse is 1 pass a layer, the forward direction sequential.

    Attributes:
        layers: MADE layers.
        hidden: units of each hidden layer of a MADE.
        batch_norm: None leaves it out.
        order: before each following layer, `reverse` reverses the features, `random` draws an
            order from the seed.
        activation: inside the MADEs; `tanh` bounds shift and scale on outliers far from the
            training data, where `relu`, the literature's choice, extrapolates exponentially.
    """

    family: Literal["maf"] = "maf"
    layers: int = 5
    hidden: list[int] = field(default_factory=lambda: [128, 128])
    batch_norm: BatchNormSpec | None = field(default_factory=BatchNormSpec)
    order: Literal["reverse", "random"] = "reverse"
    activation: ActivationName = "tanh"

    def __post_init__(self) -> None:
        check_choice("family", self.family, ("maf",))
        check_positive("layers", self.layers)
        check_hidden(self.hidden)
        check_choice("order", self.order, ("reverse", "random"))
        check_choice("activation", self.activation, get_args(ActivationName))

    def count_parameters(self, dim: int) -> int:
        """Weights and biases of the MADEs, and two numbers a feature and batch norm."""
        norm = 2 * dim if self.batch_norm is not None else 0
        return self.layers * (count_made_parameters(dim, self.hidden) + norm)

    def build(self, dim: int, generator: torch.Generator) -> Bijection:
        """The chain of layers."""
        parts: list[Bijection] = []
        for layer in range(self.layers):
            if layer > 0:
                parts.append(self._reorder(dim, generator))
            parts.append(Made(dim, self.hidden, activation=self.activation, generator=generator))
            if self.batch_norm is not None:
                parts.append(BatchNorm(dim, self.batch_norm))
        return Chain(parts)

    def _reorder(self, dim: int, generator: torch.Generator) -> Bijection:
        if self.order == "reverse":
            return Reverse(dim)
        return Permutation(torch.randperm(dim, generator=generator))
