"""Rational-quadratic splines, as `flows.families.nsf` has them, and their gradient.

The numbers of a spline are its bins, its bound, the floor of sizes and their total. Sizes of bins take
the places of their logits for the gradient.
"""

import math
from collections.abc import Callable
from typing import Any

from flows.engine.maps.features import Feature, Pull
from flows.engine.vectors import Vector, exp, log

# mypy: ignore-errors
# llvmlite has no types.

_TINY = 1.1754943508222875e-38
# As in `flows.families.nsf`.
_LEAST_SLOPE = 1e-3
_SLOPE_OFFSET = math.log(math.expm1(1 - _LEAST_SLOPE))


def inverse(f: Feature) -> tuple[Vector, Vector]:
    place, unscaled = _place(f)
    found = _Bin(f, place, [_Sizes(f, axis) for axis in range(2)], axis=0)
    theta = (place - found.left) / found.width
    log_slope, below, denominator = found.log_slope(theta)
    u = found.bottom.plus(found.height, theta * below / denominator)
    return _with_tails(f, unscaled(u), log_slope)


def forward(f: Feature) -> tuple[Vector, Vector]:
    place, unscaled = _place(f)
    found = _Bin(f, place, [_Sizes(f, axis) for axis in range(2)], axis=1)
    theta = found.solve(place - found.bottom)
    log_slope, _, _ = found.log_slope(theta)
    return _with_tails(f, unscaled(found.left.plus(found.width, theta)), -log_slope)


def gradient(f: Feature, pull: Pull) -> Vector:
    """Return the gradient of x (equations 4 and 5 of the paper, by hand)."""
    place, _ = _place(f)
    at = _Bin(f, place, [_KnownSizes(f, axis) for axis in range(2)], axis=0)
    first, second, mean, bend = at.first.slope, at.second.slope, at.slope, at.bend
    inverse_width = 1.0 / at.width
    theta = (place - at.left) * inverse_width
    rest, hump = 1.0 - theta, theta * (1.0 - theta)
    below = (mean * theta * theta).plus(first, hump)
    inverse_under = 1.0 / mean.plus(bend, hump)
    rising = (first * rest * rest).plus(mean + mean, hump).plus(second * theta, theta)
    bends = abs(f.x) <= f.number(1)
    slope, bottom = pull.slope.where(bends, 0.0), (pull.noise * _unit(f)).where(bends, 0.0)
    tilt = rest - theta
    high = bottom * at.height * inverse_under
    under = -(high * below + slope + slope) * inverse_under
    rise = slope / rising
    grad_theta = (
        high * ((mean + mean) * theta).plus(first, tilt)
        + under * bend * tilt
        + (rise + rise) * ((mean * tilt).plus(second, theta) - first * rest)
    )
    grad_mean = (high * theta * theta).plus(under, 1.0 - hump - hump)
    grad_mean = grad_mean + 2.0 * (rise * hump).plus(slope, 1.0 / mean)
    left = -(grad_theta * inverse_width)
    per_width = grad_mean * inverse_width
    width = (left * theta) - per_width * mean
    height = bottom * below * inverse_under + per_width
    _pull_sizes(f, pull, 0, at.index, (left, width), (at.left, at.width))
    _pull_sizes(f, pull, 1, at.index, (bottom, height), (at.bottom, at.height))
    grad_first = (high + under) * hump + rise * rest * rest
    grad_second = under * hump + rise * theta * theta
    _pull_slopes(f, pull, at, grad_first * at.first.derivative, grad_second * at.second.derivative)
    return (-left * _scale(f)).where(bends, pull.noise)


class _Knot:
    """Slope at a knot, and its derivative by the parameter."""

    def __init__(self, raw: Vector) -> None:
        y = raw + _SLOPE_OFFSET
        small = exp(-abs(y))
        self.slope = y.at_least(0.0) + log(1.0 + small) + _LEAST_SLOPE
        self.derivative = y.of(1.0).where(y > 0.0, small) / (1.0 + small)


