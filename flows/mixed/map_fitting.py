"""Fitting of a column's map to its training values."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from flows.mixed.maps import ENDLESS, ColumnFit, FittedMaps
from flows.specs.columns import MixedColumn
from flows.specs.mixed import KNOTS

# Share of the values beyond the outermost knots, and the least number of them.
TAIL_SHARE, TAIL_ROWS = 2e-3, 8
# Least distance of two knots, as a share of the distance between the outer quartiles: values that many
# rows share would else make a density without bound.
LEAST_GAP = 1e-3
# Largest exponent of a tail, in which a standard deviation of the scores multiplies the distance.
MIN_TAIL, MAX_TAIL = 0.3, 3.0
# Widths of kernels that quantiles of so many values are smoothed by, in scores: times the fifth root of
# their number, in the denominator. More values have little to gain.
WIDTHS = (0.0, 0.25, 0.7)
MIN_SMOOTHED, MAX_SMOOTHED = 50, 5_000
# Distance of the scores over which the slope of a tail is measured.
END_SCORES = 0.5
# Largest distance of a bound from the outermost knot, in deviations: a map without that bound serves a
# further one, since none of its values come near.
FAR = 4.0
# Share of the values on the arc of a circle that its cut is the middle of.
ARC_SHARE = 0.01
# Least spread, as a share of the largest value: below, numbers have too few digits for a map.
LEAST_SPREAD, LEAST_DIGIT = 1e-9, 1e-15
# Distance in standardised scores from the outermost values to the reach of a map, and what is added to
# it, divided by the root of the number of values.
REACH, REACH_OF_FEW = 0.25, 2.0
# Distance of a bound from the values at it, as a share of their spread, where they have no step.
MARGIN = 1e-3

Values = Float[Tensor, " rows"]

_NO_REACH = torch.tensor([-ENDLESS, ENDLESS], dtype=torch.float64)


def fit_column(values: Values, column: MixedColumn, *, smooth: bool = True) -> ColumnFit:
    """Return the map of a column.

    Args:
        values: Continuous values of training rows, with the noise of their step; there may be none.
        column: Column that they belong to.
        smooth: True to smooth the quantiles of few values, which takes several fits.
    """
    values = values[torch.isfinite(values)].double().sort().values
    if len(values) == 0:
        values = torch.tensor([0.0, 1.0], dtype=torch.float64)
    spread = _spread(values)
    if column.transform == "circular" and column.low is not None and column.high is not None:
        return _circle(values, column.low, column.high)
    low, high = _bounds(column, spread)
    values = values[(values > low) & (values < high)]
    if len(values) == 0:
        values = torch.tensor([_inside(low, high)], dtype=torch.float64)
    ends = (low, high)
    chosen = smooth and column.transform == "quantiles"
    width = _width(values, column, ends) if chosen else 0.0
    return _fitted(values, column, ends, width=width)


def _width(values: Values, column: MixedColumn, ends: tuple[float, float]) -> float:
    """Return the width of the kernel that smooths the quantiles of few values best.

    Each width is judged by the likelihood of one half of the values under the map of the other, and the
    reverse. Smooth quantiles lose less to chance; values in clusters want them as they are.
    """
    count = len(values)
    if not MIN_SMOOTHED <= count <= MAX_SMOOTHED:
        return 0.0
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    halves = [values[part.sort().values] for part in order.tensor_split(2)]
    widths: list[float] = [width * count**-0.2 for width in WIDTHS]
    likelihoods = [
        sum(
            _likelihood(_fitted(one, column, ends, width=width), column, other)
            for one, other in (halves, halves[::-1])
        )
        for width in widths
    ]
    return widths[likelihoods.index(max(likelihoods))]


def _likelihood(fit: ColumnFit, column: MixedColumn, values: Values) -> float:
    """Return the mean log-likelihood of values whose scores are Gaussian."""
    scores, log_slopes = FittedMaps.of([fit], [column]).inverse(values[:, None])
    found = float((log_slopes - 0.5 * scores.square()).mean())
    return found if math.isfinite(found) else -math.inf


def _fitted(
    values: Values, column: MixedColumn, ends: tuple[float, float], *, width: float
) -> ColumnFit:
    """Return the map of a column.

    Args:
        values: Ascending values between the ends.
        column: Column that they belong to.
        ends: Bounds of the map.
        width: Width of the kernel that smooths the quantiles, in scores; 0 for none.
    """
    low, high = ends
    spread = _spread(values)
    centre = float(_quantile(values, 0.5))
    knots, scores, slopes = _quantile_knots(values, spread, width)
    knots, scores, slopes = _within(knots, scores, slopes, low, high)
    if column.transform == "quantiles":
        low = low if float((knots[0] - low) * slopes[0]) < FAR else -math.inf
        high = high if float((high - knots[-1]) * slopes[-1]) < FAR else math.inf
    tails = _tails(values, knots, scores, slopes)
    curves = (tails, knots, scores, slopes)
    plain = ColumnFit(low, high, centre, spread, 0.0, 1.0, *curves, _NO_REACH)
    maps = FittedMaps.of([plain], [column])
    found = maps.inverse(values[:, None])[0][:, 0]
    mean, std = _robust_moments(found)
    reach = _reach((found - mean) / std, column)
    return plain._replace(mean=mean, std=std, reach=reach)


def _reach(scores: Values, column: MixedColumn) -> Tensor:
    """Return the standardised scores beyond which data grow slowly.

    Data of a log scale grow like an exponential of the scores. A flow is vague beyond its training
    values, so that it would else draw some many times larger where those end at a lower score than
    Gaussian ones do.
    """
    grows = {"log": (False, True), "asinh": (True, True)}.get(column.transform, (False, False))
    margin = REACH + REACH_OF_FEW / math.sqrt(len(scores))
    outermost = torch.stack([scores.min() - margin, scores.max() + margin])
    ends_early = outermost.abs() < _score_beyond(0.5 / len(scores))
    return torch.where(torch.tensor(grows) & ends_early, outermost, _NO_REACH)


def _circle(values: Values, low: float, high: float) -> ColumnFit:
    """Return the map of a circle, cut in the middle of the arc that the fewest values lie on."""
    width = high - low
    places = torch.remainder(values - low, width).sort().values
    count = 1 + int(ARC_SHARE * len(places))
    turns = -(-count // len(places))
    further = torch.cat([places + turn * width for turn in range(turns + 1)])
    arcs = further[count : count + len(places)] - places
    widest = int(arcs.argmax())
    cut = low + float(torch.remainder(places[widest] + arcs[widest] / 2, width))
    knots = torch.linspace(low, high, KNOTS, dtype=torch.float64)
    flat = torch.full((2,), MIN_TAIL, dtype=torch.float64)
    line = (knots, knots - low, knots * 0 + 1)
    return ColumnFit(low, high, cut, width, 0.0, 1.0, flat, *line, _NO_REACH)


def _inside(low: float, high: float) -> float:
    if math.isfinite(low) and math.isfinite(high):
        return (low + high) / 2
    return low + 1 if math.isfinite(low) else high - 1 if math.isfinite(high) else 0.0


def _quantile(ordered: Values, share: float | Tensor) -> Tensor:
    """Return quantiles of ascending values, interpolated."""
    place = torch.as_tensor(share, dtype=torch.float64) * (len(ordered) - 1)
    below = place.floor().long()
    above = (below + 1).clamp(max=len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], place - below)


def _spread(ordered: Values) -> float:
    """Return a scale that single values cannot move far; 1 for equal values."""
    size = float(ordered.abs().max())
    for share in (0.25, 0.1, 0.01, 0.0):
        low, high = float(_quantile(ordered, share)), float(_quantile(ordered, 1 - share))
        if high - low > LEAST_SPREAD * max(abs(low), abs(high)):
            return max(high - low, LEAST_DIGIT * size)
    return max(1.0, 1e-6 * size)


def _bounds(column: MixedColumn, spread: float) -> tuple[float, float]:
    """Return the ends of the map: the bounds, less a margin for values and noise at them."""
    low, high = column.low, column.high
    if column.transform == "log" and low is None:
        low = 0.0
    margin = column.step / 2 or MARGIN * spread
    ends = (-math.inf, math.inf)
    if column.transform in ("log", "logit", "quantiles"):
        ends = (
            -math.inf if low is None else low - margin * 1.001,
            math.inf if high is None else high + margin * 1.001,
        )
    return ends


def _robust_moments(scores: Values) -> tuple[float, float]:
    """Return mean and deviation of the scores, of which far ones count as at a fence."""
    ordered = scores.sort().values
    low, high = float(_quantile(ordered, 0.25)), float(_quantile(ordered, 0.75))
    fence = 5 * (high - low)
    if fence > 0:
        ordered = ordered.clamp(low - fence, high + fence)
    mean = float(ordered.mean())
    std = float(ordered.std(correction=0))
    return mean, std if std > 1e-9 * max(1.0, abs(mean)) else 1.0


def _smoothed(ordered: Values, scores: Tensor, width: float) -> Tensor:
    """Return quantiles at scores, by lines through the values near them against their own scores.

    The values of a Gaussian lie on one line, so that smoothing has no bias there.

    Args:
        ordered: Ascending values.
        scores: Scores of the quantiles.
        width: Standard deviation of the weights, in scores.
    """
    shares = (torch.arange(len(ordered), dtype=torch.float64) + 0.5) / len(ordered)
    distance = torch.special.ndtri(shares)[None] - scores[:, None]
    weights = torch.exp(-0.5 * (distance / width).square())
    total, first, second = ((weights * distance**power).sum(dim=1) for power in range(3))
    mean, product = ((weights * distance**power) @ ordered for power in range(2))
    spread = total * second - first.square()
    plain = _quantile(ordered, torch.special.ndtr(scores))
    lines = (second * mean - first * product) / spread
    found = torch.where(spread > LEAST_SPREAD * total.square(), lines, plain)
    return found.clamp(ordered[0], ordered[-1]).cummax(0).values


def _quantile_knots(ordered: Values, spread: float, width: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return knots at quantiles whose scores are those of a standard Gaussian, with their slopes."""
    tail = min(0.1, max(TAIL_SHARE, TAIL_ROWS / len(ordered)))
    edge = float(torch.special.ndtri(torch.tensor(1 - tail, dtype=torch.float64)))
    # Evenly spread over the scores: more in the tails than evenly spread shares.
    scores = torch.linspace(-edge, edge, KNOTS, dtype=torch.float64)
    if width:
        knots = _smoothed(ordered, scores, width)
    else:
        knots = _quantile(ordered, torch.special.ndtr(scores))
    # Far values have digits of their own size.
    size = LEAST_SPREAD * float(knots.abs().max())
    knots, scores = _apart(knots, scores, gap=max(LEAST_GAP * spread, size))
    knots, scores = _filled(knots, scores, max(spread, size))
    rises = scores.diff() / knots.diff()
    widths = knots.diff()
    # Weighted harmonic means, as of monotone cubic splines (Fritsch and Butland 1984).
    first = 2 * widths[1:] + widths[:-1]
    second = widths[1:] + 2 * widths[:-1]
    weight = first / (first + second)
    inner = 1 / (weight / rises[:-1] + (1 - weight) / rises[1:])
    ends = [_end_slope(knots, scores), _end_slope(-knots.flip(0), -scores.flip(0))]
    return knots, scores, torch.stack([ends[0], *inner, ends[1]])


