"""Neural spline flows: monotone rational-quadratic splines (Durkan et al. 2019)."""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.autoregressive.masked import Conditioner
from flows.bijections.base import Bijection
from flows.bijections.compose import Chain, Reverse, permutation_cost
from flows.bijections.coupling.halves import CouplingShape, alternating, check_coupling_dim
from flows.bijections.coupling.transformer import TransformerCoupling
from flows.bijections.linear import ActivationName, network_cost
from flows.bijections.network_layers import MapSpec
from flows.bijections.tails import Tails, tails_cost
from flows.bijections.transformers import Affine, MapSize, Parameters, Transformer, Values, map_cost
from flows.cost import Cost
from flows.families.gaussian import Gaussian, gaussian_cost
from flows.families.made import Made
from flows.families.spec import Spec

# Of a bin's width and height, as parts of the whole, and of the derivative at a knot.
LEAST_SIZE = LEAST_SLOPE = 1e-3
MAX_BINS = 500
# The number whose derivative is 1 by softplus: parameters of 0 are the identity.
SLOPE_OFFSET = math.log(math.expm1(1 - LEAST_SLOPE))


@dataclass(frozen=True)
class NsfSpec(Spec):
    """Layers of rational-quadratic splines, autoregressive or by coupling.

    The layer next to the data has the natural order, which is reversed before each following one;
    coupling layers copy the features with an even index, counted from 0, then those with an odd
    one. The inverse is 1 pass a layer. The forward direction is sequential, of coupling layers 1
    pass.

    Unlike in the paper, the networks have no residual blocks, and there is no random permutation with a
    trained linear map between the layers: `linear` adds such a map, without the permutation.

    Attributes:
        layers: Number of layers of splines.
        hidden: Units of each hidden layer of a layer's network.
        bins: Number of bins of a spline.
        tail_bound: Bound of the splines, which bend between minus this and this, in standard deviations where the
            data are standardised; beyond, they are the identity.
        coupling: True if one half of the features conditions the other; otherwise each is
            conditioned on those before it.
        linear: True for a trained linear map before each layer of splines, as a product of
            two triangular matrices, and a shift, as in the paper: for features that are highly
            correlated, of which splines within `tail_bound` see little.
        activation: Activation of the networks; `tanh` bounds the splines' parameters on outliers, where
            `relu`, the paper's choice, makes splines so flat that sampling loses digits.
        tails: True for heavy tails, trained for each side of each feature, next to the data.
        affine_layers: Number of layers of `maf` next to the data, in front of the splines, with tanh
            units: for features that nearly follow from others, such as a ratio of two of them, whose
            narrow conditionals affine maps find in fewer steps than splines.
    """

    family: Literal["nsf"] = "nsf"
    layers: int = 5
    hidden: list[int] = field(default_factory=lambda: [128, 128])
    bins: int = 8
    tail_bound: float = 5.0
    coupling: bool = False
    linear: bool = False
    activation: ActivationName = "tanh"
    tails: bool = False
    affine_layers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.bins <= MAX_BINS:
            raise ValueError(f"bins must be from 2 to {MAX_BINS}")
        if self.affine_layers and self.coupling:
            raise ValueError("affine_layers are autoregressive: they need coupling false")

    @property
    def masks_columns(self) -> bool:
        return not self.linear

    def check_dim(self, dim: int) -> None:
        super().check_dim(dim)
        if self.coupling:
            check_coupling_dim("nsf with coupling", dim)

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        layers = self._layers_cost(dim, context_dim)
        if self.affine_layers:
            affine = self._affine_conditioner(context_dim).cost(dim, Affine.size)
            layers += (affine + permutation_cost(dim)) * self.affine_layers
        return layers + tails_cost(dim) if self.tails else layers

    def _layers_cost(self, dim: int, context_dim: int) -> Cost:
        size = RationalQuadratic.size(self.bins)
        between = permutation_cost(dim)
        if self.linear:
            between += gaussian_cost(dim, full=True) * 2 + permutation_cost(dim)
        if not self.coupling:
            return (self._conditioner(context_dim).cost(dim, size) + between) * self.layers

        def layer(copied: int, moved: int) -> Cost:
            widths = [copied + context_dim, *self.hidden, size.outputs * moved]
            return network_cost(widths) + map_cost(moved, size)

        return alternating(dim, self.layers, layer) + between * self.layers

    def build(self, dim: int, generator: torch.Generator, context_dim: int = 0) -> Bijection:
        parts: list[Bijection] = [Tails(dim)] if self.tails else []
        for _ in range(self.affine_layers):
            parts += [Made(dim, self._affine_conditioner(context_dim), generator), Reverse(dim)]
        for layer in range(self.layers):
            if self.linear:
                # Lower triangular, and in between reversed upper triangular.
                lower, upper = (Gaussian(dim, full=True, generator=generator) for _ in range(2))
                parts += [lower, Reverse(dim), upper]
            if self.coupling:
                shape = CouplingShape(dim, copies_even=layer % 2 == 0, context_dim=context_dim)
                parts.append(self._coupling(shape, generator))
                continue
            if layer > 0:
                parts.append(Reverse(dim))
            conditioner = self._conditioner(context_dim)
            parts.append(Autoregressive(dim, conditioner, self._transformer(), generator))
        return Chain(parts)

    def _coupling(self, shape: CouplingShape, generator: torch.Generator) -> Bijection:
        transformer = self._transformer()
        return TransformerCoupling(shape, self.hidden, self.activation, transformer, generator)

    def _conditioner(self, context_dim: int) -> Conditioner:
        return Conditioner(self.hidden, self.activation, context_dim)

    def _affine_conditioner(self, context_dim: int) -> Conditioner:
        return Conditioner(self.hidden, "tanh", context_dim)

    def _transformer(self) -> "RationalQuadratic":
        return RationalQuadratic(self.bins, self.tail_bound)


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
        self.outputs = self.size(bins).outputs
        self.bins, self.tail_bound = bins, tail_bound
        # Softmax plus this, times bins' total, are the sizes: a share of LEAST_SIZE at least.
        self._floor = LEAST_SIZE / (1 - LEAST_SIZE * bins)
        self._total = 1 + self._floor * bins

    @staticmethod
    def size(bins: int) -> MapSize:
        """Return the numbers of a spline."""
        return MapSize(3 * bins - 1, kept=6 * bins + 50, used=8 * bins + 50, operations=120)

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
        numbers = (float(self.bins), float(self.tail_bound), self._floor, self._total)
        return MapSpec("spline", self.outputs, numbers)

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
