"""Statistics of a table from one pass over its rows, in float64 and bounded memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tables.source import Columns

DISTINCT_CAP = 1000
"""The most distinct values of a column that are counted."""

COLLINEAR_COLUMNS = 128
"""The widest table whose columns are checked against one another: the cost is quadratic."""

_NO_ROW = 0


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """The smallest or the largest values of all columns.

    Attributes:
        value: Extreme value of each column.
        row: First row with that value.
        count: Number of rows with that value.
    """

    value: NDArray[np.float64]
    row: NDArray[np.int64]
    count: NDArray[np.int64]


class RunningStatistics:
    """Moments, extremes and kinds of the columns seen so far.

    Moments are those of Chan, Golub and LeVeque (1983): each chunk is centred on its own mean in
    two passes and merged. All values are first shifted by the first row's, so that a large common
    offset (years, coordinates, time stamps) costs no digits.
    """

    def __init__(self, columns: int) -> None:
        self.rows = 0
        self.low = _nothing_yet(columns, np.inf)
        self.high = _nothing_yet(columns, -np.inf)
        self.whole = np.ones(columns, np.bool_)
        """Which columns hold whole numbers only."""
        self.consecutive = np.ones(columns, np.bool_)
        """Which columns go up by one with each row."""
        self._shift = np.zeros(columns)
        self._mean = np.zeros(columns)
        self._joint = columns <= COLLINEAR_COLUMNS
        self._moment = np.zeros((columns, columns) if self._joint else columns)
        self._last = np.full(columns, np.nan)
        self._distinct: list[NDArray[np.float64] | None] = [np.empty(0)] * columns

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each column."""
        # Rounding may not put it outside the values.
        return np.clip(self._shift + self._mean, self.low.value, self.high.value)

    @property
    def std(self) -> NDArray[np.float64]:
        """Population standard deviation of each column."""
        moment = np.diagonal(self._moment) if self._joint else self._moment
        return np.sqrt(moment / self.rows)

    @property
    def distinct(self) -> list[int | None]:
        """Number of distinct values of each column; None beyond `DISTINCT_CAP`."""
        return [None if values is None else values.size for values in self._distinct]

    def correlation(self, columns: NDArray[np.intp]) -> NDArray[np.float64] | None:
        """Return the correlation matrix of some columns, none of them constant.

        None for a table of more than `COLLINEAR_COLUMNS` columns.
        """
        if not self._joint:
            return None
        scale = self.std[columns] * np.sqrt(self.rows)
        # One factor after the other: their product may be too small to be a float.
        correlation: NDArray[np.float64] = self._moment[np.ix_(columns, columns)] / scale
        correlation /= scale[:, np.newaxis]
        return correlation

    def update(self, values: Columns, *, row_numbers: NDArray[np.int64]) -> None:
        """Add some rows.

        Args:
            values: One row or more; finite, with squares that are finite too.
            row_numbers: Number of each row in the file.
        """
        if self.rows == 0:
            self._shift = values[:, 0].copy()
        self._update_extremes(values, row_numbers)
        self._update_kinds(values)
        self._update_moments(values)
        self.rows += values.shape[1]

    def _update_extremes(self, values: Columns, row_numbers: NDArray[np.int64]) -> None:
        low, high = values.argmin(axis=1), values.argmax(axis=1)
        every = np.arange(values.shape[0])
        self.low = _merge(
            self.low, values, here=values[every, low], rows=row_numbers[low], better=np.less
        )
        self.high = _merge(
            self.high, values, here=values[every, high], rows=row_numbers[high], better=np.greater
        )

    def _update_kinds(self, values: Columns) -> None:
        for column in np.flatnonzero(self.whole).tolist():
            self.whole[column] = bool((values[column] == np.rint(values[column])).all())
        for column in np.flatnonzero(self.consecutive).tolist():
            before = values[column, 0] - 1 if self.rows == 0 else self._last[column]
            steps = np.diff(values[column], prepend=before)
            self.consecutive[column] = bool((steps == 1).all())
        self._last = values[:, -1].copy()
        for column, known in enumerate(self._distinct):
            if known is not None:
                self._distinct[column] = _merge_distinct(known, values[column])

    def _update_moments(self, values: Columns) -> None:
        rows = values.shape[1]
        centred = values - self._shift[:, np.newaxis]
        mean = centred.mean(axis=1)
        centred -= mean[:, np.newaxis]
        # What rounding left of the mean is taken out again.
        rest = centred.mean(axis=1)
        centred -= rest[:, np.newaxis]
        delta = mean + rest - self._mean
        weight = rows / (self.rows + rows)
        if self._joint:
            self._moment += centred @ centred.T
            self._moment += np.outer(delta, delta) * (self.rows * weight)
        else:
            self._moment += np.einsum("ij,ij->i", centred, centred)
            self._moment += delta**2 * (self.rows * weight)
        self._mean += delta * weight


def _nothing_yet(columns: int, value: float) -> Extreme:
    return Extreme(
        value=np.full(columns, value),
        row=np.full(columns, _NO_ROW),
        count=np.zeros(columns, np.int64),
    )


def _merge(
    so_far: Extreme,
    values: Columns,
    *,
    here: NDArray[np.float64],
    rows: NDArray[np.int64],
    better: np.ufunc,
) -> Extreme:
    improved = better(here, so_far.value)
    value = np.where(improved, here, so_far.value)
    count = np.count_nonzero(values == value[:, np.newaxis], axis=1)
    return Extreme(
        value=value,
        row=np.where(improved, rows, so_far.row),
        count=np.where(improved, count, so_far.count + count),
    )


def _merge_distinct(
    known: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    here = np.unique(values)
    if known.size:
        place = np.minimum(np.searchsorted(known, here), known.size - 1)
        here = here[known[place] != here]
        if not here.size:
            return known
    if known.size + here.size > DISTINCT_CAP:
        return None
    return np.sort(np.concatenate([known, here]))