def _end_slope(knots: Tensor, scores: Tensor) -> Tensor:
    """Return the slope at the first knot over a distance that equal values beside it cannot rule."""
    last = min(int((scores - scores[0] < END_SCORES).sum()), len(scores) - 1)
    return (scores[last] - scores[0]) / (knots[last] - knots[0])


def _apart(knots: Tensor, scores: Tensor, *, gap: float) -> tuple[Tensor, Tensor]:
    """Return the knots that lie further apart than the gap; of equal ones the middle of the scores."""
    kept: list[tuple[float, list[float]]] = []
    for knot, score in zip(knots.tolist(), scores.tolist(), strict=True):
        if kept and knot - kept[-1][0] <= gap:
            kept[-1][1].append(score)
        else:
            kept.append((knot, [score]))
    places = torch.tensor([knot for knot, _ in kept], dtype=torch.float64)
    middles = torch.tensor([sum(group) / len(group) for _, group in kept], dtype=torch.float64)
    return places, middles


def _filled(knots: Tensor, scores: Tensor, spread: float) -> tuple[Tensor, Tensor]:
    """Return exactly `KNOTS` knots: the widest intervals get more, a single value gets a line."""
    if len(knots) == 1:
        middle = float(scores[0])
        knots = torch.stack([knots[0] - spread, knots[0] + spread])
        scores = torch.tensor([middle - 1, middle + 1], dtype=torch.float64)
    while len(knots) < KNOTS:
        widest = int(scores.diff().argmax())
        pair = slice(widest, widest + 2)
        cut = widest + 1
        knots = torch.cat([knots[:cut], knots[pair].mean()[None], knots[cut:]])
        scores = torch.cat([scores[:cut], scores[pair].mean()[None], scores[cut:]])
    return knots, scores


