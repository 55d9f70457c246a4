"""Calibration of log densities: the rank of a row among rows that were held out."""

import numpy as np
import numpy.typing as npt

from flows.errors import FlowError

Doubles = npt.NDArray[np.float64]

QUANTILES = 1001
"""Number of quantiles that describe the held-out log densities: 0, 0.001, ..., 1."""

# Value for a density of 0, or one that cannot be computed: JSON has no infinity.
_FLOOR = float(np.finfo(np.float64).min)


def quantiles_of(log_prob: Doubles) -> Doubles:
    """Return the quantiles 0, 0.001, ..., 1 of log densities, interpolated between the rows.

    Args:
        log_prob: Log densities of held-out rows; non-finite ones count as the least likely.

    Raises:
        FlowError: There are none.
    """
    if len(log_prob) == 0:
        raise FlowError("there are no log densities to take quantiles of")
    known = np.where(np.isfinite(log_prob), log_prob, _FLOOR)
    return np.quantile(known, np.linspace(0.0, 1.0, QUANTILES))


def rank_among(log_prob: Doubles, quantiles: Doubles) -> Doubles:
    """Return the rank of each log density among the held-out ones, from 0 to 1.

    Ranks are interpolated between two quantiles; equal quantiles share the middle of their ranks.
    The rank is 0 below all held-out rows, 1 above all of them, and NaN for NaN.

    Args:
        log_prob: Log densities of the rows to rank.
        quantiles: Ascending quantiles from `quantiles_of`.
    """
    values, first, counts = np.unique(quantiles, return_index=True, return_counts=True)
    middle = (first + (counts - 1) / 2) / (len(quantiles) - 1)
    return np.interp(log_prob, values, middle, left=0.0, right=1.0)
