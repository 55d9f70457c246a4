"""Rational-quadratic splines (`flows.families.nsf`); sizes of bins take the places of their logits.

The numbers of a spline are its bins, its bound, the floor of sizes and their total.
"""

import math
from typing import Any

from flows.compiled.loops.features import Feature
from flows.compiled.loops.vectors import Vector, exp, log
from flows.compiled_training.maps.cells import Pull

# mypy: ignore-errors
# llvmlite has no types.

# As in `flows.families.nsf`.
_LEAST_SLOPE = 1e-3
_SLOPE_OFFSET = math.log(math.expm1(1 - _LEAST_SLOPE))


class _Knot:
    """Slope at a knot, and its derivative by the parameter."""

    def __init__(self, raw: Vector) -> None:
        y = raw + _SLOPE_OFFSET
        small = exp(-abs(y))
        self.slope = y.at_least(0.0) + log(1.0 + small) + _LEAST_SLOPE
        self.derivative = y.of(1.0).where(y > 0.0, small) / (1.0 + small)


class _Bin:
    """Bin of each value: number, corner, sizes, mean slope and slopes at its knots."""

    def __init__(self, f: Feature, *, are_sizes: bool) -> None:
        bins, b = f.count(0), f.e.b
        bound, total = f.number(1), f.number(3)
        self.unit, scale = (bound + bound) / total, total / (bound + bound)
        within = bound.where(f.x > bound, (-bound).where(f.x < -bound, f.x))
        place = (within + bound) * scale
        self.bends = abs(f.x) <= bound
        twice, last = b.mul(bins, f.e.number(2)), b.sub(bins, f.e.number(1))
        axes = [_Axis(f, first, are_sizes=are_sizes) for first in (f.e.number(0), bins)]

        def look(k: Any, *state: Vector) -> list[Vector]:
            *ends, index, left, bottom, width, height, first, second, slope = state
            sizes = [axis.size(k) for axis in axes]
            # The slope of the last knot is 1, as that of the first one.
            is_last = b.icmp_signed("==", k, last)
            raw = f.parameter(b.add(twice, b.select(is_last, f.e.number(0), k))).value
            following = Vector(f.e, b.select(is_last, f.x.of(0.0).value, raw))
            inside = place >= ends[0]
            found = (f.of_integer(k), *ends, *sizes, slope, following)
            kept = (index, left, bottom, width, height, first, second)
            return [
                ends[0] + sizes[0],
                ends[1] + sizes[1],
                *(new.where(inside, old) for new, old in zip(found, kept, strict=True)),
                following,
            ]

        found = f.fold(bins, [0.0] * 10, look)
        _, _, self.index, self.left, self.bottom, self.width, self.height, first, second, _ = found
        self.first, self.second = _Knot(first), _Knot(second)
        self.scale, self.inverse_width = scale, 1.0 / self.width
        self.mean = self.height * self.inverse_width
        self.theta = (place - self.left) * self.inverse_width
        # Terms of the quotient (equations 4 and 5 of the paper).
        theta, rest = self.theta, 1.0 - self.theta
        self.rest, self.hump = rest, theta * rest
        self.bend = self.first.slope + self.second.slope - self.mean - self.mean
        self.below = (self.mean * theta * theta).plus(self.first.slope, self.hump)
        self.under = 1.0 / self.mean.plus(self.bend, self.hump)
        rise = (self.first.slope * rest * rest).plus(self.mean + self.mean, self.hump)
        self.rise = rise.plus(self.second.slope * theta, theta)


class _Axis:
    """Sizes of the bins along an axis."""

    def __init__(self, f: Feature, first: Any, *, are_sizes: bool) -> None:
        self._f, self._first, self._are_sizes = f, first, are_sizes
        if are_sizes:
            return
        [most] = f.fold(f.count(0), [-math.inf], lambda k, most: [self._there(k).at_least(most)])

        def raise_to(k: Any, total: Vector) -> list[Vector]:
            value = exp(self._there(k) - most)
            f.set_parameter(f.e.b.add(first, k), value)
            return [total + value]

        [total] = f.fold(f.count(0), [0.0], raise_to)
        self._share = 1.0 / total

    def size(self, k: Any) -> Vector:
        """Return the size of a bin, which takes the place of its exponential."""
        if self._are_sizes:
            return self._there(k)
        size = self._f.number(2).plus(self._there(k), self._share)
        self._f.set_parameter(self._f.e.b.add(self._first, k), size)
        return size

    def _there(self, k: Any) -> Vector:
        return self._f.parameter(self._f.e.b.add(self._first, k))


