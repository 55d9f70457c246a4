"""Affine maps and shifts, as `flows.bijections.transformers` has them, and their gradients.

1 / scale takes the place of a log scale for the gradient.
"""

from flows.engine.maps.features import Feature, Pull
from flows.engine.vectors import Vector, exp, log

# mypy: ignore-errors
# llvmlite has no types.


def inverse(f: Feature) -> tuple[Vector, Vector]:
    return _inverse(f, f.parameter(1))


def forward(f: Feature) -> tuple[Vector, Vector]:
    return _forward(f, f.parameter(1))


def gradient(f: Feature, pull: Pull) -> Vector:
    grad = pull.noise * f.parameter(1)
    pull.set(0, -grad)
    pull.set(1, -(pull.noise * pull.u) - pull.slope)
    return grad


def bounded_inverse(f: Feature) -> tuple[Vector, Vector]:
    return _inverse(f, _bounded(f))


def bounded_forward(f: Feature) -> tuple[Vector, Vector]:
    return _forward(f, _bounded(f))


def bounded_gradient(f: Feature, pull: Pull) -> Vector:
    scale = f.parameter(1)
    grad, rest = pull.noise * scale, 1.0 - abs(log(scale)) / f.number(0)
    pull.set(0, -grad)
    pull.set(1, (-(pull.noise * pull.u) - pull.slope) * (rest * rest))
    return grad


def shift_inverse(f: Feature) -> tuple[Vector, Vector]:
    return f.x - f.parameter(0), f.x.of(0.0)


def shift_forward(f: Feature) -> tuple[Vector, Vector]:
    return f.x + f.parameter(0), f.x.of(0.0)


def shift_gradient(_: Feature, pull: Pull) -> Vector:
    pull.set(0, -pull.noise)
    return pull.noise


def scaled_inverse(f: Feature) -> tuple[Vector, Vector]:
    """Return (x - shift) slope; the parameters are shift, slope and log slope."""
    shift, slope, log_slope = (f.parameter(n) for n in range(3))
    return (f.x - shift) * slope, log_slope


def scaled_forward(f: Feature) -> tuple[Vector, Vector]:
    shift, slope, log_slope = (f.parameter(n) for n in range(3))
    return shift + f.x / slope, -log_slope


def _inverse(f: Feature, log_scale: Vector) -> tuple[Vector, Vector]:
    minus = -log_scale
    factor = exp(minus)
    f.leave(1, factor)
    return (f.x - f.parameter(0)) * factor, minus


def _forward(f: Feature, log_scale: Vector) -> tuple[Vector, Vector]:
    return f.parameter(0).plus(f.x, exp(log_scale)), log_scale


def _bounded(f: Feature) -> Vector:
    """Return the log scale r / (1 + |r| / bound)."""
    raw = f.parameter(1)
    return raw / (1.0 + abs(raw) / f.number(0))