class _Bin:
    """Bin of a spline for each number along an axis: 0 are the data, 1 is the noise."""

    def __init__(self, f: Feature, place: Vector, sizes: list["_KnownSizes"], axis: int) -> None:
        bins, builder = f.count(0), f.e.b
        twice, last = f.nth(bins, 2, f.e.number(0)), builder.sub(bins, f.e.number(1))

        def look(k: Any, *state: Vector) -> list[Vector]:
            *ends, index, left, bottom, width, height, first, second, slope = state
            own = [one.size(k) for one in sizes]
            # The slope of the last knot is 1, as that of the first one.
            is_last = builder.icmp_signed("==", k, last)
            raw = f.parameter(builder.add(twice, builder.select(is_last, f.e.number(0), k))).value
            following = Vector(f.e, builder.select(is_last, f.x.of(0.0).value, raw))
            inside = place >= ends[axis]
            found = (f.of_integer(k), *ends, *own, slope, following)
            kept = (index, left, bottom, width, height, first, second)
            return [
                ends[0] + own[0],
                ends[1] + own[1],
                *(new.where(inside, old) for new, old in zip(found, kept, strict=True)),
                following,
            ]

        found = f.fold(bins, [0.0] * 10, look)
        _, _, self.index, self.left, self.bottom, self.width, self.height, first, second, _ = found
        self.first, self.second = _Knot(first), _Knot(second)
        self.slope = self.height / self.width
        self.bend = self.first.slope + self.second.slope - self.slope - self.slope

    def log_slope(self, theta: Vector) -> tuple[Vector, Vector, Vector]:
        """Return the log derivative at a part of the width, and two terms of the value."""
        first, second = self.first.slope, self.second.slope
        below = first.plus(theta, self.slope - first)
        above = self.slope.plus(theta, second - self.slope)
        denominator = self.slope.plus(self.bend, theta.plus(-theta, theta))
        quotient = self.slope / denominator
        mean = below.plus(theta, above - below)
        return log(mean * quotient * quotient), below, denominator

    def solve(self, rise: Vector) -> Vector:
        """Return the part of the width at which the spline is this far above the bin's corner."""
        b = (self.height * self.first.slope).plus(-rise, self.bend)
        a = (-b).plus(self.height, self.slope)
        c = self.slope * rise
        root = (b * b).plus(4.0 * a, c).at_least(_TINY).sqrt()
        falls = b < 0.0
        return (root - b).where(falls, c + c) / (a + a).where(falls, root + b)


class _KnownSizes:
    """Sizes of the bins along one axis, which the map has left."""

    def __init__(self, f: Feature, axis: int) -> None:
        self._f, self._axis = f, axis

    def size(self, k: Any) -> Vector:
        """Return the size of a bin."""
        return self._f.parameter(self._at(k))

    def _at(self, k: Any) -> Any:
        return self._f.nth(self._f.count(0), self._axis, k)


class _Sizes(_KnownSizes):
    """Sizes by the softmax of the logits along one axis; the exponentials take their place."""

    def __init__(self, f: Feature, axis: int) -> None:
        super().__init__(f, axis)
        bins = f.count(0)
        [most] = f.fold(
            bins, [-math.inf], lambda k, most: [f.parameter(self._at(k)).at_least(most)]
        )

        def raise_to(k: Any, total: Vector) -> list[Vector]:
            value = exp(f.parameter(self._at(k)) - most)
            f.set_parameter(self._at(k), value)
            return [total + value]

        [total] = f.fold(bins, [0.0], raise_to)
        self._scale = 1.0 / total

    def size(self, k: Any) -> Vector:
        found = self._f.number(2).plus(self._f.parameter(self._at(k)), self._scale)
        self._f.leave(self._at(k), found)
        return found


def _unit(f: Feature) -> Vector:
    """Return the length of a unit in which the interval goes from 0 to the sum of all sizes."""
    return (f.number(1) + f.number(1)) / f.number(3)


def _scale(f: Feature) -> Vector:
    """Return the number of such units in a unit of the data."""
    return f.number(3) / (f.number(1) + f.number(1))


def _place(f: Feature) -> tuple[Vector, Callable[[Vector], Vector]]:
    """Return the place in such units, and the way back."""
    bound = f.number(1)
    inside = bound.where(f.x > bound, (-bound).where(f.x < -bound, f.x))
    return (inside + bound) * _scale(f), lambda place: (-bound).plus(place, _unit(f))


def _with_tails(f: Feature, mapped: Vector, log_slope: Vector) -> tuple[Vector, Vector]:
    bends = abs(f.x) <= f.number(1)
    return mapped.where(bends, f.x), log_slope.where(bends, 0.0)


def _pull_sizes(
    f: Feature,
    pull: Pull,
    axis: int,
    index: Vector,
    grads: tuple[Vector, Vector],
    place: tuple[Vector, Vector],
) -> None:
    """Set the gradients of an axis' logits, by those of the bin's corner and size.

    The corner is the sum of all sizes before; `place` has both.
    """
    floor, (corner, own) = f.number(2), grads
    # Sum of the shares of the softmax, times their gradients.
    mean = (corner * (place[0] - index * floor)).plus(own, place[1] - floor)

    def of(k: Any) -> list[Vector]:
        number, at = f.of_integer(k), f.nth(f.count(0), axis, k)
        grad = own.where(number.equals(index), corner.where(number < index, 0.0))
        pull.set(at, (f.parameter(at) - floor) * (grad - mean))
        return []

    f.fold(f.count(0), [], of)


def _pull_slopes(f: Feature, pull: Pull, at: _Bin, first: Vector, second: Vector) -> None:
    """Set the gradients of the knots' parameters."""
    bins = f.count(0)

    def of(k: Any) -> list[Vector]:
        number = f.of_integer(k)
        grad = second.where(number.equals(at.index), 0.0)
        pull.set(f.nth(bins, 2, k), first.where((number + 1.0).equals(at.index), grad))
        return []

    f.fold(f.e.b.sub(bins, f.e.number(1)), [], of)
