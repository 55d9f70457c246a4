"""Maps of mixtures of Gaussians, of Bernoulli variables and of levels, as `flows.bijections.transformers` has them.

The parameters of a mixture are logits, means and log scales of its components; its numbers are how
many these are, and the reciprocal of the bound of the log scales, 0 for none.
"""

import math
from collections.abc import Callable

from flows.compiled.loops.features import Feature
from flows.compiled.loops.gaussians import (
    HALF_LOG_TWO_PI,
    log_share_below,
    log_tail_quantile,
    share_below,
    tail_terms,
)
from flows.compiled.loops.searches import find_root
from flows.compiled.loops.vectors import Vector, exp, log, softplus

# mypy: ignore-errors
# llvmlite has no types.

_ROUNDING = 5e-7
_MOST_POWER = 80.0  # of e, as a sum of thousands of which is finite


class _Mixture:
    """Components of a mixture; logarithms of the weights take the place of the logits."""

    def __init__(self, f: Feature) -> None:
        self.f, self.count, self._inverse_bound = f, f.count(0), f.number(1)
        [most] = f.fold(self.count, [-math.inf], lambda k, most: [f.parameter(k).at_least(most)])
        [total] = f.fold(self.count, [0.0], lambda k, total: [total + exp(f.parameter(k) - most)])
        normaliser = most + log(total)

        def normalise(k: object) -> list[Vector]:
            f.set_parameter(k, f.parameter(k) - normaliser)
            return []

        f.fold(self.count, [], normalise)

    def component(self, k: object) -> tuple[Vector, Vector, Vector]:
        """Return the log weight, the mean and the log scale of a component."""
        f, b = self.f, self.f.e.b
        raw = f.parameter(b.add(b.mul(self.count, f.e.number(2)), k))
        log_scale = raw / (1.0 + abs(raw) * self._inverse_bound)
        return f.parameter(k), f.parameter(b.add(self.count, k)), log_scale

    def log_sum(self, term: Callable[..., Vector]) -> Vector:
        """Return the logarithm of the sum of the exponentials of a term of each component."""
        f = self.f

        def of(k: object) -> Vector:
            return term(*self.component(k))

        [most] = f.fold(self.count, [-math.inf], lambda k, most: [of(k).at_least(most)])
        shift = most.where(most > -math.inf, 0.0)
        [total] = f.fold(self.count, [0.0], lambda k, total: [total + exp(of(k) - shift)])
        return shift + log(total)

    def log_density(self) -> Vector:
        """Return the log density of the value."""

        def term(log_weight: Vector, mean: Vector, log_scale: Vector) -> Vector:
            z = (self.f.x - mean) * exp(-log_scale)
            return (log_weight - log_scale).plus(z * z, -0.5) - HALF_LOG_TWO_PI

        return self.log_sum(term)


def mixture_density(f: Feature) -> tuple[Vector, Vector]:
    """Return no noise, and the log density with that of the noise taken off."""
    return f.x.of(0.0), _Mixture(f).log_density() + HALF_LOG_TWO_PI


def mixture_inverse(f: Feature) -> tuple[Vector, Vector]:
    """Return the noise with as large a smaller tail, and the log slope."""
    mixture = _Mixture(f)

    def tail(side: float) -> Vector:
        def term(log_weight: Vector, mean: Vector, log_scale: Vector) -> Vector:
            return log_weight + log_share_below(side * (f.x - mean) * exp(-log_scale))

        return mixture.log_sum(term)

    below, above = tail(1.0), tail(-1.0)
    u = log_tail_quantile(below.where(below < above, above))
    u = u.where(below < above, -u)
    return u, (mixture.log_density() + HALF_LOG_TWO_PI).plus(u * u, 0.5)


