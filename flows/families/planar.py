"""Planar flows (Rezende and Mohamed 2015)."""

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import Batch, Bijection, Given, Mapped
from flows.bijections.observed import Observed, refuse_mask
from flows.bijections.thin_layers import LayerParameters, bend_log_slope, oriented, positive, unbend
from flows.specs.planar import PlanarSpec


def build_planar(
    spec: PlanarSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    planar = Planar(dim, spec.layers, context_dim=context_dim, generator=generator)
    return oriented(planar, spec.closed)


# Standard deviation of the free vectors p, when training starts.
INITIAL_PUSH = 0.05


class Planar(Bijection):
    """x = z_K of z_0 = u and z_k = z_(k-1) + v h(w.z_(k-1) + b), h = tanh, each layer its w, v, b.

    Rezende and Mohamed 2015, equations 10 to 12; log|det dx/du| = sum of log|1 + h' w.v|. A layer
    is invertible if w.v > -1. As in their appendix A.1, v is never a parameter itself but
    v = p + (m(w.p) - w.p) w / |w|^2 of a free vector p, so that w.v = m(w.p). Theirs is
    m(a) = -1 + log(1 + e^a); ours is m(a) = -1 + log(1 + (e - 1) e^a), with m(0) = 0, so that
    p = 0 gives the identity and v stays bounded where w is short.

    forward costs 4 D operations a row and layer. inverse: with a = w.z_(k-1) + b,
    w.z_k + b = a + w.v tanh a, an increasing function of a alone, whose root
    gives z_(k-1) = z_k - v tanh a.
    """

    def __init__(
        self, dim: int, layers: int, *, context_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.dim = dim
        self.context_dim = context_dim
        weight = torch.randn(layers, dim, generator=generator) * dim**-0.5
        push = torch.randn(layers, dim, generator=generator) * INITIAL_PUSH
        bias = torch.randn(layers, 1, generator=generator)
        base = torch.cat([weight, push, bias], dim=1)
        self.raw = LayerParameters(base, context_dim=context_dim, generator=generator)

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        weights, pushes, biases, gains = self._layers(context)
        z, bends = u, []
        for weight, push, bias in zip(weights, pushes, biases, strict=True):
            t = torch.tanh((z * weight).sum(dim=1) + bias)
            z = torch.addcmul(z, t[:, None], push)
            bends.append(t)
        return z, bend_log_slope(torch.stack(bends), gains).sum(dim=0)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        weights, pushes, biases, gains = self._layers(context)
        z, log_det = x, x.new_zeros(x.shape[0])
        for layer in range(len(weights) - 1, -1, -1):
            y = (z * weights[layer]).sum(dim=1) + biases[layer]
            a, log_slope = unbend(y, gains[layer])
            z = torch.addcmul(z, torch.tanh(a)[:, None], pushes[layer], value=-1)
            log_det = log_det + log_slope
        return z, log_det

    def _layers(
        self, context: Given
    ) -> tuple[
        Float[Tensor, "layers rows dim"],
        Float[Tensor, "layers rows dim"],
        Float[Tensor, "layers rows"],
        Float[Tensor, "layers rows"],
    ]:
        """Return the w, v, b and 1 + w.v of all layers."""
        weight, free, bias = self.raw(context).split([self.dim, self.dim, 1], dim=2)
        inner = (weight * free).sum(dim=2, keepdim=True)
        gain = positive(inner)
        along = (gain - 1 - inner) / weight.square().sum(dim=2, keepdim=True)
        return weight, free + along * weight, bias.squeeze(2), gain.squeeze(2)
