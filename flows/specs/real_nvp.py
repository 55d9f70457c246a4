"""Coupling flows (Dinh et al. 2017 and 2015)."""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from flows.cost import Cost
from flows.specs.costs import (
    alternating,
    batch_norm_cost,
    check_coupling_dim,
    coupling_cost,
    diagonal_cost,
)
from flows.specs.spec import BatchNormSpec, Spec

if TYPE_CHECKING:
    import torch

    import flows.bijections.base


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

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.real_nvp import build_real_nvp

        return build_real_nvp(self, dim, generator, context_dim)


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

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.real_nvp import build_nice

        return build_nice(self, dim, generator, context_dim)
