"""Real NVP and NICE: affine and additive coupling layers (Dinh et al. 2017, 2015)."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch

from flows.bijections.affine import DiagonalAffine, diagonal_cost
from flows.bijections.base import Bijection
from flows.bijections.batch_norm import BatchNorm, BatchNormSpec, batch_norm_cost
from flows.bijections.compose import Chain
from flows.bijections.coupling.affine import Coupling, coupling_cost
from flows.bijections.coupling.halves import CouplingShape, alternating, check_coupling_dim
from flows.cost import Cost
from flows.families.spec import Spec


@dataclass(frozen=True)
class RealNvpSpec(Spec):
    """Affine coupling layers, a batch norm on the noise side of every one.

    Both directions are 1 pass a layer.

    Attributes:
        layers: Number of coupling layers.
        hidden: Units of each hidden layer of each of a coupling's two networks.
        batch_norm: Batch norm of the layers; None for none.
        log_scale_bound: Bound b of the log scales of all layers: those of the networks, r, become
            `r / (1 + |r| / b)`, so that no row far from the data makes a scale overflow. None leaves
            them as they are.
    """

    family: Literal["realnvp"] = "realnvp"
    layers: int = 8
    hidden: list[int] = field(default_factory=lambda: [128])
    batch_norm: BatchNormSpec | None = field(default_factory=BatchNormSpec)
    log_scale_bound: float | None = None
    masks_columns = True

    def check_dim(self, dim: int) -> None:
        super().check_dim(dim)
        check_coupling_dim(self.family, dim)

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        cost_of = partial(coupling_cost, hidden=self.hidden, context_dim=context_dim, networks=2)
        return alternating(dim, self.layers, cost_of) + (
            batch_norm_cost(dim, self.batch_norm) * self.layers
        )

    def build(self, dim: int, generator: torch.Generator, context_dim: int = 0) -> Bijection:
        parts: list[Bijection] = []
        for layer in range(self.layers):
            shape = CouplingShape(dim, copies_even=layer % 2 == 0, context_dim=context_dim)
            bound = self.log_scale_bound
            parts.append(Coupling(shape, self.hidden, generator, log_scale_bound=bound))
            if self.batch_norm is not None:
                parts.append(BatchNorm(dim, self.batch_norm))
        return Chain(parts)


@dataclass(frozen=True)
class NiceSpec(Spec):
    """Additive coupling layers and a diagonal scaling on their noise side (Dinh et al. 2015).

    Both directions are 1 pass a layer. The layers keep volumes: only the scaling, and a batch
    norm, change them.

    Attributes:
        layers: Number of coupling layers.
        hidden: Units of each hidden layer of a coupling's network.
        batch_norm: Batch norm of the layers; None for none.
    """

    family: Literal["nice"] = "nice"
    layers: int = 8
    hidden: list[int] = field(default_factory=lambda: [128])
    batch_norm: BatchNormSpec | None = field(default_factory=BatchNormSpec)
    masks_columns = True

    def check_dim(self, dim: int) -> None:
        super().check_dim(dim)
        check_coupling_dim(self.family, dim)

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        cost_of = partial(coupling_cost, hidden=self.hidden, context_dim=context_dim, networks=1)
        norms = batch_norm_cost(dim, self.batch_norm) * self.layers
        return alternating(dim, self.layers, cost_of) + norms + diagonal_cost(dim, context_dim)

    def build(self, dim: int, generator: torch.Generator, context_dim: int = 0) -> Bijection:
        parts: list[Bijection] = []
        for layer in range(self.layers):
            shape = CouplingShape(dim, copies_even=layer % 2 == 0, context_dim=context_dim)
            parts.append(Coupling(shape, self.hidden, generator, additive=True))
            if self.batch_norm is not None:
                parts.append(BatchNorm(dim, self.batch_norm))
        parts.append(DiagonalAffine(dim, context_dim, generator))
        return Chain(parts)
