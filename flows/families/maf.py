"""Masked and inverse autoregressive flows, and their hybrid with coupling layers.

Papamakarios et al. (2017) and Kingma et al. (2016).
"""

from dataclasses import dataclass, field
from typing import Literal

import torch

from flows.bijections.affine import DiagonalAffine, diagonal_cost
from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.autoregressive.masked import Conditioner
from flows.bijections.base import Bijection
from flows.bijections.batch_norm import BatchNorm, BatchNormSpec, batch_norm_cost
from flows.bijections.compose import Chain, Inverted, Permutation, Reverse, Slice, permutation_cost
from flows.bijections.coupling.affine import Coupling, coupling_cost
from flows.bijections.coupling.halves import CouplingShape, alternating, check_coupling_dim
from flows.bijections.linear import ActivationName
from flows.bijections.tails import Tails, tails_cost
from flows.bijections.transformers import Affine, GaussianMixture
from flows.cost import Cost
from flows.families.made import Made
from flows.families.spec import Spec


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
        layer = conditioner.cost(dim, Affine.size) + permutation_cost(dim)
        total = (layer + batch_norm_cost(dim, self.batch_norm)) * self.layers
        if self.base == "made_mixture":
            total += conditioner.cost(dim, GaussianMixture.size(self.components))
            total += permutation_cost(dim)
        return total + tails_cost(dim) if self.tails else total

    def build(self, dim: int, generator: torch.Generator, context_dim: int = 0) -> Bijection:
        conditioner = Conditioner(self.hidden, self.activation, context_dim)
        parts: list[Bijection] = [Tails(dim)] if self.tails else []
        for layer in range(self.layers):
            if layer > 0:
                parts.append(reorder(self.order, dim, generator))
            parts.append(Made(dim, conditioner, generator, self.log_scale_bound))
            if self.batch_norm is not None:
                parts.append(BatchNorm(dim, self.batch_norm))
        if self.base == "made_mixture":
            mixture = GaussianMixture(self.components, self.log_scale_bound)
            parts.append(reorder(self.order, dim, generator))
            parts.append(Autoregressive(dim, conditioner, mixture, generator))
        return Chain(parts)


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
        layer = conditioner.cost(dim, Affine.size).inverted() + permutation_cost(dim)
        total = (layer + batch_norm_cost(dim, self.batch_norm)) * self.layers
        return total + diagonal_cost(dim, context_dim) if context_dim else total

    def build(self, dim: int, generator: torch.Generator, context_dim: int = 0) -> Bijection:
        conditioner = Conditioner(self.hidden, self.activation, context_dim)
        parts: list[Bijection] = []
        for layer in range(self.layers):
            if layer > 0:
                parts.append(reorder(self.order, dim, generator))
            made = Made(dim, conditioner, generator, self.log_scale_bound)
            parts.append(Inverted(made))
            if self.batch_norm is not None:
                parts.append(BatchNorm(dim, self.batch_norm))
        if context_dim:
            parts.append(DiagonalAffine(dim, context_dim, generator, self.log_scale_bound))
        return Chain(parts)


def reorder(order: Literal["reverse", "random"], dim: int, generator: torch.Generator) -> Bijection:
    """Return the layer between two autoregressive layers."""
    if order == "reverse":
        return Reverse(dim)
    return Permutation(torch.randperm(dim, generator=generator))


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
            made = self._conditioner(context_dim).cost(copied, Affine.size)
            around = permutation_cost(copied) * 2 + permutation_cost(dim)
            return (
                made
                + around
                + coupling_cost(copied, moved, self.hidden, context_dim=context_dim, networks=2)
            )

        norms = batch_norm_cost(dim, self.batch_norm) * self.layers
        return alternating(dim, self.layers, layer) + norms

    def build(self, dim: int, generator: torch.Generator, context_dim: int = 0) -> Bijection:
        parts: list[Bijection] = []
        for layer in range(self.layers):
            shape = CouplingShape(dim, copies_even=layer % 2 == 0, context_dim=context_dim)
            bound = self.log_scale_bound
            parts.append(Coupling(shape, self.hidden, generator, log_scale_bound=bound))
            half, made = shape.halves()[0], self._made(shape, layer, generator)
            parts.append(Slice(dim, half, made))
            if self.batch_norm is not None:
                parts.append(BatchNorm(dim, self.batch_norm))
        return Chain(parts)

    def _made(self, shape: CouplingShape, layer: int, generator: torch.Generator) -> Bijection:
        """Return the MADE of a layer, between two reversals where its order is reversed."""
        dim, _ = shape.widths()
        conditioner = self._conditioner(shape.context_dim)
        made = Made(dim, conditioner, generator, self.log_scale_bound)
        if layer % 4 < 2:
            return made
        return Chain([Reverse(dim), made, Reverse(dim)])

    def _conditioner(self, context_dim: int) -> Conditioner:
        return Conditioner(self.hidden, self.activation, context_dim)
