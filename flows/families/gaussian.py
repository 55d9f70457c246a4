"""Gaussian densities, with a diagonal or a full covariance."""

import numpy as np
import torch
from torch import Tensor, nn

from flows.bijections.base import Batch, Bijection, Given, Mapped, Terms
from flows.bijections.linear import initial_linear
from flows.bijections.network_layers import (
    ADDITIVE,
    LayerNetwork,
    NetworkLayer,
    Reordering,
    elementwise,
)
from flows.bijections.observed import Observed, masked, only_observed, refuse_mask
from flows.specs.gaussian import GaussianSpec


def build_gaussian(
    spec: GaussianSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    full = spec.covariance == "full"
    return Gaussian(dim, full=full, generator=generator, context_dim=context_dim)


# The least that tells seeds apart: the untrained density is all but the standard Gaussian.
INITIAL_BOUND = 0.01


class Gaussian(Bijection):
    """x = m + L u with a lower triangular L: a Gaussian of mean m and covariance L L^T.

    L = diag(exp(log_scale)) T, where T is triangular with ones on its diagonal (the identity if
    the covariance is diagonal). Every covariance that is not singular has exactly one such L, and
    log|det du/dx| = -sum of log_scale (Kucukelbir et al. 2017, section 2.4, with the diagonal as
    an exponential). A context c adds a linear map of itself to m and to log_scale; T is shared.

    Both directions cost dim^2 a row, or dim if the covariance is diagonal.
    """

    triangular = True
    is_affine = True
    rows: Tensor
    columns: Tensor

    def __init__(
        self, dim: int, *, full: bool, generator: torch.Generator, context_dim: int = 0
    ) -> None:
        super().__init__()
        self.dim = dim
        self.context_dim = context_dim
        self.shift = _initial(dim, generator)
        self.log_scale = _initial(dim, generator)
        size = dim if full else 1
        rows, columns = torch.tril_indices(size, size, offset=-1)
        self.lower = _initial(len(rows), generator) if full and dim > 1 else None
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.context_weight = None
        if context_dim > 0:
            self.context_weight = nn.Parameter(initial_linear(context_dim, 2 * dim, generator)[0])

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        shift, log_scale = self._condition(context, observed, u.shape[0])
        u = only_observed(u, observed)
        mixed = u if self.lower is None else u @ self._triangle(self.lower).t()
        return torch.addcmul(shift, log_scale.exp(), mixed), log_scale.sum(dim=1)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        u, log_slopes = self.inverse_terms(x, context, observed)
        return u, log_slopes.sum(dim=1)

    def inverse_terms(self, x: Batch, context: Given = None, observed: Observed = None) -> Terms:
        shift, log_scale = self._condition(context, observed, x.shape[0])
        u = (only_observed(x, observed) - shift) * torch.exp(-log_scale)
        if self.lower is not None:
            triangle = self._triangle(self.lower)
            u = torch.linalg.solve_triangular(triangle, u.t(), upper=False, unitriangular=True).t()
        return u, -log_scale

    def network_layers(self) -> list[NetworkLayer | Reordering]:
        layers: list[NetworkLayer | Reordering] = [
            elementwise([self.shift, self.log_scale], context_weight=self.context_weight)
        ]
        if self.lower is not None:
            triangle = self._triangle(self.lower.double())
            identity = torch.eye(self.dim).to(triangle)
            rest = torch.linalg.solve_triangular(
                triangle, identity, upper=False, unitriangular=True
            )
            shift = (identity - rest).to(self.shift)
            network = LayerNetwork([shift], [[torch.zeros_like(self.shift)]], "relu")
            layers.append(NetworkLayer([network], ADDITIVE, degrees=[np.arange(1, self.dim + 1)]))
        return layers

    def _condition(
        self, context: Tensor | None, observed: Tensor | None, rows: int
    ) -> tuple[Tensor, Tensor]:
        """Return shift and log scale of each row."""
        if self.lower is not None:
            refuse_mask(observed)
        shift, log_scale = self.shift.expand(rows, -1), self.log_scale.expand(rows, -1)
        if self.context_weight is not None and context is not None:
            more_shift, more_log_scale = (context @ self.context_weight.t()).chunk(2, dim=1)
            shift, log_scale = shift + more_shift, log_scale + more_log_scale
        return masked(shift, observed), masked(log_scale, observed)

    def _triangle(self, lower: Tensor) -> Tensor:
        """T."""
        identity = torch.eye(self.dim, dtype=lower.dtype, device=lower.device)
        return identity.index_put((self.rows, self.columns), lower)


def _initial(size: int, generator: torch.Generator) -> nn.Parameter:
    value = torch.empty(size).uniform_(-INITIAL_BOUND, INITIAL_BOUND, generator=generator)
    return nn.Parameter(value)
