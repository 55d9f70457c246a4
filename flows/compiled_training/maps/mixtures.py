"""Densities of mixtures of Gaussians and of Bernoulli variables, and their gradients.

The maps are those of `flows.compiled.loops.mixture_maps`, which leave log weights in the places of a
mixture's logits.
"""

import math
from typing import Any

from flows.compiled.loops.features import Feature
from flows.compiled.loops.gaussians import HALF_LOG_TWO_PI
from flows.compiled.loops.vectors import Vector, exp
from flows.compiled_training.maps.cells import Pull

# mypy: ignore-errors
# llvmlite has no types.


def pull_mixture(f: Feature, pull: Pull) -> Vector:
    """Return the gradient of x."""
    count, b = f.count(0), f.e.b
    largest, total = f.fold(
        count, [-math.inf, 0.0], lambda k, *sums: _log_sum(_Component(f, k), *sums)
    )
    inverse = pull.slope / total

    def of(k: Any, grad_x: Vector) -> list[Vector]:
        own = _Component(f, k)
        share = inverse * exp(own.term - largest)
        grad_mean = share * own.z * own.inverse
        pull.set(k, share - pull.slope * exp(own.log_weight))
        pull.set(b.add(count, k), grad_mean)
        bent = own.rest * own.rest
        pull.set(b.add(b.add(count, count), k), share * (own.z * own.z - 1.0) * bent)
        return [grad_x - grad_mean]

    [grad_x] = f.fold(count, [0.0], of)
    return grad_x


class _Component:
    """Component of a mixture: its log weight, its place, and the logarithm of its share of the density."""

    def __init__(self, f: Feature, k: Any) -> None:
        count, b = f.count(0), f.e.b
        raw = f.parameter(b.add(b.add(count, count), k))
        # The derivative of a bounded log scale is the square of this.
        self.rest = 1.0 / (1.0 + abs(raw) * f.number(1))
        log_scale = raw * self.rest
        self.inverse = exp(-log_scale)
        self.z = (f.x - f.parameter(b.add(count, k))) * self.inverse
        self.log_weight = f.parameter(k)
        self.term = (self.log_weight - log_scale).plus(self.z * self.z, -0.5) - HALF_LOG_TWO_PI


def _log_sum(own: _Component, largest: Vector, total: Vector) -> list[Vector]:
    """Return the largest term so far, and the sum of all over it."""
    raised = own.term.at_least(largest)
    before = total * exp(largest - raised)
    return [raised, before + exp(own.term - raised)]
