"""Conditions of questions about some columns given others."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from flows.compiled.compiled_flow import Doubles

Fill = Literal["mean", "median", "draw"]
GIVEN_ROWS = 128
"""Rows that `sample_given` yields at a time."""


@dataclass(frozen=True)
class Within:
    """Condition that a cell is one of some values, or within bounds.

    Attributes:
        values: Numbers of the table that it may be; None: any.
    """

    values: tuple[float, ...] | None = None
    low: float = -math.inf
    high: float = math.inf

    def holds(self, numbers: Doubles) -> Doubles:
        """Return 1 where a number meets the condition; a missing one never does."""
        inside = (numbers >= self.low) & (numbers <= self.high)
        if self.values is not None:
            inside &= np.isin(numbers, self.values)
        return inside.astype(np.float64)


@dataclass(frozen=True)
class Conditions:
    """Conditions of unknown cells.

    Attributes:
        within: What a cell must be, by column.
        filled: Columns whose cells are not missing.
    """

    within: Mapping[int, Within] = field(default_factory=dict)
    filled: Collection[int] = ()
