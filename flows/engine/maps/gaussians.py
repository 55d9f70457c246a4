"""Shares and quantiles of the Gaussian distribution, as far in its tails as floats go."""

import math

from flows.engine.vectors import Vector, exp, log, polynomial

# mypy: ignore-errors
# llvmlite has no types.

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_QUANTILE_STEPS = 7


def tail_terms(x: Vector) -> tuple[Vector, Vector, Vector]:
    """Return f, p and s, with which f exp(p - s) is the share beyond |x|, to 2e-7 of it.

    Press et al. 2007, 6.2.2. s is x^2 / 2, so that the logarithms of tails can be compared however
    far they are.
    """
    z = abs(x) * math.sqrt(0.5)
    t = 1.0 / (1.0 + 0.5 * z)
    p = polynomial(
        t, 0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418,
        0.37409196, 1.00002368, -1.26551223,
    )  # fmt: skip
    return 0.5 * t, p, z * z


def share_below(x: Vector) -> Vector:
    """Return the Gaussian distribution function."""
    factor, power, square = tail_terms(x)
    tail = factor * exp(power - square)
    return (1.0 - tail).where(x > 0.0, tail)


def log_share_below(x: Vector) -> Vector:
    """Return the logarithm of the Gaussian distribution function."""
    factor, power, square = tail_terms(x)
    tail = power - square
    return log(1.0 - factor * exp(tail)).where(x > 0.0, log(factor) + tail)


def log_tail_quantile(y: Vector) -> Vector:
    """Return the u of which the distribution function has this logarithm, at most that of a half."""
    v = (-2.0 * (y + math.log(2.0))).at_least(0.0).sqrt()  # no smaller than -u
    for _ in range(_QUANTILE_STEPS):
        factor, power, square = tail_terms(v)
        rest = power + log(factor)
        v = v + (rest - square - y) * exp(rest + HALF_LOG_TWO_PI)
    return (-v).where(y.equals(y), y)
