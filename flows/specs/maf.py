"""Masked and inverse autoregressive flows, and their hybrid with coupling layers."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from flows.cost import Cost
from flows.specs.costs import (
    AFFINE_SIZE,
    Conditioner,
    alternating,
    batch_norm_cost,
    check_coupling_dim,
    coupling_cost,
    diagonal_cost,
    mixture_size,
    permutation_cost,
    tails_cost,
)
from flows.specs.spec import ActivationName, BatchNormSpec, Spec

if TYPE_CHECKING:
    import torch

    import flows.bijections.base


@dataclass(frozen=True)
class MafSpec(Spec):
    """Gaussian MADE layers one after another.

    x = f_K o BN_K o f_(K-1) o ... o f_1 o BN_1 (u): a batch norm on the noise side of every
    layer, also between the last one and the base. The layer next to the data has the natural
    order. The inverse is 1 pass a layer, the forward direction sequential.

    Attributes:
        layers: Number of MADE layers.
        hidden: Units of each hidden layer of a MADE.
        batch_norm: Batch norm of the layers; None for none.
        order: Order between two layers: `reverse` reverses the features, `random` draws an
            order from the seed.
        base: Density of the noise: `gaussian`, or `made_mixture`, one more MADE whose conditionals are
            mixtures of Gaussians (MAF MoG).
        components: Number of Gaussians of such a mixture.
        activation: Activation of the MADEs; `tanh` bounds shift and scale on outliers far from the
            training data, where `relu`, the literature's choice, extrapolates exponentially.
        log_scale_bound: Bound b of the log scales of all layers: those of the networks, r, become
            `r / (1 + |r| / b)`, so that no row far from the data makes a scale overflow. None leaves
            them as they are.
        tails: True for heavy tails, trained for each side of each feature, next to the data.
    """

    family: Literal["maf"] = "maf"
    layers: int = 5
    hidden: list[int] = field(default_factory=lambda: [128, 128])
    batch_norm: BatchNormSpec | None = field(default_factory=BatchNormSpec)
    order: Literal["reverse", "random"] = "reverse"
    base: Literal["gaussian", "made_mixture"] = "gaussian"
    components: int = 10
    activation: ActivationName = "tanh"
    log_scale_bound: float | None = None
    tails: bool = False
    masks_columns = True

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        conditioner = Conditioner(self.hidden, self.activation, context_dim)
        layer = conditioner.cost(dim, AFFINE_SIZE) + permutation_cost(dim)
        total = (layer + batch_norm_cost(dim, self.batch_norm)) * self.layers
        if self.base == "made_mixture":
            total += conditioner.cost(dim, mixture_size(self.components))
            total += permutation_cost(dim)
        return total + tails_cost(dim) if self.tails else total

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.maf import build_maf

        return build_maf(self, dim, generator, context_dim)


@dataclass(frozen=True)
class IafSpec(Spec):
    """MADE layers that read the noise (Kingma et al. 2016).

    x_i = mu(u_<i) + u_i exp(alpha(u_<i)): the transform of `maf` with its directions swapped. The
    forward direction is 1 pass a layer, the inverse sequential: made for variational inference,
    slow to train on given data. With a context, the layer at the noise draws from a Gaussian whose
    mean and scale follow the context too (section 3 there: the encoder's mu_0 and sigma_0).

    Attributes:
        layers: Number of MADE layers.
        hidden: Units of each hidden layer of a MADE.
        batch_norm: Batch norm of the layers; None for none.
        order: Order between two layers: `reverse` reverses the features, `random` draws an
            order from the seed.
        activation: Activation of the MADEs' hidden units.
        log_scale_bound: Bound b of the log scales of all layers: those of the networks, r, become
            `r / (1 + |r| / b)`, so that no row far from the data makes a scale overflow. None leaves
            them as they are.
    """

    family: Literal["iaf"] = "iaf"
    layers: int = 5
    hidden: list[int] = field(default_factory=lambda: [128, 128])
    batch_norm: BatchNormSpec | None = field(default_factory=BatchNormSpec)
    order: Literal["reverse", "random"] = "reverse"
    activation: ActivationName = "tanh"
    log_scale_bound: float | None = None
    masks_columns = True

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        conditioner = Conditioner(self.hidden, self.activation, context_dim)
        layer = conditioner.cost(dim, AFFINE_SIZE).inverted() + permutation_cost(dim)
        total = (layer + batch_norm_cost(dim, self.batch_norm)) * self.layers
        return total + diagonal_cost(dim, context_dim) if context_dim else total

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.maf import build_iaf

        return build_iaf(self, dim, generator, context_dim)


@dataclass(frozen=True)
class HafSpec(Spec):
    """Layers that are a Gaussian MADE on one half of the features and a coupling to the other.

    x_a = mu(x_a) + u_a exp(alpha(x_a)) by a MADE, and x_b = t(x_a) + u_b exp(s(x_a)) by the
    networks of Real NVP; log|det dx/du| = sum of alpha + sum of s. a are the features with an
    even index, counted from 0, in the layer next to the data, and the two halves swap roles every
    layer. The order inside a is natural for two layers, reversed for the next two, and so on.
    There is a batch norm on the noise side of every layer. The inverse is 1 pass a layer; in the
    forward direction half of the features are sequential.

    Attributes:
        layers: Number of layers.
        hidden: Units of each hidden layer of each of a layer's three networks.
        batch_norm: Batch norm of the layers; None for none.
        activation: Activation of the MADEs; the coupling's networks are those of `realnvp`.
        log_scale_bound: Bound b of the log scales of all layers: those of the networks, r, become
            `r / (1 + |r| / b)`, so that no row far from the data makes a scale overflow. None leaves
            them as they are.
    """

    family: Literal["haf"] = "haf"
    layers: int = 5
    hidden: list[int] = field(default_factory=lambda: [128])
    batch_norm: BatchNormSpec | None = field(default_factory=BatchNormSpec)
    activation: ActivationName = "tanh"
    log_scale_bound: float | None = None
    masks_columns = True

    def check_dim(self, dim: int) -> None:
        super().check_dim(dim)
        check_coupling_dim(self.family, dim)

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        def layer(copied: int, moved: int) -> Cost:
            made = self.conditioner(context_dim).cost(copied, AFFINE_SIZE)
            around = permutation_cost(copied) * 2 + permutation_cost(dim)
            return (
                made
                + around
                + coupling_cost(copied, moved, self.hidden, context_dim=context_dim, networks=2)
            )

        norms = batch_norm_cost(dim, self.batch_norm) * self.layers
        return alternating(dim, self.layers, layer) + norms

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.maf import build_haf

        return build_haf(self, dim, generator, context_dim)

    def conditioner(self, context_dim: int) -> Conditioner:
        return Conditioner(self.hidden, self.activation, context_dim)
