"""Sums of sigmoids (`flows.families.naf`); slopes take the places of what they are computed from."""

import math
from typing import Any

from flows.compiled.loops.features import Feature
from flows.compiled.loops.vectors import Vector, exp, log, softplus
from flows.compiled_training.maps.cells import Pull

# mypy: ignore-errors
# llvmlite has no types.

# As in `flows.families.naf`.
_LEAST_SLOPE = 1e-3


def pull_sigmoids(f: Feature, pull: Pull) -> Vector:
    """Return the gradient of x."""
    count, b = f.count(0), f.e.b

    def largest(k: Any, *most: Vector) -> list[Vector]:
        terms = _Sigmoid(f, k).terms
        return [new.at_least(old) for new, old in zip(terms, most, strict=True)]

    most = f.fold(count, [-math.inf] * 4, largest)

    def add(k: Any, *totals: Vector) -> list[Vector]:
        shares = _Sigmoid(f, k).shares(most)
        return [total + share for total, share in zip(totals, shares, strict=True)]

    totals = f.fold(count, [0.0] * 4, add)

    def of(k: Any, grad_x: Vector) -> list[Vector]:
        own = _Sigmoid(f, k)
        shares = zip(own.shares(most), totals, strict=True)
        below, above, both, whole = (share / total for share, total in shares)
        moved = below * own.rest + above * own.sigmoid
        bent = both * (own.rest - own.sigmoid) - below * own.rest + above * own.sigmoid
        grad_z = pull.noise * moved + pull.slope * bent
        grad_slope = grad_z * f.x + pull.slope * both / own.slope
        # The derivative of softplus, from its result.
        pull.set(k, grad_slope * (1.0 - exp(_LEAST_SLOPE - own.slope)))
        pull.set(b.add(count, k), grad_z)
        grad_logit = pull.noise * (below - above) + pull.slope * (both + whole - below - above)
        pull.set(b.add(b.add(count, count), k), grad_logit)
        return [grad_x.plus(grad_z, own.slope)]

    [grad_x] = f.fold(count, [0.0], of)
    return grad_x


class _Sigmoid:
    """Sigmoid of a sum: its slope, its value and the rest to 1, and the logarithms of its terms."""

    def __init__(self, f: Feature, k: Any) -> None:
        count, b = f.count(0), f.e.b
        self.slope = f.parameter(k)
        z = f.parameter(b.add(count, k)).plus(self.slope, f.x)
        logit = f.parameter(b.add(b.add(count, count), k))
        low = -softplus(-z)
        high = low - z
        self.sigmoid, self.rest = exp(low), exp(high)
        self.terms = [logit + low, logit + high, logit + low + high + log(self.slope), logit]

    def shares(self, most: list[Vector]) -> list[Vector]:
        """Return the exponentials of the terms, each over that of the largest of its kind."""
        pairs = zip(self.terms, most, strict=True)
        return [exp(term - largest) for term, largest in pairs]
