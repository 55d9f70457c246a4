"""Maps of sums of sigmoids, as `flows.families.naf` has them, and the gradient of a single sum.

The parameters are slopes, shifts and logits of the sigmoids; the number says how many these are. Those
of two dense layers have slopes, shifts and logits of the first, slopes and shifts of the second, and
logits of its inputs and of its sum; their numbers are followed by the two matrices. Slopes take the
place of what they are computed from.
"""

import math
from collections.abc import Callable

from flows.engine.maps.features import Feature, Pull
from flows.engine.maps.searches import find_root
from flows.engine.vectors import Vector, exp, log, softplus

# mypy: ignore-errors
# llvmlite has no types.

# As in `flows.families.naf`.
_LEAST_SLOPE = 1e-3
_SLOPE_OFFSET = math.log(math.expm1(1 - _LEAST_SLOPE))
_ROUNDING = 1e-6


_Bracket = tuple[Vector, Vector, Vector]
# What `_squash` needs of a sigmoid: its argument, the logarithm of the slope of that, and its logit.
_Unit = Callable[[object], tuple[Vector, Vector, Vector]]


class _Sigmoids:
    """Sigmoids of a map."""

    def __init__(self, f: Feature) -> None:
        self.f, self.count = f, f.count(0)
        _raise_slopes(f, self.count, 0)

    def at(self, x: Vector) -> tuple[Vector, Vector]:
        """Return the value of the map and the logarithm of its slope."""

        def unit(k: object) -> tuple[Vector, Vector, Vector]:
            slope, shift, logit = (self.f.parameter(self.f.nth(self.count, n, k)) for n in range(3))
            return shift.plus(slope, x), log(slope), logit

        return _squash(self.f, self.count, unit)

    def bracket(self, u: Vector) -> _Bracket:
        """Return two places around the root, and one between them."""
        return _between(*_around(self.f, self.count, 0, (u, u)))


class _DenseSigmoids:
    """Two dense layers of sigmoids."""

    def __init__(self, f: Feature) -> None:
        self.f, self.count = f, f.count(0)
        self._square = f.e.b.mul(self.count, self.count)
        _raise_slopes(f, self.count, 0)
        _raise_slopes(f, self.count, 3)

    def at(self, x: Vector) -> tuple[Vector, Vector]:
        """Return the value of the map and the logarithm of its slope."""
        self._first_layer(x)
        self._second_layer()
        return _squash(
            self.f, self.count, lambda k: (self._kept(3, k), self._kept(4, k), self._nth(6, k))
        )

    def bracket(self, u: Vector) -> _Bracket:
        """Return two places around the root, and one between them.

        A sum lies between its least and its largest argument, a mean between its terms.
        """
        means = _around(self.f, self.count, 3, (u, u))
        return _between(*_around(self.f, self.count, 0, means))

    def _first_layer(self, x: Vector) -> None:
        """Keep the values of the first layer, fifth, and the logarithms of their slopes, sixth."""
        f, count = self.f, self.count

        def unit(k: object) -> tuple[Vector, Vector, Vector]:
            slope, shift, logit = (self._nth(n, k) for n in range(3))
            return shift.plus(slope, x), log(slope), logit

        tails, terms, most = _terms(f, count, unit)

        def raise_to(k: object) -> list[Vector]:
            for place, (term, shift) in enumerate(zip(terms(k), most, strict=True)):
                self._keep(place, k, exp(term - shift))
            return []

        f.fold(count, [], raise_to)

        def sum_up(i: object) -> list[Vector]:
            sums = self._products(0, i, range(4))
            value, log_slope = _combined(tails, sums, most)
            self._keep(4, i, value)
            self._keep(5, i, log_slope)
            return []

        f.fold(count, [], sum_up)

    def _second_layer(self) -> None:
        """Keep the arguments of the last sigmoids, fourth, and the logarithms of their slopes, fifth."""
        f, count = self.f, self.count

        def larger(k: object, most: Vector, most_slope: Vector) -> list[Vector]:
            logit = self._nth(5, k)
            return [logit.at_least(most), (logit + self._kept(5, k)).at_least(most_slope)]

        most, most_slope = f.fold(count, [-math.inf] * 2, larger)

        def raise_to(k: object) -> list[Vector]:
            logit = self._nth(5, k)
            share = exp(logit - most)
            self._keep(0, k, share)
            self._keep(1, k, share * self._kept(4, k))
            self._keep(2, k, exp(logit + self._kept(5, k) - most_slope))
            return []

        f.fold(count, [], raise_to)

        def sum_up(i: object) -> list[Vector]:
            whole, total, slopes = self._products(1, i, range(3))
            slope = self._nth(3, i)
            self._keep(3, i, self._nth(4, i).plus(slope, total / whole))
            log_mean_slope = (most_slope + log(slopes)) - (most + log(whole))
            self._keep(4, i, log_mean_slope + log(slope))
            return []

        f.fold(count, [], sum_up)

    def _products(self, matrix: int, row: object, places: range) -> list[Vector]:
        """Return the products of a row of a matrix and of what was kept at some places."""
        f, b = self.f, self.f.e.b
        start = b.add(f.e.number(1), b.mul(self._square, f.e.number(matrix)))
        start = b.add(start, b.mul(self.count, row))

        def add(k: object, *totals: Vector) -> list[Vector]:
            weight = f.number(b.add(start, k))
            return [
                total.plus(weight, self._kept(place, k))
                for place, total in zip(places, totals, strict=True)
            ]

        return f.fold(self.count, [0.0] * len(places), add)

    def _nth(self, n: int, k: object) -> Vector:
        return self.f.parameter(self.f.nth(self.count, n, k))

    def _kept(self, n: int, k: object) -> Vector:
        return self.f.kept(self.f.nth(self.count, n, k))

    def _keep(self, n: int, k: object, value: Vector) -> None:
        self.f.keep(self.f.nth(self.count, n, k), value)


