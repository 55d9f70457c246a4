"""Root searches of elementwise maps that have no closed form in one direction."""

from collections.abc import Callable

from flows.engine.maps.features import Feature
from flows.engine.vectors import Vector

# mypy: ignore-errors
# llvmlite has no types.

_MOST = 120  # halvings of any bracket in float32, and Newton steps before them
_ROUNDING = 1.2e-7

Increasing = Callable[[Vector], tuple[Vector, Vector]]


def find_root(
    f: Feature, function: Increasing, bracket: tuple[Vector, Vector, Vector], tolerance: Vector
) -> Vector:
    """Return where an increasing function is 0; NaN where it is not a number.

    Newton steps inside a bracket, of two places around the root and one between them to begin with; one
    that leaves it, or is not half as long as the one before, is replaced by a bisection. Values below
    the tolerance are 0 but for rounding. A finished lane keeps its root, so that it does not depend on
    the others.
    """
    e, b = f.e, f.e.b

    def step(values: list) -> tuple[list, object]:
        x, low, high, last, left = (Vector(e, value) for value in values)
        value, slope = function(x)
        low = x.where(value <= 0.0, low)
        high = x.where(value >= 0.0, high)
        newton = x - value / slope
        length = abs(newton - x)
        inside = b.and_(newton >= low, newton <= high)
        good = b.and_(inside, length <= 0.5 * last)
        middle = low.plus(high - low, 0.5)
        narrow = high - low <= _ROUNDING * abs(middle)
        # Not "is finished", so that what is no number is.
        goes_on = b.and_(abs(value) > tolerance, b.not_(narrow))
        target = newton.where(good, middle.where(goes_on, x))
        is_left = left > 0.0
        kept = [
            target.where(is_left, x),
            low,
            high,
            abs(target - x).where(is_left, last),
            f.x.of(1.0).where(b.and_(is_left, goes_on), 0.0),
        ]
        return [vector.value for vector in kept], kept[-1] > 0.0

    low, high, first = bracket
    start = [first, low, high, f.x.of(float("inf")), f.x.of(1.0)]
    found = e.repeat(_MOST, [vector.value for vector in start], step)
    return Vector(e, found[0])
