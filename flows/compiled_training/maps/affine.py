"""Affine maps and shifts (`flows.bijections.transformers`); 1 / scale takes the place of log scale."""

from flows.compiled.loops.features import Feature
from flows.compiled.loops.vectors import Vector, exp, log
from flows.compiled_training.maps.cells import Pull

# mypy: ignore-errors
# llvmlite has no types.


def run_affine(f: Feature) -> tuple[Vector, Vector]:
    """Return (x - shift) / scale, and the log slope."""
    return _with_log_scale(f, f.parameter(1))


def pull_affine(f: Feature, pull: Pull) -> Vector:
    """Return the gradient of x."""
    grad = pull.noise * f.parameter(1)
    pull.set(0, -grad)
    pull.set(1, -(pull.noise * pull.u) - pull.slope)
    return grad


def run_bounded_affine(f: Feature) -> tuple[Vector, Vector]:
    """Return the same with the log scale r / (1 + |r| / bound)."""
    raw = f.parameter(1)
    return _with_log_scale(f, raw / (1.0 + abs(raw) / f.number(0)))


def pull_bounded_affine(f: Feature, pull: Pull) -> Vector:
    """Return the gradient of x."""
    inverse = f.parameter(1)
    grad, rest = pull.noise * inverse, 1.0 - abs(log(inverse)) / f.number(0)
    pull.set(0, -grad)
    pull.set(1, (-(pull.noise * pull.u) - pull.slope) * (rest * rest))
    return grad


def run_shift(f: Feature) -> tuple[Vector, Vector]:
    """Return x - shift."""
    return f.x - f.parameter(0), f.x.of(0.0)


def pull_shift(_: Feature, pull: Pull) -> Vector:
    """Return the gradient of x."""
    pull.set(0, -pull.noise)
    return pull.noise


def _with_log_scale(f: Feature, log_scale: Vector) -> tuple[Vector, Vector]:
    inverse = exp(-log_scale)
    f.set_parameter(1, inverse)
    return (f.x - f.parameter(0)) * inverse, -log_scale
