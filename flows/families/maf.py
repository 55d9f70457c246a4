"""Masked and inverse autoregressive flows, and their hybrid with coupling layers.

Papamakarios et al. (2017) and Kingma et al. (2016).
"""

from typing import Literal

import torch

from flows.bijections.affine import DiagonalAffine
from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.base import Bijection
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.compose import Chain, Inverted, Permutation, Reverse, Slice
from flows.bijections.coupling.affine import Coupling
from flows.bijections.coupling.halves import CouplingShape
from flows.bijections.tails import Tails
from flows.bijections.transformers import GaussianMixture
from flows.families.made import Made
from flows.specs.costs import (
    Conditioner,
)
from flows.specs.maf import HafSpec, IafSpec, MafSpec


def build_maf(
    spec: MafSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    conditioner = Conditioner(spec.hidden, spec.activation, context_dim)
    parts: list[Bijection] = [Tails(dim)] if spec.tails else []
    for layer in range(spec.layers):
        if layer > 0:
            parts.append(reorder(spec.order, dim, generator))
        parts.append(Made(dim, conditioner, generator, spec.log_scale_bound))
        if spec.batch_norm is not None:
            parts.append(BatchNorm(dim, spec.batch_norm))
    if spec.base == "made_mixture":
        mixture = GaussianMixture(spec.components, spec.log_scale_bound)
        parts.append(reorder(spec.order, dim, generator))
        parts.append(Autoregressive(dim, conditioner, mixture, generator))
    return Chain(parts)


def build_iaf(
    spec: IafSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    conditioner = Conditioner(spec.hidden, spec.activation, context_dim)
    parts: list[Bijection] = []
    for layer in range(spec.layers):
        if layer > 0:
            parts.append(reorder(spec.order, dim, generator))
        made = Made(dim, conditioner, generator, spec.log_scale_bound)
        parts.append(Inverted(made))
        if spec.batch_norm is not None:
            parts.append(BatchNorm(dim, spec.batch_norm))
    if context_dim:
        parts.append(DiagonalAffine(dim, context_dim, generator, spec.log_scale_bound))
    return Chain(parts)


def build_haf(
    spec: HafSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    parts: list[Bijection] = []
    for layer in range(spec.layers):
        shape = CouplingShape(dim, copies_even=layer % 2 == 0, context_dim=context_dim)
        bound = spec.log_scale_bound
        parts.append(Coupling(shape, spec.hidden, generator, log_scale_bound=bound))
        half, made = shape.halves()[0], _made(spec, shape, layer, generator)
        parts.append(Slice(dim, half, made))
        if spec.batch_norm is not None:
            parts.append(BatchNorm(dim, spec.batch_norm))
    return Chain(parts)


def _made(spec: HafSpec, shape: CouplingShape, layer: int, generator: torch.Generator) -> Bijection:
    """Return the MADE of a layer, between two reversals where its order is reversed."""
    dim, _ = shape.widths()
    conditioner = spec.conditioner(shape.context_dim)
    made = Made(dim, conditioner, generator, spec.log_scale_bound)
    if layer % 4 < 2:
        return made
    return Chain([Reverse(dim), made, Reverse(dim)])


def reorder(order: Literal["reverse", "random"], dim: int, generator: torch.Generator) -> Bijection:
    """Return the layer between two autoregressive layers."""
    if order == "reverse":
        return Reverse(dim)
    return Permutation(torch.randperm(dim, generator=generator))
