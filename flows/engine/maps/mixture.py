"""Maps of mixtures of Gaussians, as `flows.bijections.transformers` has them, and their gradient.

The parameters of a mixture are logits, means and log scales of its components; its numbers are how
many these are, and the reciprocal of the bound of the log scales, 0 for none. Logarithms of the weights
take the place of the logits.
"""

import math
from collections.abc import Callable

from flows.engine.maps.features import Feature, Pull
from flows.engine.maps.gaussians import (
    HALF_LOG_TWO_PI,
    log_share_below,
    log_tail_quantile,
    tail_terms,
)
from flows.engine.maps.searches import find_root
from flows.engine.vectors import Vector, exp, log

# mypy: ignore-errors
# llvmlite has no types.

_ROUNDING = 5e-7
_MOST_POWER = 80.0  # of e, as a sum of thousands of which is finite


class _Mixture:
    """Components of a mixture, whose weights are computed unless they are in place already."""

    def __init__(self, f: Feature, *, are_weighed: bool = False) -> None:
        self.f, self.count = f, f.count(0)
        if are_weighed:
            return
        [most] = f.fold(self.count, [-math.inf], lambda k, most: [f.parameter(k).at_least(most)])
        [total] = f.fold(self.count, [0.0], lambda k, total: [total + exp(f.parameter(k) - most)])
        normaliser = most + log(total)

        def normalise(k: object) -> list[Vector]:
            f.set_parameter(k, f.parameter(k) - normaliser)
            return []

        f.fold(self.count, [], normalise)

    def component(self, k: object) -> tuple[Vector, Vector, Vector]:
        """Return the log weight, the mean and the log scale of a component."""
        f, log_scale = self.f, self.raw_scale(k) / self.squash(k)
        return f.parameter(k), f.parameter(f.nth(self.count, 1, k)), log_scale

    def raw_scale(self, k: object) -> Vector:
        """Return what the log scale of a component is computed from."""
        return self.f.parameter(self.f.nth(self.count, 2, k))

    def squash(self, k: object) -> Vector:
        """Return what bounds the log scale of a component: its derivative is the square of the inverse."""
        return 1.0 + abs(self.raw_scale(k)) * self.f.number(1)

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
        return self.log_sum(lambda *component: self.term(*component)[0])

    def term(self, log_weight: Vector, mean: Vector, log_scale: Vector) -> tuple[Vector, ...]:
        """Return the log density of a component, the value's place in it, and 1 / scale."""
        inverse_scale = exp(-log_scale)
        z = (self.f.x - mean) * inverse_scale
        return (log_weight - log_scale).plus(z * z, -0.5) - HALF_LOG_TWO_PI, z, inverse_scale


def density(f: Feature) -> tuple[Vector, Vector]:
    """Return no noise, and the log density with that of the noise taken off."""
    return f.x.of(0.0), _Mixture(f).log_density() + HALF_LOG_TWO_PI


def inverse(f: Feature) -> tuple[Vector, Vector]:
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


def forward(f: Feature) -> tuple[Vector, Vector]:
    """Return the value with as large a smaller tail, and the log slope."""
    mixture = _Mixture(f)
    side = f.x.of(-1.0).where(f.x > 0.0, 1.0)
    u = -abs(f.x)
    factor, power, square = tail_terms(u)
    power = power + log(factor)  # log Phi(u) is power - square

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
            most = (square - power + log_weight).at_most(_MOST_POWER)  # of what the component adds
            height = square - z_square - power + log_weight
            height = (most - z_square).where(z > 0.0, height.at_most(_MOST_POWER))
            tail = z_factor * exp(z_power + height)
            whole = exp(most) - tail
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


def gradient(f: Feature, pull: Pull) -> Vector:
    mixture = _Mixture(f, are_weighed=True)

    def log_sum(k: object, largest: Vector, total: Vector) -> list[Vector]:
        term, *_ = mixture.term(*mixture.component(k))
        raised = term.at_least(largest)
        return [raised, total * exp(largest - raised) + exp(term - raised)]

    largest, total = f.fold(mixture.count, [-math.inf, 0.0], log_sum)
    rate = pull.slope / total

    def of(k: object, grad_x: Vector) -> list[Vector]:
        term, z, inverse_scale = mixture.term(*mixture.component(k))
        rest = 1.0 / mixture.squash(k)
        share = rate * exp(term - largest)
        grad_mean = share * z * inverse_scale
        pull.set(k, share - pull.slope * exp(f.parameter(k)))
        pull.set(f.nth(mixture.count, 1, k), grad_mean)
        pull.set(f.nth(mixture.count, 2, k), share * (z * z - 1.0) * (rest * rest))
        return [grad_x - grad_mean]

    [grad_x] = f.fold(mixture.count, [0.0], of)
    return grad_x