def inverse(f: Feature) -> tuple[Vector, Vector]:
    return _Sigmoids(f).at(f.x)


def forward(f: Feature) -> tuple[Vector, Vector]:
    return _root(f, _Sigmoids(f))


def dense_inverse(f: Feature) -> tuple[Vector, Vector]:
    return _DenseSigmoids(f).at(f.x)


def dense_forward(f: Feature) -> tuple[Vector, Vector]:
    return _root(f, _DenseSigmoids(f))


def _root(f: Feature, sigmoids: _Sigmoids | _DenseSigmoids) -> tuple[Vector, Vector]:
    u = f.x

    def residual(x: Vector) -> tuple[Vector, Vector]:
        value, log_slope = sigmoids.at(x)
        return value - u, exp(log_slope)

    tolerance = f.x.of(_ROUNDING).plus(abs(u), _ROUNDING)
    x = find_root(f, residual, sigmoids.bracket(u), tolerance)
    _, log_slope = sigmoids.at(x)
    is_number = abs(u) < math.inf
    return x.where(is_number, math.nan), (-log_slope).where(is_number, math.nan)


def _between(low: Vector, high: Vector) -> _Bracket:
    return low, high, low.plus(high - low, 0.5)


def _around(
    f: Feature, count: object, first: int, values: tuple[Vector, Vector]
) -> tuple[Vector, Vector]:
    """Return bounds of the number whose affine maps of a layer lie around these values."""
    least, most = values

    def around(k: object, low: Vector, high: Vector) -> list[Vector]:
        slope, shift = (f.parameter(f.nth(count, first + n, k)) for n in range(2))
        return [low.at_most((least - shift) / slope), high.at_least((most - shift) / slope)]

    low, high = f.fold(count, [math.inf, -math.inf], around)
    return low, high


def _raise_slopes(f: Feature, count: object, n: int) -> None:
    def bend(k: object) -> list[Vector]:
        place = f.nth(count, n, k)
        f.set_parameter(place, softplus(f.parameter(place) + _SLOPE_OFFSET) + _LEAST_SLOPE)
        return []

    f.fold(count, [], bend)


def _squash(f: Feature, count: object, unit: _Unit) -> tuple[Vector, Vector]:
    """Return the logit of a sum of sigmoids, and the logarithm of its slope."""
    tails, terms, most = _terms(f, count, unit)

    def add(k: object, *totals: Vector) -> list[Vector]:
        pairs = zip(totals, terms(k), most, strict=True)
        return [total + exp(term - shift) for total, term, shift in pairs]

    return _combined(tails, f.fold(count, [0.0] * 4, add), most)


