"""Radial flows (Rezende and Mohamed 2015)."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flows.cost import Cost
from flows.specs.costs import Closed, layers_cost
from flows.specs.spec import Spec

if TYPE_CHECKING:
    import torch

    import flows.bijections.base


@dataclass(frozen=True)
class RadialSpec(Spec):
    """Radial layers one after another.

    Attributes:
        layers: Number of layers.
        closed: Direction that is the paper's map. `density` maps data to noise by it,
            `sampling` noise to data; the other direction solves a quadratic equation a layer.
    """

    family: Literal["radial"] = "radial"
    layers: int = 32
    closed: Closed = "density"

    def for_targets(self) -> "RadialSpec":
        return dataclasses.replace(self, closed="sampling")

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        return layers_cost(
            self.layers, dim + 2, dim=dim, context_dim=context_dim, closed=self.closed
        )

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.radial import build_radial

        return build_radial(self, dim, generator, context_dim)
