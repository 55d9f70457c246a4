"""Neural spline flows: monotone rational-quadratic splines (Durkan et al. 2019)."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.base import Bijection
from flows.bijections.compose import Chain, Reverse
from flows.bijections.coupling.halves import CouplingShape
from flows.bijections.coupling.transformer import TransformerCoupling
from flows.bijections.network_layers import MapSpec, spline_map
from flows.bijections.tails import Tails
from flows.bijections.transformers import Parameters, Transformer, Values
from flows.families.gaussian import Gaussian
from flows.families.made import Made
from flows.specs.costs import (
    spline_size,
)
from flows.specs.nsf import NsfSpec


def build_nsf(
    spec: NsfSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    parts: list[Bijection] = [Tails(dim)] if spec.tails else []
    for _ in range(spec.affine_layers):
        parts += [Made(dim, spec.affine_conditioner(context_dim), generator), Reverse(dim)]
    for layer in range(spec.layers):
        if spec.linear:
            # Lower triangular, and in between reversed upper triangular.
            lower, upper = (Gaussian(dim, full=True, generator=generator) for _ in range(2))
            parts += [lower, Reverse(dim), upper]
        if spec.coupling:
            shape = CouplingShape(dim, copies_even=layer % 2 == 0, context_dim=context_dim)
            parts.append(_coupling(spec, shape, generator))
            continue
        if layer > 0:
            parts.append(Reverse(dim))
        conditioner = spec.conditioner(context_dim)
        parts.append(Autoregressive(dim, conditioner, _transformer(spec), generator))
    return Chain(parts)


def _coupling(spec: NsfSpec, shape: CouplingShape, generator: torch.Generator) -> Bijection:
    transformer = _transformer(spec)
    return TransformerCoupling(shape, spec.hidden, spec.activation, transformer, generator)


def _transformer(spec: NsfSpec) -> "RationalQuadratic":
    return RationalQuadratic(spec.bins, spec.tail_bound)


# Of the derivative at a knot.
LEAST_SLOPE = 1e-3
# The number whose derivative is 1 by softplus: parameters of 0 are the identity.
SLOPE_OFFSET = math.log(math.expm1(1 - LEAST_SLOPE))


class RationalQuadratic(Transformer):
    """An increasing spline of quotients of quadratics (Durkan et al. 2019, equations 4 to 8).

    From data to noise it is the spline, from noise to data the root of a quadratic. It maps
    [-tail_bound, tail_bound] to itself; outside it is the identity, with slope 1 at the seam. The
    parameters are logits of the bins' widths, logits of their heights, and the slopes at the
    knots between them, through softplus. A bin is at least 0.001 of the interval wide and high,
    a slope at least 0.001. With parameters of 0 the map is the identity.

    We depart from the paper's code in scale and offset of the parameters: it divides the logits
    of coupling layers by the square root of the hidden units, and a slope parameter of 0 gives it
    softplus(0).
    """

    overflows = False

    def __init__(self, bins: int, tail_bound: float) -> None:
        self.outputs = spline_size(bins).outputs
        self.bins, self.tail_bound = bins, tail_bound
        *_, self._floor, self._total = spline_map(bins, tail_bound).numbers

    def inverse(self, x: Values, parameters: Parameters) -> tuple[Values, Values]:
        place = self._scaled(x)
        bend = self._bin(place, parameters, axis=0)
        theta = (place - bend.left) / bend.width
        log_det, slope_below, denominator = bend.log_slope(theta)
        u = self._unscaled(
            torch.addcmul(bend.bottom, bend.height, theta * slope_below / denominator)
        )
        return self._with_tails(x, u, log_det)

    def forward(self, u: Values, parameters: Parameters) -> tuple[Values, Values]:
        place = self._scaled(u)
        bend = self._bin(place, parameters, axis=1)
        theta = bend.solve(place - bend.bottom)
        log_slope, _, _ = bend.log_slope(theta)
        x = self._unscaled(torch.addcmul(bend.left, bend.width, theta))
        return self._with_tails(u, x, -log_slope)

    def map_spec(self) -> MapSpec:
        return spline_map(self.bins, self.tail_bound)

    def _bin(self, place: Tensor, parameters: Tensor, *, axis: int) -> "_Bin":
        """Return the bin of each number along an axis: 0 are the data, 1 is the noise."""
        bins = self.bins
        logits = parameters[: 2 * bins].view(2, bins, *place.shape)
        sizes = torch.softmax(logits, dim=1) + self._floor
        ends = sizes.cumsum(dim=1)
        # Of the knots inside the interval alone, so that every number has a bin, NaN too.
        index = (place >= ends[axis, :-1]).sum(dim=0)
        both = index.expand(2, 1, *index.shape)
        width, height = sizes.gather(1, both)[:, 0]
        right, top = ends.gather(1, both)[:, 0]
        seams = (0, 0) * index.dim() + (1, 1)
        slopes = F.pad(parameters[2 * bins :], seams).gather(0, torch.stack([index, index + 1]))
        first, second = F.softplus(slopes + SLOPE_OFFSET) + LEAST_SLOPE
        slope = height / width
        bend = torch.sub(first + second, slope, alpha=2)
        return _Bin(right - width, top - height, width, height, first, second, slope, bend)

    def _scaled(self, rows: Tensor) -> Tensor:
        """Return the spline in units in which the interval goes from 0 to the sum of all sizes."""
        bound = self.tail_bound
        return (rows.clamp(-bound, bound) + bound) * (self._total / (2 * bound))

    def _unscaled(self, place: Tensor) -> Tensor:
        return place * (2 * self.tail_bound / self._total) - self.tail_bound

    def _with_tails(self, rows: Tensor, mapped: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        bends = rows.abs() <= self.tail_bound
        return torch.where(bends, mapped, rows), log_det.masked_fill(~bends, 0)


class _Bin(NamedTuple):
    """One bin for each number: its corner, size, slopes at its two knots, and mean slope.

    `bend` is the sum of the knots' slopes less twice the mean one.
    """

    left: Tensor
    bottom: Tensor
    width: Tensor
    height: Tensor
    first: Tensor
    second: Tensor
    slope: Tensor
    bend: Tensor

    def log_slope(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logarithm of the derivative at a part theta of the width (equation 5).

        Returns:
            It, and two terms of the value: height theta times the first over the second.
        """
        below = torch.lerp(self.first, self.slope, theta)
        above = torch.lerp(self.slope, self.second, theta)
        hump = torch.addcmul(theta, theta, theta, value=-1)  # theta (1 - theta)
        denominator = torch.addcmul(self.slope, self.bend, hump)
        quotient = self.slope / denominator
        log_slope = torch.log(torch.lerp(below, above, theta) * quotient * quotient)
        return log_slope, below, denominator

    def solve(self, rise: Tensor) -> Tensor:
        """Return the part theta of the width at which the spline is `rise` above the bin's corner.

        The root of a theta^2 + b theta - c (equations 6 to 8), in the form that does not
        subtract numbers of the same sign.
        """
        b = torch.addcmul(self.height * self.first, rise, self.bend, value=-1)
        a = torch.addcmul(-b, self.height, self.slope)
        c = self.slope * rise
        square = torch.addcmul(b * b, a, c, value=4)
        root = square.clamp(min=torch.finfo(c.dtype).tiny).sqrt()
        falls = b < 0
        return torch.where(falls, root - b, c + c) / torch.where(falls, a + a, root + b)
