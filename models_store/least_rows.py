"""The least likely rows of a table, collected while it is scored, and how many rows lie below a rank."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows import rank_among

MAX_LEAST_ROWS = 1000
"""Most rows that are kept of a table."""

THRESHOLDS = (
    *(0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.012, 0.015, 0.02, 0.025, 0.03),
    *(0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 1.0),
)
"""Ranks for which it is counted how many rows are at or below them."""

Doubles = NDArray[np.float64]


class LeastRows:
    """Collector of the least likely rows of a table whose scores come in order.

    Args:
        quantiles: Quantiles of held-out log densities; None where a version has none: nothing is counted then.

    Attributes:
        total: Number of rows so far.
    """

    def __init__(self, quantiles: Sequence[float] | None, held_out_rows: int | None) -> None:
        self._quantiles = None if quantiles is None else np.array(quantiles)
        self._held_out_rows = held_out_rows or 0
        self._rows = np.empty(0, np.int64)
        self._log_prob = np.empty(0)
        self._counts = np.zeros(len(THRESHOLDS), np.int64)
        self.total = 0

    def add(self, log_prob: Doubles) -> None:
        """Add the log densities of the next rows; those of NaN, which have none, are not kept."""
        rows = np.arange(self.total, self.total + len(log_prob))
        self.total += len(log_prob)
        known = ~np.isnan(log_prob)
        rows, log_prob = rows[known], log_prob[known]
        if self._quantiles is not None:
            ranks = rank_among(log_prob, self._quantiles, rows=self._held_out_rows)
            self._counts += (ranks[:, None] <= THRESHOLDS).sum(axis=0)
        self._rows = np.concatenate([self._rows, rows])
        self._log_prob = np.concatenate([self._log_prob, log_prob])
        if len(self._rows) > MAX_LEAST_ROWS:
            order = np.lexsort((self._rows, self._log_prob))[:MAX_LEAST_ROWS]
            self._rows, self._log_prob = self._rows[order], self._log_prob[order]

    def to_dict(self) -> dict[str, Any]:
        """Return what is kept as JSON; the log density of a row without any density is null."""
        order = np.lexsort((self._rows, self._log_prob))
        log_prob = [None if np.isinf(one) else float(one) for one in self._log_prob[order]]
        return {
            "total": self.total,
            "rows": self._rows[order].tolist(),
            "log_prob": log_prob,
            "counts": None if self._quantiles is None else self._counts.tolist(),
        }