def _terms(
    f: Feature, count: object, unit: _Unit
) -> tuple[Vector, Callable[[object], list[Vector]], list[Vector]]:
    """Return how far tails differ, the logarithms of four terms of a sigmoid, and the largest of these.

    Tails cancel before anything is summed: arguments of any size leave the slope its digits.
    """

    def sides(k: object) -> tuple[Vector, Vector, Vector, Vector]:
        z, log_slope, logit = unit(k)
        low = -softplus(-z)
        return low, low - z, logit, log_slope

    def larger(k: object, most_low: Vector, most_high: Vector) -> list[Vector]:
        low, high, *_ = sides(k)
        return [low.at_least(most_low), high.at_least(most_high)]

    most_low, most_high = f.fold(count, [-math.inf] * 2, larger)

    def terms(k: object) -> list[Vector]:
        low, high, logit, log_slope = sides(k)
        low, high = low - most_low, high - most_high
        return [logit + low, logit + high, logit + low + high + log_slope, logit]

    def largest(k: object, *most: Vector) -> list[Vector]:
        return [new.at_least(old) for new, old in zip(terms(k), most, strict=True)]

    return most_low - most_high, terms, f.fold(count, [-math.inf] * 4, largest)


def _combined(tails: Vector, sums: list[Vector], most: list[Vector]) -> tuple[Vector, Vector]:
    """Return the value and the logarithm of its slope, from the sums of four terms."""
    below, above, both, whole = (
        shift + log(total) for shift, total in zip(most, sums, strict=True)
    )
    return below - above + tails, both + whole - below - above


def gradient(f: Feature, pull: Pull) -> Vector:
    count = f.count(0)

    def largest(k: object, *most: Vector) -> list[Vector]:
        terms = _Sigmoid(f, k).terms
        return [new.at_least(old) for new, old in zip(terms, most, strict=True)]

    most = f.fold(count, [-math.inf] * 4, largest)

    def add(k: object, *totals: Vector) -> list[Vector]:
        shares = _Sigmoid(f, k).shares(most)
        return [total + share for total, share in zip(totals, shares, strict=True)]

    totals = f.fold(count, [0.0] * 4, add)

    def of(k: object, grad_x: Vector) -> list[Vector]:
        own = _Sigmoid(f, k)
        shares = zip(own.shares(most), totals, strict=True)
        below, above, both, whole = (share / total for share, total in shares)
        moved = below * own.rest + above * own.sigmoid
        bent = both * (own.rest - own.sigmoid) - below * own.rest + above * own.sigmoid
        grad_z = pull.noise * moved + pull.slope * bent
        grad_slope = grad_z * f.x + pull.slope * both / own.slope
        # The derivative of softplus, from its result.
        pull.set(k, grad_slope * (1.0 - exp(_LEAST_SLOPE - own.slope)))
        pull.set(f.nth(count, 1, k), grad_z)
        grad_logit = pull.noise * (below - above) + pull.slope * (both + whole - below - above)
        pull.set(f.nth(count, 2, k), grad_logit)
        return [grad_x.plus(grad_z, own.slope)]

    [grad_x] = f.fold(count, [0.0], of)
    return grad_x


class _Sigmoid:
    """Sigmoid of a sum: its slope, its value and the rest to 1, and the logarithms of its terms."""

    def __init__(self, f: Feature, k: object) -> None:
        count = f.count(0)
        self.slope = f.parameter(k)
        z = f.parameter(f.nth(count, 1, k)).plus(self.slope, f.x)
        logit = f.parameter(f.nth(count, 2, k))
        low = -softplus(-z)
        high = low - z
        self.sigmoid, self.rest = exp(low), exp(high)
        self.terms = [logit + low, logit + high, logit + low + high + log(self.slope), logit]

    def shares(self, most: list[Vector]) -> list[Vector]:
        """Return the exponentials of the terms, each over that of the largest of its kind."""
        pairs = zip(self.terms, most, strict=True)
        return [exp(term - largest) for term, largest in pairs]