def run_spline(f: Feature) -> tuple[Vector, Vector]:
    """Return the noise, and the log slope."""
    found = _Bin(f, are_sizes=False)
    place = found.bottom.plus(found.height, found.below * found.under)
    u = (-f.number(1)).plus(place, found.unit)
    quotient = found.mean * found.under
    log_slope = log(found.rise * quotient * quotient)
    return u.where(found.bends, f.x), log_slope.where(found.bends, 0.0)


def pull_spline(f: Feature, pull: Pull) -> Vector:
    """Return the gradient of x."""
    at = _Bin(f, are_sizes=True)
    theta, mean, bend = at.theta, at.mean, at.bend
    first, second = at.first.slope, at.second.slope
    slope = pull.slope.where(at.bends, 0.0)
    bottom = (pull.noise * at.unit).where(at.bends, 0.0)
    tilt = at.rest - theta
    high = bottom * at.height * at.under
    under = -(high * at.below + slope + slope) * at.under
    rise = slope / at.rise
    grad_theta = (
        high * ((mean + mean) * theta).plus(first, tilt)
        + under * bend * tilt
        + (rise + rise) * ((mean * tilt).plus(second, theta) - first * at.rest)
    )
    grad_mean = (high * theta * theta).plus(under, 1.0 - at.hump - at.hump)
    grad_mean = grad_mean + 2.0 * (rise * at.hump).plus(slope, 1.0 / mean)
    left = -(grad_theta * at.inverse_width)
    per_width = grad_mean * at.inverse_width
    width = (left * theta) - per_width * mean
    height = bottom * at.below * at.under + per_width
    bins = f.count(0)
    _pull_sizes(f, pull, f.e.number(0), at.index, (left, width), (at.left, at.width))
    _pull_sizes(f, pull, bins, at.index, (bottom, height), (at.bottom, at.height))
    grad_first = (high + under) * at.hump + rise * at.rest * at.rest
    grad_second = under * at.hump + rise * theta * theta
    _pull_slopes(f, pull, at, grad_first * at.first.derivative, grad_second * at.second.derivative)
    return (-left * at.scale).where(at.bends, pull.noise)


def _pull_sizes(
    f: Feature,
    pull: Pull,
    begin: Any,
    index: Vector,
    grads: tuple[Vector, Vector],
    place: tuple[Vector, Vector],
) -> None:
    """Set the gradients of an axis' logits.

    Args:
        f: Feature that the spline maps.
        pull: Gradients around the spline.
        begin: Number of the first logit.
        index: Number of the bin.
        grads: Gradients of the bin's corner, which is the sum of all sizes before, and of its size.
        place: Corner and size of the bin.
    """
    floor, b = f.number(2), f.e.b
    corner, own = grads
    # Sum of the shares of the softmax, times their gradients.
    mean = (corner * (place[0] - index * floor)).plus(own, place[1] - floor)

    def of(k: Any) -> list[Vector]:
        number, at = f.of_integer(k), b.add(begin, k)
        grad = own.where(number.equals(index), corner.where(number < index, 0.0))
        pull.set(at, (f.parameter(at) - floor) * (grad - mean))
        return []

    f.fold(f.count(0), [], of)


def _pull_slopes(f: Feature, pull: Pull, at: _Bin, first: Vector, second: Vector) -> None:
    """Set the gradients of the knots' parameters."""
    b = f.e.b
    twice, last = b.mul(f.count(0), f.e.number(2)), b.sub(f.count(0), f.e.number(1))

    def of(k: Any) -> list[Vector]:
        number = f.of_integer(k)
        grad = second.where(number.equals(at.index), 0.0)
        pull.set(b.add(twice, k), first.where((number + 1.0).equals(at.index), grad))
        return []

    f.fold(last, [], of)
