"""Affine layer without a network, whose shift and scale may depend on a context."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flows.bijections.base import Batch, Bijection, Given, Mapped
from flows.bijections.linear import uniform
from flows.bijections.network_layers import NetworkLayer, Reordering, affine_map, elementwise
from flows.bijections.observed import Observed, masked
from flows.bijections.transformers import bounded


class DiagonalAffine(Bijection):
    """Elementwise affine map x = shift + u exp(log_scale); both are linear in the context.

    A bound applies to the sum of log_scale and what the context adds.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int,
        generator: torch.Generator,
        log_scale_bound: float | None = None,
    ) -> None:
        super().__init__()
        self.log_scale_bound = log_scale_bound
        self.dim = dim
        self.context_dim = context_dim
        self.shift = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))
        self.context_weight = None
        if context_dim:
            weight = uniform((2 * dim, context_dim), fan_in=context_dim, generator=generator)
            # Small but not 0, so that an encoder before it learns from the start.
            self.context_weight = nn.Parameter(0.1 * weight)

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        shift, log_scale = self._condition(context, observed)
        x = shift + u * torch.exp(log_scale)
        return x, log_scale.expand_as(u).sum(dim=1)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        shift, log_scale = self._condition(context, observed)
        u = (x - shift) * torch.exp(-log_scale)
        return u, -log_scale.expand_as(x).sum(dim=1)

    def network_layers(self) -> list[NetworkLayer | Reordering]:
        spec = affine_map(self.log_scale_bound)
        parameters = [self.shift, self.log_scale]
        return [elementwise(parameters, spec, context_weight=self.context_weight)]

    def _condition(self, context: Tensor | None, observed: Tensor | None) -> tuple[Tensor, Tensor]:
        shift: Tensor = self.shift
        log_scale: Tensor = self.log_scale
        if self.context_weight is not None and context is not None:
            added = F.linear(context, self.context_weight)
            shift, log_scale = shift + added[:, : self.dim], log_scale + added[:, self.dim :]
        log_scale = bounded(log_scale, self.log_scale_bound)
        return masked(shift, observed), masked(log_scale, observed)
