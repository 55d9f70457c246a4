"""Calibration of log densities: the rank of a row among rows that were held out."""

import numpy as np
import numpy.typing as npt

from flows.errors import FlowError

Doubles = npt.NDArray[np.float64]

QUANTILES = 1001
"""Number of quantiles that describe the held-out log densities: 0, 0.001, ..., 1."""

# Value for a density of 0, or one that cannot be computed: JSON has no infinity.
_FLOOR = float(np.finfo(np.float64).min)
# Log densities that differ by less, relatively, are the same: those of float32 are rounded.
_TIE = 2e-6


def quantiles_of(log_prob: Doubles) -> Doubles:
    """Return the quantiles 0, 0.001, ..., 1 of log densities, each that of a row: the next one above.

    Args:
        log_prob: Log densities of held-out rows; non-finite ones count as the least likely.

    Raises:
        FlowError: There are none.
    """
    if len(log_prob) == 0:
        raise FlowError("there are no log densities to take quantiles of")
    known = np.where(np.isfinite(log_prob), log_prob, _FLOOR)
    found: Doubles = np.sort(known)[_places(len(known), QUANTILES)]
    return found


def rank_among(log_prob: Doubles, quantiles: Doubles, *, rows: int) -> Doubles:
    """Return the conformal rank of each log density among the held-out ones: k / (rows + 1).

    k counts the held-out rows that are at most as likely, and the row itself. So of rows like the held-out
    ones at most a share r has a rank of at most r, however few these are (Vovk et al. 2005). The rank is
    from 1 / (rows + 1), below all held-out rows, to 1, and NaN for NaN; it is 0 for a density of 0 where no
    held-out row has one. Of more than 1,000 rows k is interpolated between two quantiles.

    Args:
        quantiles: Ascending quantiles from `quantiles_of`.
    """
    known = np.where(np.isinf(log_prob), np.copysign(-_FLOOR, log_prob), log_prob)
    with np.errstate(over="ignore"):
        above = np.searchsorted(quantiles, known + _TIE * (1 + np.abs(known)), side="right")
    places = _places(rows, len(quantiles))
    most = np.append(places, rows)[above]
    least = np.minimum(np.insert(places + 1, 0, 0)[above], most)
    low, high = np.insert(quantiles, 0, _FLOOR)[above], np.append(quantiles, -_FLOOR)[above]
    share = np.clip((known / 2 - low / 2) / (high / 2 - low / 2), 0, 1)  # halves do not overflow
    ranks: Doubles = (1 + least + share * (most - least)) / (rows + 1)
    ranks[(log_prob == -np.inf) & (quantiles[0] > _FLOOR)] = 0
    return np.where(np.isnan(log_prob), np.nan, ranks)


def _places(rows: int, quantiles: int) -> npt.NDArray[np.int64]:
    """Return the place among sorted rows of each quantile."""
    last = quantiles - 1
    found: npt.NDArray[np.int64] = -(-(rows - 1) * np.arange(quantiles) // last)
    return found
