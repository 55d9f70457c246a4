"""Decimals of samples of plain numbers, which text shows as the data do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabular.columns import Column

_EXACT = 2.0**53
_Rows = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Roundings:
    """Rounding of the columns of samples, all at once.

    Attributes:
        scales: Steps in a unit of each column.
        free: Places of the columns that have no such steps.
        some_whole: True if some columns hold whole numbers.
        all_whole: True if all do.
    """

    scales: NDArray[np.float64]
    free: NDArray[np.intp]
    some_whole: bool
    all_whole: bool

    @classmethod
    def of(cls, columns: Sequence[Column]) -> "Roundings | None":
        """Return the rounding to the decimals of the columns; None if no column has any."""
        decimals = [column.decimals for column in columns]
        if all(number is None for number in decimals):
            return None
        return cls(
            np.array([10.0 ** (number or 0) for number in decimals]),
            np.array([at for at, number in enumerate(decimals) if number is None], np.intp),
            some_whole=0 in decimals,
            all_whole=set(decimals) == {0},
        )

    def apply(self, rows: _Rows) -> NDArray[Any]:
        """Return rows of shape (n, columns) with the decimals of their columns, without -0.

        They are integers where all are whole numbers, which are written faster.
        """
        rounded = np.asarray(rows, np.float64) * self.scales
        np.rint(rounded, out=rounded)
        rounded /= self.scales
        rounded += 0.0
        if self.free.size:
            rounded[:, self.free] = rows[:, self.free]
        if self.all_whole and np.abs(rounded).max(initial=0.0) < _EXACT:
            return rounded.astype(np.int64)
        return rounded
