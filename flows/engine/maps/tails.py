"""Map to heavy tails, as `flows.bijections.tails` has it; its parameters are the weights of both tails."""

import math

from flows.engine.maps.features import Feature
from flows.engine.maps.gaussians import log_tail_quantile, tail_terms
from flows.engine.vectors import Vector, exp_less_one, log, log_of_one_and

# mypy: ignore-errors
# llvmlite has no types.

_LOG_SLOPE = 0.5 * math.log(2 / math.pi)


def inverse(f: Feature) -> tuple[Vector, Vector]:
    """Return the noise as far in its tail, and the log slope."""
    weight = _weight(f)
    far = log_of_one_and(weight * abs(f.x)) / weight
    v = log_tail_quantile(-far - math.log(2.0))
    return v.where(f.x < 0.0, -v), -_log_slope(weight, far, 0.5 * (v * v))


def forward(f: Feature) -> tuple[Vector, Vector]:
    """Return the value as far in its tail, and the log slope."""
    weight = _weight(f)
    factor, power, square = tail_terms(f.x)
    far = (square - power - log(factor + factor)).at_least(0.0)
    size = exp_less_one(weight * far) / weight
    return (-size).where(f.x < 0.0, size), _log_slope(weight, far, square)


def _weight(f: Feature) -> Vector:
    return f.parameter(0).where(f.x < 0.0, f.parameter(1))


def _log_slope(weight: Vector, far: Vector, half_square: Vector) -> Vector:
    return (_LOG_SLOPE - half_square).plus(weight + 1.0, far)
