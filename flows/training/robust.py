"""Robust losses: single rows cannot outweigh all others."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Least spread, in nats: rows that all fit equally well have no outliers.
LEAST_SPREAD = 1.0

# Share of rows that a robust mean leaves out, and the number of rows from which on one is left out.
TRIMMED, LEAST_ROWS = 0.01, 20


def robust_mean(log_probs: Float[Tensor, " rows"], bound: float) -> float:
    """Return the mean log density without the worst 1 % of the rows, the others' losses bounded.

    Trimming alone is ruined by a few more wild rows than it leaves out; bounded losses alone move
    with the spread that they are measured in, which shows where one row in a few dozen is wild.
    """
    losses = bound_losses(-log_probs, bound).sort().values
    return -float(losses[: _kept(len(losses))].mean())


def robust_standard_error(
    one: Float[Tensor, " rows"], other: Float[Tensor, " rows"], bound: float
) -> float:
    """Return the standard error of the difference of two robust means of the same rows.

    Args:
        bound: Bound of the losses, as of both means.

    Returns:
        Its estimate from the rows that both means keep and that have both densities; 0 if they are
        fewer than two.
    """
    first, second = (bound_losses(-log_probs, bound) for log_probs in (one, other))
    both = torch.ones(len(one), dtype=torch.bool, device=one.device)
    for losses in (first, second):
        both[losses.argsort()[_kept(len(losses)) :]] = False
    differences = (first - second)[both]
    told = differences[differences.isfinite()]
    return float(told.std()) / math.sqrt(len(told)) if len(told) > 1 else 0.0


def _kept(rows: int) -> int:
    return rows - math.ceil(TRIMMED * rows) if rows >= LEAST_ROWS else rows


def bound_losses(losses: Float[Tensor, " rows"], bound: float) -> Float[Tensor, " rows"]:
    """Return losses that grow like a logarithm beyond a fence, with slope 1 at it.

    The fence is `bound` spreads above the median, the spread being the distance between the
    quartiles: a quarter of the rows, however far off, cannot move it far. Beyond the fence f a
    loss l becomes f + s log(1 + (l - f) / s), with the spread s, so that its gradient is divided
    by 1 + (l - f) / s. Fence and spread count as constants.

    Args:
        losses: Negative log densities, in nats. An infinite one counts as the largest number; NaN
            stays NaN, and so does infinity once it is the median.
        bound: Distance of the fence from the median in spreads, above 0.
    """
    ordered = losses.detach().sort().values
    low, middle, high = (ordered[len(ordered) * quarter // 4] for quarter in (1, 2, 3))
    spread = (high - low).clamp(min=LEAST_SPREAD)
    fence = middle + bound * spread
    excess = (losses - fence).clamp(min=0, max=torch.finfo(losses.dtype).max)
    return torch.where(losses > fence, fence + spread * (excess / spread).log1p(), losses)
