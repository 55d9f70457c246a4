"""How likely a row is among rows that were held out: log densities of a model, calibrated."""

import numpy as np
import numpy.typing as npt

from flows.errors import FlowError

Doubles = npt.NDArray[np.float64]

QUANTILES = 1001
"""How many quantiles describe the held-out log densities: 0, 0.001, ..., 1."""

# Stands for a density of 0, or one that cannot be computed: JSON has no infinity.
_FLOOR = float(np.finfo(np.float64).min)


def quantiles_of(log_prob: Doubles) -> Doubles:
    """The quantiles 0, 0.001, ..., 1 of log densities, interpolated between the rows.

    Args:
        log_prob: of held-out rows; those that are not finite count as the least likely ones.

    Raises:
        FlowError: there are none.
    """
    if len(log_prob) == 0:
        raise FlowError("there are no log densities to take quantiles of")
    known = np.where(np.isfinite(log_prob), log_prob, _FLOOR)
    return np.quantile(known, np.linspace(0.0, 1.0, QUANTILES))


def rank_among(log_prob: Doubles, quantiles: Doubles) -> Doubles:
    """The rank of each log density among those that were held out, from 0 to 1.

    Between two quantiles it is interpolated; equal quantiles share the middle of their ranks. It
    is 0 for what is less likely than all held-out rows, 1 for what is likelier, and NaN for NaN.

    Args:
        log_prob: of the rows in question.
        quantiles: from `quantiles_of`, ascending.
    """
    values, first, counts = np.unique(quantiles, return_index=True, return_counts=True)
    middle = (first + (counts - 1) / 2) / (len(quantiles) - 1)
    return np.interp(log_prob, values, middle, left=0.0, right=1.0)
