"""Sylvester flows (van den Berg et al. 2018)."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flows.cost import Cost
from flows.errors import SpecError
from flows.specs.costs import Closed, layers_cost
from flows.specs.spec import Spec

if TYPE_CHECKING:
    import torch

    import flows.bijections.base


@dataclass(frozen=True)
class SylvesterSpec(Spec):
    """Sylvester layers one after another.

    Attributes:
        layers: Number of layers.
        units: Units of each layer, at most the number of features; None means as many.
        closed: Direction with a closed form. `density` maps data to noise by it, for training
            on data; `sampling` maps noise to data, for variational inference. The other
            direction finds one root a row, layer and unit.
    """

    family: Literal["sylvester"] = "sylvester"
    layers: int = 32
    units: int | None = None
    closed: Closed = "density"

    def check_dim(self, dim: int) -> None:
        super().check_dim(dim)
        if self.units is not None and self.units > dim:
            raise SpecError(
                "dimension-unsupported",
                f"sylvester with {self.units} units needs at least {self.units} features",
            )

    def for_targets(self) -> "SylvesterSpec":
        return dataclasses.replace(self, closed="sampling")

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        units = dim if self.units is None else self.units
        return layers_cost(
            self.layers,
            sum(raw_widths(dim, units)),
            dim=dim,
            context_dim=context_dim,
            closed=self.closed,
            units=units,
        )

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.sylvester import build_sylvester

        return build_sylvester(self, dim, generator, context_dim)


def raw_widths(dim: int, units: int) -> list[int]:
    """Return the sizes of a layer: reflections, strict triangles of R and of S, gains, log scales, biases."""
    triangle = units * (units - 1) // 2
    return [dim * units, triangle, triangle, units, units, units]