def mixture_forward(f: Feature) -> tuple[Vector, Vector]:
    """Return the value with as large a smaller tail, and the log slope."""
    mixture = _Mixture(f)
    side = f.x.of(-1.0).where(f.x > 0.0, 1.0)
    u = -abs(f.x)
    factor, power, square = tail_terms(u)
    power = power + log(factor)  # log Phi(u) is power - square
    most = (square - power).at_most(_MOST_POWER)

    def around(k: object, low: Vector, high: Vector, mean: Vector) -> list[Vector]:
        log_weight, centre, log_scale = mixture.component(k)
        place = (side * centre).plus(u, exp(log_scale))
        return [low.at_most(place), high.at_least(place), mean.plus(place, exp(log_weight))]

    low, high, first = f.fold(mixture.count, [math.inf, -math.inf, 0.0], around)

    def share(x: Vector) -> tuple[Vector, Vector]:
        """Return share and density of the mixture, both over the share of the noise."""

        def add(k: object, total: Vector, density: Vector) -> list[Vector]:
            log_weight, centre, log_scale = mixture.component(k)
            z = (x - side * centre) * exp(-log_scale)
            z_factor, z_power, z_square = tail_terms(z)
            height = (square - z_square - power + log_weight).at_most(_MOST_POWER)
            tail = z_factor * exp((z_power + height).at_most(_MOST_POWER))
            whole = exp((most + log_weight).at_most(_MOST_POWER)) - tail
            slope = exp((height - log_scale - HALF_LOG_TWO_PI).at_most(_MOST_POWER))
            return [total + whole.where(z > 0.0, tail), density + slope]

        total, density = f.fold(mixture.count, [0.0, 0.0], add)
        return total, density

    def residual(x: Vector) -> tuple[Vector, Vector]:
        total, density = share(x)
        return log(total), density / total

    rounding = (f.x.of(_ROUNDING)).plus(square - power, _ROUNDING)
    x = find_root(f, residual, (low, high, first.at_least(low).at_most(high)), rounding)
    _, density = share(x)
    # The log density of the noise without the share, which both have.
    log_slope = -(log(density) + power + HALF_LOG_TWO_PI)
    is_number = square < math.inf
    return (side * x).where(is_number, math.nan), log_slope.where(is_number, math.nan)


def bernoulli_density(f: Feature) -> tuple[Vector, Vector]:
    """Return no noise, and the log probability of 0 and 1; minus infinity of other numbers."""
    logit = f.parameter(0)
    score = -softplus((-logit).where(f.x > 0.5, logit))
    e = f.e.b
    is_either = e.or_(f.x.equals(0.0), f.x.equals(1.0))
    score = score.where(is_either, f.x.where(f.x.equals(f.x), 0.0) * 0.0 - math.inf)
    return f.x.of(0.0), score.where(f.x.equals(f.x), f.x) + HALF_LOG_TWO_PI


def bernoulli_draw(f: Feature) -> tuple[Vector, Vector]:
    """Return 1 where the share below the noise is less than the probability of 1, else 0."""
    probability = exp(-softplus(-f.parameter(0)))
    return f.x.of(1.0).where(share_below(f.x) < probability, 0.0), f.x.of(0.0)


def level_density(f: Feature) -> tuple[Vector, Vector]:
    """Return the index of a level, and its log probability; for indices that are none see `pack`."""
    levels, seen, unseen = f.count(0), f.number(1), f.number(2)
    [most] = f.fold(levels, [-math.inf], lambda k, most: [f.parameter(k).at_least(most)])

    def add(k: object, total: Vector, chosen: Vector, is_level: Vector) -> list[Vector]:
        logit = f.parameter(k)
        here = f.x.equals(f.of_integer(k))
        return [
            total + exp(logit - most),
            logit.where(here, chosen),
            f.x.of(1.0).where(here, is_level),
        ]

    total, chosen, is_level = f.fold(levels, [0.0, 0.0, 0.0], add)
    score = (chosen - most - log(total)).where(is_level > 0.0, 0.0)
    score = score + seen.where(f.x >= 0.0, 0.0)
    score = unseen.where(f.x.equals(-1.0), score)
    return f.x, score.where(f.x.equals(f.x), f.x)


def level_draw(f: Feature) -> tuple[Vector, Vector]:
    """Return the level whose share of the distribution function the noise falls into."""
    levels = f.count(0)
    [most] = f.fold(levels, [-math.inf], lambda k, most: [f.parameter(k).at_least(most)])

    def raise_to(k: object, total: Vector) -> list[Vector]:
        value = exp(f.parameter(k) - most)
        f.set_parameter(k, value)
        return [total + value]

    [total] = f.fold(levels, [0.0], raise_to)
    wanted = share_below(f.x) * total
    last = f.e.b.sub(levels, f.e.number(1))

    def count(k: object, reached: Vector, level: Vector) -> list[Vector]:
        end = reached + f.parameter(k)
        return [end, level + f.x.of(1.0).where(end <= wanted, 0.0)]

    _, level = f.fold(last, [0.0, 0.0], count)
    return level, f.x.of(0.0)
