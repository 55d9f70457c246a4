"""Weeks of ISO 8601, which begin on Mondays."""

import numpy as np
from numpy.typing import NDArray

THURSDAY = 3
"""Day of the week of the first of January 1970; Mondays are 0."""


def first_monday(year: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the Monday of the week with the fourth of January."""
    fourth = (year - 1970).astype("M8[Y]").astype("M8[D]").astype(np.int64) + 3
    return fourth - (fourth + THURSDAY) % 7
