"""Radial flows (Rezende and Mohamed 2015)."""

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import Batch, Bijection, Given, Mapped
from flows.bijections.observed import Observed, refuse_mask
from flows.bijections.thin_layers import LayerParameters, oriented, positive
from flows.specs.radial import RadialSpec


def build_radial(
    spec: RadialSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    radial = Radial(dim, spec.layers, context_dim=context_dim, generator=generator)
    return oriented(radial, spec.closed)


# Standard deviation of the raw strengths b, when training starts, times the features.
INITIAL_STRENGTH = 0.2


class Radial(Bijection):
    """x = z_K of z_0 = u and z_k = z_(k-1) + beta (z_(k-1) - c) / (alpha + r), r = |z_(k-1) - c|.

    Rezende and Mohamed 2015, equation 14, each layer with its centre c, alpha > 0 and
    beta > -alpha:
    log|det dx/du| = sum of (D - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2).
    Where their appendix A.2 has beta = -alpha + log(1 + e^b) we have
    beta = alpha (-1 + log(1 + (e - 1) e^b)), so that b = 0 gives the identity.

    forward costs 4 D operations a row and layer, and so does inverse: the distance
    s = |z_k - c| = r (alpha + beta + r) / (alpha + r) of a point is quadratic in r.
    """

    def __init__(
        self, dim: int, layers: int, *, context_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.dim = dim
        self.context_dim = context_dim
        centre = torch.randn(layers, dim, generator=generator)
        size = torch.zeros(layers, 1)
        strength = torch.randn(layers, 1, generator=generator) * (INITIAL_STRENGTH / dim)
        base = torch.cat([centre, size, strength], dim=1)
        self.raw = LayerParameters(base, context_dim=context_dim, generator=generator)

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        centres, alphas, rooms = self._layers(context)
        z, distances = u, []
        for centre, alpha, room in zip(centres, alphas, rooms, strict=True):
            away = z - centre
            r = torch.linalg.vector_norm(away, dim=1)
            z = torch.addcmul(z, away, ((room - alpha) / (alpha + r))[:, None])
            distances.append(r)
        return z, self._log_det(torch.stack(distances), alphas, rooms)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        centres, alphas, rooms = self._layers(context)
        z, distances = x, []
        for layer in range(len(centres) - 1, -1, -1):
            alpha, room = alphas[layer], rooms[layer]
            away = z - centres[layer]
            r = _undo(torch.linalg.vector_norm(away, dim=1), alpha, room)
            z = torch.addcmul(z, away, ((alpha - room) / (room + r))[:, None])
            distances.append(r)
        return z, -self._log_det(torch.stack(distances[::-1]), alphas, rooms)

    def _layers(
        self, context: Given
    ) -> tuple[
        Float[Tensor, "layers rows dim"],
        Float[Tensor, "layers rows"],
        Float[Tensor, "layers rows"],
    ]:
        """Return the c, alpha and alpha + beta of all layers, the last two positive."""
        raw = self.raw(context)
        alpha = self.dim**0.5 * positive(raw[:, :, -2])
        return raw[:, :, :-2], alpha, alpha * positive(raw[:, :, -1])

    def _log_det(self, r: Tensor, alpha: Tensor, room: Tensor) -> Tensor:
        """Return the log-determinant of the paper's map, without differences: alpha + beta is `room`."""
        outer = torch.log(alpha + r)
        across = torch.log(room + r) - outer
        along = torch.log(r.square() + alpha * (2 * r + room)) - 2 * outer
        return ((self.dim - 1) * across + along).sum(dim=0)


def _undo(s: Tensor, alpha: Tensor, room: Tensor) -> Tensor:
    """Return the positive root of r^2 + (room - s) r - alpha s = 0, without cancellation."""
    middle = room - s
    size = torch.where(middle > 0, middle, -middle)
    total = size + torch.sqrt(middle.square() + 4 * alpha * s)
    return torch.where(middle > 0, 2 * alpha * s / total, total / 2)
