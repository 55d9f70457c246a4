"""Monotone maps of single columns: data on one side, scores on the other.

Each map is increasing, continuously differentiable, and has an exact inverse. Where a column has
bounds, so has its map: scores from minus to plus infinity are the values between them. The map of a
circle is so from its cut on, once around.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import LOG_TWO_PI
from flows.specs.columns import MixedColumn, TransformName

# Curvature of the scores beyond their reach: data grow with the root of the distance there.
CURVATURE = 4.0
# Reach of scores that are stretched nowhere.
ENDLESS = 1e300


class ColumnFit(NamedTuple):
    """Numbers of a fitted map; which of them count follows from the column's transform.

    Attributes:
        low: Value whose score is minus infinity; minus infinity if there is no bound.
        high: Value whose score is infinity; infinity if there is no bound.
        centre: Centre of asinh; cut of a circle.
        scale: Scale of asinh.
        mean: Mean of the scores.
        std: Standard deviation of the scores.
        tails: Exponents of the lower and upper tail of the quantiles.
        knots: Values of the knots.
        scores: Scores of the knots.
        slopes: Slopes at the knots.
        reach: Standardised scores beyond which data grow slowly; `ENDLESS` on sides
            where they do nowhere.
    """

    low: float
    high: float
    centre: float
    scale: float
    mean: float
    std: float
    tails: Float[Tensor, "2"]
    knots: Float[Tensor, " knots"]
    scores: Float[Tensor, " knots"]
    slopes: Float[Tensor, " knots"]
    reach: Float[Tensor, "2"]


class FittedMaps(NamedTuple):
    """Maps of several columns as tensors, one entry per column; see `ColumnFit`."""

    kinds: Sequence[TransformName]
    low: Tensor
    high: Tensor
    centre: Tensor
    scale: Tensor
    mean: Tensor
    std: Tensor
    tails: Tensor
    knots: Tensor
    scores: Tensor
    slopes: Tensor
    reach: Tensor

    @classmethod
    def of(cls, fits: list[ColumnFit], columns: list[MixedColumn]) -> "FittedMaps":
        """Return the maps of columns."""
        singles = zip(*(fit[:6] for fit in fits), strict=True)
        numbers = [torch.tensor(values, dtype=torch.float64) for values in singles]
        tensors = [torch.stack(values) for values in zip(*(fit[6:] for fit in fits), strict=True)]
        return cls([column.transform for column in columns], *numbers, *tensors)

    def inverse(
        self, x: Float[Tensor, "rows columns"]
    ) -> tuple[Float[Tensor, "rows columns"], Float[Tensor, "rows columns"]]:
        """Map data to standardised scores, with the log derivative; minus infinity outside."""
        y, log_slope = torch.empty_like(x), torch.empty_like(x)
        for kind, chosen in self._by_kind():
            y[:, chosen], log_slope[:, chosen] = _INVERSES[kind](self.select(chosen), x[:, chosen])
        inside = (x > self.low) & (x < self.high)
        if (circles := self._circles()) is not None:
            inside = inside | (circles & x.isfinite())
        y = torch.where(inside | x.isnan(), y, 0.0)
        log_slope = torch.where(inside, log_slope, -torch.inf)
        y, log_bend = self._stretched((y - self.mean) / self.std)
        return y, log_slope - self.std.log() + log_bend

    def forward(
        self, y: Float[Tensor, "rows columns"]
    ) -> tuple[Float[Tensor, "rows columns"], Float[Tensor, "rows columns"]]:
        """Map standardised scores to data, with the log derivative."""
        y, log_bend = self._shrunk(y)
        scores = y * self.std + self.mean
        x, log_slope = torch.empty_like(y), torch.empty_like(y)
        for kind, chosen in self._by_kind():
            found = _FORWARDS[kind](self.select(chosen), scores[:, chosen])
            x[:, chosen], log_slope[:, chosen] = found
        return x, self.std.log() - log_slope - log_bend

    def _stretched(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores that grow with the square of the distance beyond their reach."""
        above = torch.where(y > self.reach[:, 1], y - self.reach[:, 1], 0.0)
        below = torch.where(y < self.reach[:, 0], self.reach[:, 0] - y, 0.0)
        over = above + below
        bend = CURVATURE * (above.square() - below.square())
        return y + bend, torch.log1p(2 * CURVATURE * over)

    def _shrunk(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores whose stretched ones are given, and the log slope of the stretching."""
        inside = y.clamp(self.reach[:, 0], self.reach[:, 1])
        far = y - inside
        over = 2 * far / (1 + (1 + 4 * CURVATURE * far.abs()).sqrt())
        return inside + over, torch.log1p(2 * CURVATURE * over.abs())

    def wrap(self, x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """Return values of circular columns within their first turn, and others as they are."""
        circles = self._circles()
        return x if circles is None else torch.where(circles, _first_turn(self, x), x)

    def _circles(self) -> Tensor | None:
        """Return True for each circular column; None if there are none."""
        circles = [kind == "circular" for kind in self.kinds]
        return torch.tensor(circles, device=self.low.device) if any(circles) else None

    def select(self, chosen: list[int]) -> "FittedMaps":
        """Return the maps of some of the columns."""
        return FittedMaps([self.kinds[i] for i in chosen], *(tensor[chosen] for tensor in self[1:]))

    def _by_kind(self) -> list[tuple[TransformName, list[int]]]:
        kinds = sorted(set(self.kinds))
        return [(kind, [i for i, own in enumerate(self.kinds) if own == kind]) for kind in kinds]


# A map returns the other side, and the logarithm of the slope from data to scores.
_Map = Callable[[FittedMaps, Tensor], tuple[Tensor, Tensor]]


def _same(_maps: FittedMaps, x: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.zeros_like(x)


def _log_inverse(maps: FittedMaps, x: Tensor) -> tuple[Tensor, Tensor]:
    y = (x - maps.low).log()
    return y, -y


def _log_forward(maps: FittedMaps, y: Tensor) -> tuple[Tensor, Tensor]:
    return maps.low + y.exp(), -y


def _logit_inverse(maps: FittedMaps, x: Tensor) -> tuple[Tensor, Tensor]:
    below, above = x - maps.low, maps.high - x
    width = maps.high - maps.low
    return below.log() - above.log(), width.log() - below.log() - above.log()


def _logit_forward(maps: FittedMaps, y: Tensor) -> tuple[Tensor, Tensor]:
    width = maps.high - maps.low
    share = torch.sigmoid(y)
    log_share = torch.nn.functional.logsigmoid
    return maps.low + width * share, -(width.log() + log_share(y) + log_share(-y))


def _asinh_inverse(maps: FittedMaps, x: Tensor) -> tuple[Tensor, Tensor]:
    scaled = (x - maps.centre) / maps.scale
    return scaled.asinh(), -maps.scale.log() - 0.5 * torch.log1p(scaled.square())


def _asinh_forward(maps: FittedMaps, y: Tensor) -> tuple[Tensor, Tensor]:
    # log cosh y, without overflow.
    log_cosh = y.abs() + torch.log1p((-2 * y.abs()).exp()) - math.log(2)
    return maps.centre + maps.scale * y.sinh(), -maps.scale.log() - log_cosh


def _circular_inverse(maps: FittedMaps, x: Tensor) -> tuple[Tensor, Tensor]:
    """Map the share of the turn that lies behind, which is uniform if the score is Gaussian."""
    width, least = maps.high - maps.low, torch.finfo(x.dtype).eps
    share = _turned(x - maps.centre, width) / width
    y = torch.special.ndtri(share.clamp(least, 1 - least))
    return y, 0.5 * (y.square() + LOG_TWO_PI) - width.log()


def _circular_forward(maps: FittedMaps, y: Tensor) -> tuple[Tensor, Tensor]:
    width = maps.high - maps.low
    x = _first_turn(maps, maps.centre + width * torch.special.ndtr(y))
    return x, 0.5 * (y.square() + LOG_TWO_PI) - width.log()


def _first_turn(maps: FittedMaps, x: Tensor) -> Tensor:
    return maps.low + _turned(x - maps.low, maps.high - maps.low)


def _turned(distance: Tensor, width: Tensor) -> Tensor:
    """Return distances without their whole turns: at least 0, less than the width."""
    rest = distance - width * (distance / width).floor()
    return torch.where((rest < 0) | (rest >= width), 0.0, rest)


def _quantiles_inverse(maps: FittedMaps, x: Tensor) -> tuple[Tensor, Tensor]:
    y, log_slope = _spline(maps, x, forward=False)
    for side, sign in ((0, -1.0), (-1, 1.0)):
        edge, slope, bound, tail = _side(maps, side)
        distance = (sign * (x - edge)).clamp(min=0)
        room = sign * (bound - edge)
        # A tail without bound grows like a logarithm, one with a bound falls like one.
        free = torch.log1p(tail * slope * distance) / tail
        closed = -slope * room * torch.log1p(-distance / room)
        score = maps.scores[:, side] + sign * torch.where(room.isinf(), free, closed)
        log_free = slope.log() - torch.log1p(tail * slope * distance)
        log_closed = slope.log() - torch.log1p(-distance / room)
        beyond = distance > 0
        y = torch.where(beyond, score, y)
        log_slope = torch.where(beyond, torch.where(room.isinf(), log_free, log_closed), log_slope)
    return y, log_slope


def _quantiles_forward(maps: FittedMaps, y: Tensor) -> tuple[Tensor, Tensor]:
    x, log_slope = _spline(maps, y, forward=True)
    for side, sign in ((0, -1.0), (-1, 1.0)):
        edge, slope, bound, tail = _side(maps, side)
        rise = (sign * (y - maps.scores[:, side])).clamp(min=0)
        room = sign * (bound - edge)
        free = torch.expm1(tail * rise) / (tail * slope)
        part = rise / (slope * room)  # 0 where the room is infinite
        closed = torch.where(room.isinf(), 0.0, -room * torch.expm1(-part))
        log_free, log_closed = slope.log() - tail * rise, slope.log() + part
        beyond = rise > 0
        is_free = room.isinf()
        x = torch.where(beyond, edge + sign * torch.where(is_free, free, closed), x)
        log_slope = torch.where(beyond, torch.where(is_free, log_free, log_closed), log_slope)
    return x, log_slope


def _side(maps: FittedMaps, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return knot, slope, bound and exponent at the lower end (0) or at the upper one (-1)."""
    bound = maps.low if side == 0 else maps.high
    return maps.knots[:, side], maps.slopes[:, side], bound, maps.tails[:, side]


def _spline(maps: FittedMaps, values: Tensor, *, forward: bool) -> tuple[Tensor, Tensor]:
    """Return the rational-quadratic spline through the knots, or its inverse, and its log slope.

    Durkan et al. 2019, equations 4 to 8; values outside of the knots count as at the outermost ones.
    """
    ends = maps.scores if forward else maps.knots
    places = values.t().clamp(ends[:, :1], ends[:, -1:])
    index = torch.searchsorted(ends, places.contiguous(), right=True) - 1
    index = index.clamp(0, ends.shape[1] - 2)
    left, right = (maps.knots.gather(1, index + i) for i in (0, 1))
    bottom, top = (maps.scores.gather(1, index + i) for i in (0, 1))
    first, second = (maps.slopes.gather(1, index + i) for i in (0, 1))
    width, height = right - left, top - bottom
    mean = height / width
    # In units of the mean slope, whose square may be no float.
    first, second = first / mean, second / mean
    bend = first + second - 2
    if forward:
        rise = (places - bottom) / height
        a = 1 - first + rise * bend
        b = first - rise * bend
        root = (b.square() + 4 * a * rise).clamp(min=0).sqrt()
        theta = 2 * rise / (b + root)
    else:
        theta = (places - left) / width
    hump = theta * (1 - theta)
    denominator = 1 + bend * hump
    slope = second * theta.square() + 2 * hump + first * (1 - theta).square()
    log_slope = mean.log() + slope.log() - 2 * denominator.log()
    if forward:
        return (left + width * theta).t(), log_slope.t()
    y = bottom + height * (theta.square() + first * hump) / denominator
    return y.t(), log_slope.t()


_INVERSES: dict[TransformName, _Map] = {
    "none": _same,
    "log": _log_inverse,
    "logit": _logit_inverse,
    "asinh": _asinh_inverse,
    "quantiles": _quantiles_inverse,
    "circular": _circular_inverse,
}
_FORWARDS: dict[TransformName, _Map] = {
    "none": _same,
    "log": _log_forward,
    "logit": _logit_forward,
    "asinh": _asinh_forward,
    "quantiles": _quantiles_forward,
    "circular": _circular_forward,
}
