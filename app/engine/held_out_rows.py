"""Rows that were held out of the training of a version, among which scores are ranked."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.problems.problem import Problem
from flows import rank_among
from models_store.records import Version

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """Rows that scores are ranked among.

    Attributes:
        part: Part of the split that they are.
        quantiles: Their log densities at evenly spaced ranks.
    """

    rows: int
    part: str
    quantiles: Doubles

    @classmethod
    def of(cls, version: Version) -> "HeldOutRows":
        """Return those of a version.

        Raises:
            Problem: `score-unavailable`: it has none.
        """
        quantiles = version.held_out_quantiles
        if version.held_out is None or quantiles is None:
            raise Problem("score-unavailable")
        return cls(version.held_out["rows"], version.held_out_part, quantiles)

    @property
    def members(self) -> dict[str, Any]:
        """What the JSON of a response tells of them."""
        return {"held_out": {"rows": self.rows, "part": self.part}}

    def rank(self, log_prob: Doubles) -> Doubles:
        """Return the rank of each log density among theirs."""
        return rank_among(log_prob, self.quantiles, rows=self.rows)
