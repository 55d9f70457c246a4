"""Real NVP and NICE: affine and additive coupling layers (Dinh et al. 2017, 2015)."""

import torch

from flows.bijections.affine import DiagonalAffine
from flows.bijections.base import Bijection
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.compose import Chain
from flows.bijections.coupling.affine import Coupling
from flows.bijections.coupling.halves import CouplingShape
from flows.specs.real_nvp import NiceSpec, RealNvpSpec


def build_real_nvp(
    spec: RealNvpSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    parts: list[Bijection] = []
    for layer in range(spec.layers):
        shape = CouplingShape(dim, copies_even=layer % 2 == 0, context_dim=context_dim)
        bound = spec.log_scale_bound
        parts.append(Coupling(shape, spec.hidden, generator, log_scale_bound=bound))
        if spec.batch_norm is not None:
            parts.append(BatchNorm(dim, spec.batch_norm))
    return Chain(parts)


def build_nice(
    spec: NiceSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    parts: list[Bijection] = []
    for layer in range(spec.layers):
        shape = CouplingShape(dim, copies_even=layer % 2 == 0, context_dim=context_dim)
        parts.append(Coupling(shape, spec.hidden, generator, additive=True))
        if spec.batch_norm is not None:
            parts.append(BatchNorm(dim, spec.batch_norm))
    parts.append(DiagonalAffine(dim, context_dim, generator))
    return Chain(parts)
