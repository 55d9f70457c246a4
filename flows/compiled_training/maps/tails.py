"""Heavy tails (`flows.bijections.tails`); both weights take the places of what they are computed from."""

import math

from flows.compiled.loops.features import Feature
from flows.compiled.loops.gaussians import HALF_LOG_TWO_PI
from flows.compiled.loops.tail_maps import tails_inverse
from flows.compiled.loops.vectors import Vector, exp, log_of_one_and, polynomial
from flows.compiled_training.maps.cells import Pull

# mypy: ignore-errors
# llvmlite has no types.

# As in `flows.bijections.tails`.
_LIGHTEST, _HEAVIEST = 1e-3, 2.0
_SMALL = 0.15
_SERIES = [(-1) ** (n + 1) * (1 - 1 / n) for n in range(9, 1, -1)]


def run_tails(f: Feature) -> tuple[Vector, Vector]:
    """Return the noise, and the log slope."""
    for side in range(2):
        share = 1.0 / (1.0 + exp(-f.parameter(side)))
        f.set_parameter(side, _LIGHTEST + (_HEAVIEST - _LIGHTEST) * share)
    return tails_inverse(f)


def pull_tails(f: Feature, pull: Pull) -> Vector:
    """Return the gradient of x."""
    is_left = f.x < 0.0
    weight, size = f.parameter(0).where(is_left, f.parameter(1)), abs(f.x)
    z, u = weight * size, abs(pull.u)
    far = log_of_one_and(z) / weight
    # By |u|, and by `far`, of which |u| is a quantile.
    slope = exp((0.5 * u * u) - far - math.log(2.0) + HALF_LOG_TWO_PI)
    noise = (-pull.noise).where(is_left, pull.noise)
    grad_u = noise + pull.slope * u
    grad_far = grad_u * slope - pull.slope * (weight + 1.0)
    # z / (1 + z) - log(1 + z), in which all digits cancel where z is small.
    bent = z * z * polynomial(z, *_SERIES)
    bent = bent.where(z < _SMALL, z / (1.0 + z) - weight * far)
    grad = grad_far * bent / (weight * weight) - pull.slope * far
    for side in range(2):
        own = f.parameter(side)
        share = (own - _LIGHTEST) * (_HEAVIEST - own) * (1.0 / (_HEAVIEST - _LIGHTEST))
        left = grad if side == 0 else grad.of(0.0)
        right = grad if side == 1 else grad.of(0.0)
        pull.set(side, left.where(is_left, right) * share)
    grad_size = grad_far / (1.0 + z)
    return (-grad_size).where(is_left, grad_size)
