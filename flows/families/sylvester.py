"""Sylvester flows (van den Berg et al. 2018)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import Batch, Bijection, Given, Mapped
from flows.bijections.observed import Observed, refuse_mask
from flows.bijections.thin_layers import LayerParameters, bend_log_slope, oriented, positive, unbend
from flows.specs.sylvester import SylvesterSpec, raw_widths


def build_sylvester(
    spec: SylvesterSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    units = dim if spec.units is None else spec.units
    layers = Sylvester(dim, units, layers=spec.layers, context_dim=context_dim, generator=generator)
    return oriented(layers, spec.closed)


# Standard deviations when training starts: of a row above the diagonals, and of the gains g.
INITIAL_TRIANGLE, INITIAL_GAIN = 0.1, 0.1


class Sylvester(Bijection):
    """x = z_K of z_0 = u and z_k = z_(k-1) + Q R h(S Q^T z_(k-1) + b), h = tanh.

    Van den Berg et al. 2018, section 3, S being their R~: Q has M orthonormal columns,
    R and S are upper triangular. log|det dx/du| = sum of log(1 + h'_i R_ii S_ii) over units and
    layers. A layer is invertible if R_ii S_ii > -1; we have S_ii = e^s > 0, which is no
    restriction as tanh is odd, and R_ii = m(g) / S_ii with m as in `flows.families.planar`, where their
    code bounds both diagonals by tanh. Q is a product of M Householder reflections, computed at once
    by its compact form I - V T V^T.

    forward costs 4 D M operations a row and layer. inverse: with p = Q^T z_(k-1) and
    a = S p + b, Q^T z_k = p + R tanh a. The matrices are triangular, so p and a follow from the
    last unit to the first, each of one root: with e_i, c_i what the later units give to a_i and
    to Q^T z_k, S_ii (Q^T z_k - c)_i + e_i = a_i + R_ii S_ii tanh a_i.
    """

    def __init__(
        self, dim: int, units: int, *, layers: int, context_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.dim = dim
        self.units = units
        self.context_dim = context_dim
        self._widths = raw_widths(dim, units)
        above = INITIAL_TRIANGLE * units**-0.5
        stds = [1.0, above, above, INITIAL_GAIN, 0.0, 1.0]
        base = [
            torch.randn(layers, width, generator=generator) * std
            for width, std in zip(self._widths, stds, strict=True)
        ]
        self.raw = LayerParameters(
            torch.cat(base, dim=1), context_dim=context_dim, generator=generator
        )

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        layers = self.layers(context)
        reads, writes = layers.inner @ layers.basis.mT, layers.basis @ layers.outer
        z, bends = u, []
        for read, write, bias in zip(reads, writes, layers.bias, strict=True):
            t = torch.tanh(_product(read, z) + bias)
            z = z + _product(write, t)
            bends.append(t)
        return z, bend_log_slope(torch.stack(bends), layers.gain).sum(dim=(0, 2))

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        layers = self.layers(context)
        writes = layers.basis @ layers.outer
        z, bends = x, []
        for layer in range(len(writes) - 1, -1, -1):
            t = self._bends(_product(layers.basis[layer].mT, z), layers, layer)
            z = z - _product(writes[layer], t)
            bends.append(t)
        log_slope = bend_log_slope(torch.stack(bends[::-1]), layers.gain)
        return z, -log_slope.sum(dim=(0, 2))

    def _bends(self, rest: Tensor, layers: "Layers", layer: int) -> Tensor:
        """Return tanh(S p + b) of all units, of Q^T z_k: back substitution, from the last unit."""
        outer, inner, gain = layers.outer[layer], layers.inner[layer], layers.gain[layer]
        a = layers.bias[layer].expand_as(rest)
        found = []
        for unit in range(self.units - 1, -1, -1):
            slope = inner[:, unit, unit]
            root, _ = unbend(slope * rest[:, unit] + a[:, unit], gain[:, unit])
            t = torch.tanh(root)
            p = rest[:, unit] - outer[:, unit, unit] * t
            rest = rest[:, :unit] - outer[:, :unit, unit] * t[:, None]
            a = a[:, :unit] + inner[:, :unit, unit] * p[:, None]
            found.append(t)
        return torch.stack(found[::-1], dim=1)

    def layers(self, context: Given) -> "Layers":
        """Return the matrices and vectors of all layers, for each row of a context."""
        raw = self.raw(context).split(self._widths, dim=2)
        reflections, outer, inner, gain, log_scale, bias = raw
        gain = positive(gain)
        return Layers(
            basis=orthonormal(reflections.reshape(*reflections.shape[:2], self.dim, self.units)),
            outer=_triangular(outer, (gain - 1) * torch.exp(-log_scale)),
            inner=_triangular(inner, torch.exp(log_scale)),
            gain=gain,
            bias=bias,
        )


@dataclass(frozen=True)
class Layers:
    """All layers: Q, R, S, 1 + R_ii S_ii and b."""

    basis: Float[Tensor, "layers rows dim units"]
    outer: Float[Tensor, "layers rows units units"]
    inner: Float[Tensor, "layers rows units units"]
    gain: Float[Tensor, "layers rows units"]
    bias: Float[Tensor, "layers rows units"]


def orthonormal(
    vectors: Float[Tensor, "*batch dim units"],
) -> Float[Tensor, "*batch dim units"]:
    """Return the first columns of the product of the reflections I - 2 v v^T / |v|^2, in this order.

    With unit columns V the product is I - V T V^T, T upper triangular and
    T^-1 + T^-T = V^T V (Joffrain et al. 2006, the UT transform).
    """
    units = vectors.shape[-1]
    v = F.normalize(vectors, dim=-2)
    half = torch.eye(units, dtype=v.dtype, device=v.device) / 2
    inverse_t = torch.triu(v.mT @ v, diagonal=1) + half
    inner: Tensor = torch.linalg.solve_triangular(inverse_t, v[..., :units, :].mT, upper=True)
    first = torch.eye(vectors.shape[-2], units, dtype=v.dtype, device=v.device)
    return first - v @ inner


def _triangular(above: Tensor, diagonal: Tensor) -> Tensor:
    """Return upper triangular matrices from the values above the diagonal and on it."""
    units = diagonal.shape[-1]
    rows, columns = torch.triu_indices(units, units, offset=1, device=above.device)
    flat = above.new_zeros(*above.shape[:-1], units * units)
    strict = flat.index_copy(-1, rows * units + columns, above)
    return strict.view(*above.shape[:-1], units, units) + torch.diag_embed(diagonal)


def _product(matrix: Float[Tensor, "rows out in"], z: Float[Tensor, "batch in"]) -> Tensor:
    """Return the product of each row with its matrix, or with the only one."""
    if len(matrix) == 1:
        return z @ matrix[0].mT
    return torch.einsum("noi,ni->no", matrix, z)
