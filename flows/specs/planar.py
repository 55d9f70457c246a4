"""Planar flows (Rezende and Mohamed 2015)."""

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
class PlanarSpec(Spec):
    """Planar layers one after another.

    Attributes:
        layers: Number of layers.
        closed: Direction with a closed form. `density` maps data to noise by it, for training
            on data; `sampling` maps noise to data, for variational inference. The other
            direction finds one root a row and layer.
    """

    family: Literal["planar"] = "planar"
    layers: int = 32
    closed: Closed = "density"

    def for_targets(self) -> "PlanarSpec":
        return dataclasses.replace(self, closed="sampling")

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        return layers_cost(
            self.layers, 2 * dim + 1, dim=dim, context_dim=context_dim, closed=self.closed
        )

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.planar import build_planar

        return build_planar(self, dim, generator, context_dim)
