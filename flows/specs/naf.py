"""Neural autoregressive flows (Huang et al. 2018)."""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from flows.cost import Cost
from flows.specs.costs import Conditioner, dense_sigmoids_size, permutation_cost, sigmoids_size
from flows.specs.spec import ActivationName, Spec

if TYPE_CHECKING:
    import torch

    import flows.bijections.base


@dataclass(frozen=True)
class NafSpec(Spec):
    """Autoregressive layers whose maps are monotone networks.

    One direction is closed, 1 pass a layer. The other one is sequential, with a root search for
    each feature. The layer next to the data has the natural order, which is reversed before each
    following one.

    Attributes:
        layers: Number of autoregressive layers.
        hidden: Units of each hidden layer of a masked network.
        transformer: `dsf`, one layer of sigmoids, or `ddsf`, two dense ones.
        units: Number of sigmoids in each layer of a map.
        closed: `density` goes from data to noise in closed form, to be trained on data;
            `sampling` from noise to data, for variational inference.
        activation: Activation of the networks; `tanh` bounds the maps' parameters on outliers.
    """

    family: Literal["naf"] = "naf"
    layers: int = 2
    hidden: list[int] = field(default_factory=lambda: [64])
    transformer: Literal["dsf", "ddsf"] = "dsf"
    units: int = 16
    closed: Literal["density", "sampling"] = "density"
    activation: ActivationName = "tanh"
    masks_columns = True

    def for_targets(self) -> "NafSpec":
        return dataclasses.replace(self, closed="sampling")

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        size = sigmoids_size if self.transformer == "dsf" else dense_sigmoids_size
        layer = self.conditioner(context_dim).cost(dim, size(self.units))
        layer = layer if self.closed == "density" else layer.inverted()
        return (layer + permutation_cost(dim)) * self.layers

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.naf import build_naf

        return build_naf(self, dim, generator, context_dim)

    def conditioner(self, context_dim: int) -> Conditioner:
        return Conditioner(self.hidden, self.activation, context_dim)
