"""Masked autoencoders (Germain et al. 2015, Papamakarios et al. 2017)."""

import torch

from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.autoregressive.mask_ensemble import MaskEnsemble
from flows.bijections.base import Bijection
from flows.bijections.compose import Chain, Permutation
from flows.bijections.transformers import Affine, Bernoulli, GaussianMixture, Transformer
from flows.specs.costs import Conditioner
from flows.specs.made import MadeSpec


def build_made(
    spec: MadeSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    conditioner, transformer = spec.conditioner(context_dim), _transformer(spec)
    if spec.masks > 1:
        return MaskEnsemble(dim, conditioner, transformer, masks=spec.masks, generator=generator)
    parts: list[Bijection] = []
    if spec.order == "random":
        parts.append(Permutation(torch.randperm(dim, generator=generator)))
    if isinstance(transformer, Affine):
        parts.append(Made(dim, conditioner, generator, spec.log_scale_bound))
    else:
        parts.append(Autoregressive(dim, conditioner, transformer, generator))
    return Chain(parts)


def _transformer(spec: MadeSpec) -> Transformer:
    match spec.conditional:
        case "gaussian":
            return Affine(spec.log_scale_bound)
        case "mixture":
            return GaussianMixture(spec.components, spec.log_scale_bound)
        case "bernoulli":
            return Bernoulli()


class Made(Autoregressive):
    """x_i = shift_i(x_<i) + u_i exp(log_scale_i(x_<i)), in the natural order of the features.

    Papamakarios et al. 2017, equations 3 to 5, with alpha = log_scale and mu = shift.
    log|det du/dx| = -sum of log_scale.
    """

    def __init__(
        self,
        dim: int,
        conditioner: Conditioner,
        generator: torch.Generator,
        log_scale_bound: float | None = None,
    ) -> None:
        super().__init__(dim, conditioner, Affine(log_scale_bound), generator)
        self.log_scale_bound = log_scale_bound
