"""Elementwise map to heavy tails, trained for each side of each feature."""

import math

import torch
from torch import Tensor, nn

from flows.bijections.base import Batch, Bijection, Given, Mapped, Terms
from flows.bijections.network_layers import MapSpec, NetworkLayer, Reordering, elementwise
from flows.bijections.observed import Observed, masked, only_observed
from flows.bijections.transformers import log_phi, normal_quantile

# Bounds of the weights of tails. Above 1 a tail has no mean, above 2 samples are of no use.
LIGHTEST, HEAVIEST = 1e-3, 2.0
# Weight of each tail before training.
_FIRST = 0.1
_LOG_SLOPE = 0.5 * math.log(2 / math.pi)


class Tails(Bijection):
    """x = s (erfc(|u| / sqrt 2)^-w - 1) / w, s the sign of u and w the weight of the tail of s.

    Hickling and Prangle 2025, "Flexible Tails for Normalizing Flows": Gaussian u get the tails
    of a generalised Pareto distribution, P(|x| > c) ~ c^(-1 / w), and both weights of a feature
    are trained, between 0.001 and 2. log|dx/du| = (w + 1) t + log(2 / pi) / 2 - u^2 / 2 with
    t = -log erfc(|u| / sqrt 2) = log(1 + w |x|) / w. Departure from the paper: neither location
    nor scale, which the layers behind have.
    """

    triangular = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        share = (_FIRST - LIGHTEST) / (HEAVIEST - LIGHTEST)
        self.raw = nn.Parameter(torch.full((2, dim), math.log(share / (1 - share))))

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        u = only_observed(u, observed)
        weight = self._weights(u)
        far = -math.log(2) - log_phi(-u.abs())
        x = u.sign() * torch.expm1(weight * far) / weight
        return x, masked(self._log_slope(weight, far, u), observed).contiguous().sum(dim=1)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        u, log_slopes = self.inverse_terms(x, context, observed)
        return u, log_slopes.contiguous().sum(dim=1)

    def inverse_terms(self, x: Batch, context: Given = None, observed: Observed = None) -> Terms:
        x = only_observed(x, observed)
        weight = self._weights(x)
        far = torch.log1p(weight * x.abs()) / weight
        u = -x.sign() * normal_quantile(-far - math.log(2))
        return u, -masked(self._log_slope(weight, far, u), observed)

    def network_layers(self) -> list[NetworkLayer | Reordering]:
        return [elementwise(list(self._sides()), MapSpec("tails", 2))]

    def _weights(self, rows: Tensor) -> Tensor:
        """Return the weight of the tail that each value is in."""
        left, right = self._sides()
        return torch.where(rows < 0, left, right)

    def _sides(self) -> Tensor:
        """Return the weights of the left and of the right tails."""
        return LIGHTEST + (HEAVIEST - LIGHTEST) * torch.sigmoid(self.raw)

    def _log_slope(self, weight: Tensor, far: Tensor, u: Tensor) -> Tensor:
        return (weight + 1) * far + _LOG_SLOPE - 0.5 * u.square()