def _within(
    knots: Tensor, scores: Tensor, slopes: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return knots inside the bounds: those of a single value may lie outside."""
    if low < float(knots[0]) and float(knots[-1]) < high:
        return knots, scores, slopes
    middle = _inside(max(low, float(knots[0])), min(high, float(knots[-1])))
    factor = 0.5 * min(middle - low, high - middle) / float((knots - middle).abs().max())
    return middle + (knots - middle) * factor, scores, slopes / factor


def _tails(ordered: Values, knots: Tensor, scores: Tensor, slopes: Tensor) -> Tensor:
    """Return the exponents by which the values beyond the outermost knots get their scores."""
    found = []
    # Few values tell little of what lies beyond them.
    certainty = min(max((math.log10(len(ordered)) - 2.5) / 2, 0.0), 1.0)
    most = MIN_TAIL + (MAX_TAIL - MIN_TAIL) * certainty
    for values, end in ((-ordered.flip(0), 0), (ordered, -1)):
        edge = -float(knots[0]) if end == 0 else float(knots[-1])
        beyond = values[values > edge]
        exponent = MIN_TAIL
        if len(beyond) > 0:
            slope, start = float(slopes[end]), abs(float(scores[end]))
            # The median beyond the knot, and the last value: few values tell neither well.
            exponent = min(
                _exponent(slope * (place - edge), _score_beyond(share) - start, most)
                for place, share in (
                    (float(_quantile(beyond, 0.5)), 0.5 * len(beyond) / len(values)),
                    (float(beyond[-1]), 0.5 / len(values)),
                )
            )
        found.append(exponent)
    return torch.tensor(found, dtype=torch.float64)


def _score_beyond(share: float) -> float:
    """Return the score that a share of the values lies beyond."""
    return -float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))


def _exponent(distance: float, rise: float, most: float) -> float:
    """Return the c with log(1 + c distance) / c = rise, from `MIN_TAIL` to the most that it may be."""
    low, high = MIN_TAIL, most
    for _ in range(40):
        middle = (low + high) / 2
        if math.log1p(middle * distance) / middle > rise:
            low = middle
        else:
            high = middle
    return (low + high) / 2
