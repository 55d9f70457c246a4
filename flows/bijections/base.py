"""Bijections: direction and sign conventions.

`u` is noise, `x` is data. `forward` goes from noise to data, `inverse` from data to noise, and
each returns the log-determinant of the direction that it was called in, one value a row:
log p(x) = log p_u(u) + log|det du/dx|, with a standard Gaussian p_u. A context conditions both
directions: the density of x given it. A mask names the observed features of x, in both directions
(`flows.bijections.observed`); without a mask all are.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.bijections.network_layers import NetworkLayer, Reordering
from flows.bijections.observed import Observed, masked, only_observed
from flows.errors import FlowError

LOG_TWO_PI = math.log(2 * math.pi)
NO_CONDITIONALS = (
    "only one autoregressive layer, or several in the same order, give each feature a density given"
    " those before it"
)

# A batch of rows, the values that condition it, and a number for each of its rows.
Batch = Float[Tensor, "batch dim"]
Given = Float[Tensor, "batch context_dim"] | None
PerRow = Float[Tensor, " batch"]
# Rows of the other side with their log-determinants, and with the term of each feature.
Mapped = tuple[Batch, PerRow]
Terms = tuple[Batch, Batch]


@dataclass(frozen=True, eq=False)
class Conditionals:
    """Densities of single features given those before them.

    Attributes:
        log_probs: Log density of each feature given those before it, in nats.
        means: Mean of each feature given those before it; NaN where it is not known in closed form.
    """

    log_probs: Batch
    means: Batch


class Bijection(nn.Module, ABC):
    """Invertible map of rows, unconditional or conditioned on a context.

    Attributes:
        dim: Number of features of a row.
        context_dim: Number of values per row that condition the map; 0 if there are none.
        has_noise: True if data can be mapped to noise. A layer without noise is the last one of a
            flow and has only `log_density` and the forward direction.
        own_density: True if `log_density` is not just the inverse and the Gaussian density.
        triangular: True if the noise of a feature depends on it and on those before it alone.
        is_affine: True if a feature is an affine function of its noise, given those before it.
        exact_marginals: True if the density of what is observed is the marginal of that of whole rows;
            the masks of such a flow may say what of the context is observed, before the features.
    """

    dim: int
    context_dim: int = 0
    has_noise: bool = True
    own_density: bool = False
    triangular: bool = False
    is_affine: bool = False
    exact_marginals: bool = False

    @abstractmethod
    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        """Map noise to data, with log|det dx/du|."""

    @abstractmethod
    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        """Map data to noise, with log|det du/dx|.

        Raises:
            FlowError: The layer has no noise.
        """

    def log_density(self, x: Batch, context: Given = None, observed: Observed = None) -> PerRow:
        """Return the log density of rows whose noise is standard Gaussian, in nats."""
        u, log_det = self.inverse(x, context, observed)
        return log_det + standard_normal(u, observed)

    def noise_mask(self, observed: Observed) -> Observed:
        """Return the mask of the noise, from that of the data: layers may reorder features."""
        return observed

    def log_parts(self, x: Batch, context: Given = None) -> Float[Tensor, "batch 2"]:
        """Return the log densities of what is discrete and of what is continuous in each row.

        Raises:
            FlowError: The density has no such parts.
        """
        raise FlowError("a density of this family has no discrete and continuous parts")

    def inverse_terms(self, x: Batch, context: Given = None, observed: Observed = None) -> Terms:
        """Return the noise, and log du_i/dx_i of each feature.

        Raises:
            FlowError: The layer is not triangular, or has no noise.
        """
        if self.dim > 1:
            raise FlowError(NO_CONDITIONALS)
        u, log_det = self.inverse(x, context, observed)
        return u, log_det[:, None]

    def conditionals(
        self, x: Batch, context: Given = None, observed: Observed = None
    ) -> Conditionals:
        """Return the density of each feature given those before it, where noise is Gaussian.

        Raises:
            FlowError: The layer is not triangular.
        """
        if self.own_density and self.dim == 1:
            score = self.log_density(x, context, observed)[:, None]
            return Conditionals(score, torch.full_like(score, torch.nan))
        x = only_observed(x, observed)
        u, slopes = self.inverse_terms(x, context, observed)
        scores = masked(slopes - 0.5 * u.square() - 0.5 * LOG_TWO_PI, observed)
        means = x - u * torch.exp(-slopes) if self.is_affine else torch.full_like(x, torch.nan)
        return Conditionals(scores, known_means(means, observed))

    def continuous(self) -> "Bijection | None":
        """Return the bijection of the continuous values of a row; None if it has none."""
        return self

    def continuous_rows(
        self, x: Batch, context: Given = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the rows, context and mask that the bijection of the continuous values takes."""
        return x, context, None

    def parts(self) -> list["Bijection"]:
        """Return the layers that this one is composed of, from the data to the noise."""
        return [self]

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        """Return the layer as weights, from the data to the noise; None if engines do not know it."""
        return None


def known_means(means: Batch, observed: Observed) -> Batch:
    """Return the means of what is observed, and NaN for all others."""
    return means if observed is None else torch.where(observed > 0, means, torch.nan)


def standard_normal(u: Batch, observed: Observed = None) -> PerRow:
    """Return the log density of standard Gaussian rows, in nats.

    Args:
        u: Rows, 0 where they are not observed.
        observed: Mask of the rows, in any order of the features.
    """
    squares = -0.5 * u.square().sum(dim=1)
    if observed is None:
        return squares - 0.5 * u.shape[1] * LOG_TWO_PI
    return squares - (0.5 * LOG_TWO_PI * observed.sum(dim=1, dtype=torch.float64)).to(u.dtype)
