"""Maps of levels and of Bernoulli variables, and the gradient of the former.

The parameters of a variable are the logits of its levels, of a Bernoulli variable that of 1. Its numbers
are how many levels it has, and the logarithms that are added for levels that training rows had, and in
the place of one that none had. Exponentials of the logits take their place for the gradient.
"""

import math

from flows.engine.maps.features import Feature, Pull
from flows.engine.maps.gaussians import HALF_LOG_TWO_PI, share_below
from flows.engine.vectors import Vector, exp, log, softplus

# mypy: ignore-errors
# llvmlite has no types.


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


def density(f: Feature) -> tuple[Vector, Vector]:
    """Return the index of a level, and its log probability; what indices that are none add, instead."""
    levels, seen, unseen = f.count(0), f.number(1), f.number(2)
    [most] = f.fold(levels, [-math.inf], lambda k, most: [f.parameter(k).at_least(most)])

    def add(k: object, total: Vector, chosen: Vector, is_level: Vector) -> list[Vector]:
        logit = f.parameter(k)
        here, share = f.x.equals(f.of_integer(k)), exp(logit - most)
        f.leave(k, share)
        return [
            total + share,
            logit.where(here, chosen),
            f.x.of(1.0).where(here, is_level),
        ]

    total, chosen, is_level = f.fold(levels, [0.0, 0.0, 0.0], add)
    score = (chosen - most - log(total)).where(is_level > 0.0, 0.0)
    score = score + seen.where(f.x >= 0.0, 0.0)
    score = unseen.where(f.x.equals(-1.0), score)
    return f.x, score.where(f.x.equals(f.x), f.x)


def draw(f: Feature) -> tuple[Vector, Vector]:
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


def gradient(f: Feature, pull: Pull) -> Vector:
    """Return no gradient of the index."""
    levels = f.count(0)
    [total] = f.fold(levels, [0.0], lambda k, total: [total + f.parameter(k)])
    own = pull.slope.where(f.x >= 0.0, 0.0)

    def of(k: object) -> list[Vector]:
        hit = f.x.of(1.0).where(f.x.equals(f.of_integer(k)), 0.0)
        pull.set(k, own * (hit - f.parameter(k) / total))
        return []

    f.fold(levels, [], of)
    return f.x.of(0.0)
