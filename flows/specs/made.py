"""Masked autoencoders (Germain et al. 2015, Papamakarios et al. 2017)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from flows.cost import Cost
from flows.errors import SpecError
from flows.specs.costs import (
    AFFINE_SIZE,
    BERNOULLI_SIZE,
    Conditioner,
    MapSize,
    ensemble_cost,
    mixture_size,
    permutation_cost,
)
from flows.specs.spec import ActivationName, Spec

if TYPE_CHECKING:
    import torch

    import flows.bijections.base


@dataclass(frozen=True)
class MadeSpec(Spec):
    """Single MADE, a masked autoregressive network.

    Attributes:
        conditional: Density of a feature given those before it: `gaussian`, `mixture` of
            Gaussians, or `bernoulli` for columns of 0 and 1.
        components: Number of Gaussians of a mixture.
        hidden: Units of each hidden layer.
        order: Order of the features: `natural`, or `random`, drawn from the seed.
        masks: Number of masks. Above 1, training cycles through their connectivities, which share
            their weights, and a row's density is the mean over all of them.
        separate_networks: True for one network for means and one for log standard deviations.
        activation: Activation of the hidden units.
        direct: True to connect each output with the inputs before it directly, too: out =
            c + (V * M_V) h + (A * M_A) x, A strictly masked (Germain et al. 2015, section 4).
        mask_weights: True for a second matrix U beside the weights of each layer, by
            which units know the mask they are under: h = g(b + (W * M) x + (U * M) 1) (the same,
            on connectivity-agnostic training).
        log_scale_bound: Bound b of the log scales: those of the network, r, become
            `r / (1 + |r| / b)`. None leaves them as they are.
    """

    family: Literal["made"] = "made"
    conditional: Literal["gaussian", "bernoulli", "mixture"] = "gaussian"
    components: int = 10
    hidden: list[int] = field(default_factory=lambda: [512])
    order: Literal["natural", "random"] = "natural"
    masks: int = 1
    separate_networks: bool = False
    activation: ActivationName = "tanh"
    direct: bool = False
    mask_weights: bool = False
    log_scale_bound: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separate_networks and self.conditional != "gaussian":
            raise ValueError("separate_networks needs conditional gaussian")
        if self.separate_networks and self.masks > 1:
            raise ValueError("separate_networks needs masks 1")
        if self.mask_weights and self.masks == 1:
            raise ValueError("mask_weights needs masks above 1")
        if self.log_scale_bound is not None and self.is_binary:
            raise ValueError("log_scale_bound needs a conditional with scales")

    @property
    def is_binary(self) -> bool:
        return self.conditional == "bernoulli"

    @property
    def masks_columns(self) -> bool:
        return self.conditional != "bernoulli" and self.masks == 1

    def for_targets(self) -> "MadeSpec":
        if self.is_binary:
            raise SpecError("flow-unsuitable", "a made of 0 and 1 does not map noise to rows")
        if self.masks > 1:
            raise SpecError("flow-unsuitable", "a made of several masks does not map noise to rows")
        return self

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        conditioner, size = self.conditioner(context_dim), self._size()
        if self.masks > 1:
            return ensemble_cost(dim, conditioner, size, masks=self.masks)
        layer = conditioner.cost(dim, size)
        return layer if self.order == "natural" else layer + permutation_cost(dim)

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.made import build_made

        return build_made(self, dim, generator, context_dim)

    def conditioner(self, context_dim: int) -> Conditioner:
        return Conditioner(
            self.hidden,
            self.activation,
            context_dim,
            self.separate_networks,
            direct=self.direct,
            mask_weights=self.mask_weights,
        )

    def _size(self) -> MapSize:
        match self.conditional:
            case "gaussian":
                return AFFINE_SIZE
            case "mixture":
                return mixture_size(self.components)
            case "bernoulli":
                return BERNOULLI_SIZE
