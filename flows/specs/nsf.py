"""Neural spline flows (Durkan et al. 2019)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from flows.cost import Cost
from flows.specs.costs import (
    AFFINE_SIZE,
    Conditioner,
    alternating,
    check_coupling_dim,
    gaussian_cost,
    map_cost,
    network_cost,
    permutation_cost,
    spline_size,
    tails_cost,
)
from flows.specs.spec import ActivationName, Spec

if TYPE_CHECKING:
    import torch

    import flows.bijections.base


MAX_BINS = 500


@dataclass(frozen=True)
class NsfSpec(Spec):
    """Layers of rational-quadratic splines, autoregressive or by coupling.

    The layer next to the data has the natural order, which is reversed before each following one;
    coupling layers copy the features with an even index, counted from 0, then those with an odd
    one. The inverse is 1 pass a layer. The forward direction is sequential, of coupling layers 1
    pass.

    Unlike in the paper, the networks have no residual blocks, and there is no random permutation with a
    trained linear map between the layers: `linear` adds such a map, without the permutation.

    Attributes:
        layers: Number of layers of splines.
        hidden: Units of each hidden layer of a layer's network.
        bins: Number of bins of a spline.
        tail_bound: Bound of the splines, which bend between minus this and this, in standard deviations where the
            data are standardised; beyond, they are the identity.
        coupling: True if one half of the features conditions the other; otherwise each is
            conditioned on those before it.
        linear: True for a trained linear map before each layer of splines, as a product of
            two triangular matrices, and a shift, as in the paper: for features that are highly
            correlated, of which splines within `tail_bound` see little.
        activation: Activation of the networks; `tanh` bounds the splines' parameters on outliers, where
            `relu`, the paper's choice, makes splines so flat that sampling loses digits.
        tails: True for heavy tails, trained for each side of each feature, next to the data.
        affine_layers: Number of layers of `maf` next to the data, in front of the splines, with tanh
            units: for features that nearly follow from others, such as a ratio of two of them, whose
            narrow conditionals affine maps find in fewer steps than splines.
    """

    family: Literal["nsf"] = "nsf"
    layers: int = 5
    hidden: list[int] = field(default_factory=lambda: [128, 128])
    bins: int = 8
    tail_bound: float = 5.0
    coupling: bool = False
    linear: bool = False
    activation: ActivationName = "tanh"
    tails: bool = False
    affine_layers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.bins <= MAX_BINS:
            raise ValueError(f"bins must be from 2 to {MAX_BINS}")
        if self.affine_layers and self.coupling:
            raise ValueError("affine_layers are autoregressive: they need coupling false")

    @property
    def masks_columns(self) -> bool:
        return not self.linear

    def check_dim(self, dim: int) -> None:
        super().check_dim(dim)
        if self.coupling:
            check_coupling_dim("nsf with coupling", dim)

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        layers = self._layers_cost(dim, context_dim)
        if self.affine_layers:
            affine = self.affine_conditioner(context_dim).cost(dim, AFFINE_SIZE)
            layers += (affine + permutation_cost(dim)) * self.affine_layers
        return layers + tails_cost(dim) if self.tails else layers

    def _layers_cost(self, dim: int, context_dim: int) -> Cost:
        size = spline_size(self.bins)
        between = permutation_cost(dim)
        if self.linear:
            between += gaussian_cost(dim, full=True) * 2 + permutation_cost(dim)
        if not self.coupling:
            return (self.conditioner(context_dim).cost(dim, size) + between) * self.layers

        def layer(copied: int, moved: int) -> Cost:
            widths = [copied + context_dim, *self.hidden, size.outputs * moved]
            return network_cost(widths) + map_cost(moved, size)

        return alternating(dim, self.layers, layer) + between * self.layers

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.nsf import build_nsf

        return build_nsf(self, dim, generator, context_dim)

    def conditioner(self, context_dim: int) -> Conditioner:
        return Conditioner(self.hidden, self.activation, context_dim)

    def affine_conditioner(self, context_dim: int) -> Conditioner:
        return Conditioner(self.hidden, "tanh", context_dim)
