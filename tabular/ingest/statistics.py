"""Statistics of a table from one pass over its rows, in float64 and bounded memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tabular.source import Columns

DISTINCT_CAP = 1000
"""The most distinct values of a column that are counted."""

COLLINEAR_COLUMNS = 128
"""The widest table whose columns are checked against one another: the cost is quadratic."""


@dataclass(frozen=True, kw_only=True)
class Extreme:
    """The smallest or the largest values of all columns.

    Attributes:
        value: Extreme value of each column.
        row: First row with that value.
    """

    value: NDArray[np.float64]
    row: NDArray[np.int64]


class RunningStatistics:
    """Moments, extremes and kinds of the columns seen so far; missing values are left out of them.

    Moments are those of Chan, Golub and LeVeque (1983): each chunk is centred on its own mean in
    two passes and merged. All values are first shifted by the first row's, so that a large common
    offset (years, coordinates, time stamps) costs no digits.
    """

    def __init__(self, columns: int) -> None:
        self.rows = 0
        self.counts = np.zeros(columns, np.int64)
        """Number of values of each column that are not missing."""
        no_row = np.zeros(columns, np.int64)
        self.low = Extreme(value=np.full(columns, np.inf), row=no_row)
        self.high = Extreme(value=np.full(columns, -np.inf), row=no_row)
        self.whole = np.ones(columns, np.bool_)
        """Which columns hold whole numbers only."""
        self.consecutive = np.ones(columns, np.bool_)
        """Which columns go up by one with each row."""
        self.increasing = np.ones(columns, np.bool_)
        """Which columns go up with each row."""
        self._shift = np.full(columns, np.nan)
        self._mean = np.zeros(columns)
        self._joint = columns <= COLLINEAR_COLUMNS
        self._moment = np.zeros((columns, columns) if self._joint else columns)
        self._last = np.full(columns, np.nan)
        nothing = np.empty(0), np.empty(0, np.int64)
        self._distinct: list[tuple[NDArray[np.float64], NDArray[np.int64]] | None] = [
            nothing
        ] * columns

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each column."""
        # Rounding may not put it outside the values.
        return np.clip(self._shift + self._mean, self.low.value, self.high.value)

    @property
    def std(self) -> NDArray[np.float64]:
        """Population standard deviation of each column."""
        moment = np.diagonal(self._moment) if self._joint else self._moment
        return np.sqrt(moment / np.maximum(self.counts, 1))

    @property
    def missing(self) -> NDArray[np.int64]:
        """Number of missing values of each column."""
        return self.rows - self.counts

    @property
    def distinct(self) -> list[int | None]:
        """Number of distinct values of each column; None beyond `DISTINCT_CAP`."""
        return [None if values is None else values[0].size for values in self._distinct]

    def values(self, column: int) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        """Return the distinct values of a column in order, and how often each came; None beyond the cap."""
        return self._distinct[column]

    def correlation(self, columns: NDArray[np.intp]) -> NDArray[np.float64] | None:
        """Return the correlation matrix of some columns, none of them constant or with missing values.

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
        """Add some rows."""
        absent = np.isnan(values)
        gaps = bool(absent.any())
        unshifted = np.isnan(self._shift)
        if unshifted.any():
            first = values[np.arange(len(values)), (~absent).argmax(axis=1)]
            self._shift = np.where(unshifted, first, self._shift)
        self._update_extremes(values, row_numbers, gaps=gaps)
        self._update_kinds(values, absent)
        self._update_moments(values, absent if gaps else None)
        self.rows += values.shape[1]

    def _update_extremes(
        self, values: Columns, row_numbers: NDArray[np.int64], *, gaps: bool
    ) -> None:
        every = np.arange(values.shape[0])
        above = np.where(np.isnan(values), np.inf, values) if gaps else values
        below = np.where(np.isnan(values), -np.inf, values) if gaps else values
        low, high = above.argmin(axis=1), below.argmax(axis=1)
        self.low = _merge(self.low, above[every, low], row_numbers[low], better=np.less)
        self.high = _merge(self.high, below[every, high], row_numbers[high], better=np.greater)

    def _update_kinds(self, values: Columns, absent: NDArray[np.bool_]) -> None:
        for column in np.flatnonzero(self.whole).tolist():
            whole = (values[column] == np.rint(values[column])) | absent[column]
            self.whole[column] = bool(whole.all())
        for column in np.flatnonzero(self.increasing).tolist():
            before = values[column, 0] - 1 if self.rows == 0 else self._last[column]
            steps = np.diff(values[column], prepend=before)
            self.increasing[column] = bool((steps > 0).all())
            self.consecutive[column] &= bool((steps == 1).all())
        self.consecutive &= self.increasing
        self._last = values[:, -1].copy()
        for column, known in enumerate(self._distinct):
            if known is not None:
                present = values[column][~absent[column]]
                self._distinct[column] = _merge_distinct(known, present)

    def _update_moments(self, values: Columns, absent: NDArray[np.bool_] | None) -> None:
        centred = values - self._shift[:, np.newaxis]
        if absent is None:
            counts = np.full(len(values), values.shape[1])
        else:
            counts = values.shape[1] - absent.sum(axis=1)
            centred[absent] = 0.0
        divisor = np.maximum(counts, 1)
        mean = centred.sum(axis=1) / divisor
        centred -= mean[:, np.newaxis]
        if absent is not None:
            centred[absent] = 0.0
        # What rounding left of the mean is taken out again.
        rest = centred.sum(axis=1) / divisor
        centred -= rest[:, np.newaxis]
        if absent is not None:
            centred[absent] = 0.0
        delta = np.where(counts > 0, mean + rest - self._mean, 0.0)
        weight = counts / np.maximum(self.counts + counts, 1)
        spread = np.sqrt(self.counts * weight) * delta
        if self._joint:
            self._moment += centred @ centred.T
            self._moment += np.outer(spread, spread)
        else:
            self._moment += np.einsum("ij,ij->i", centred, centred)
            self._moment += spread**2
        self._mean += delta * weight
        self.counts = self.counts + counts


def _merge(
    so_far: Extreme, values: NDArray[np.float64], rows: NDArray[np.int64], *, better: np.ufunc
) -> Extreme:
    improved = better(values, so_far.value)
    return Extreme(
        value=np.where(improved, values, so_far.value), row=np.where(improved, rows, so_far.row)
    )


def _merge_distinct(
    known: tuple[NDArray[np.float64], NDArray[np.int64]], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    here, counts = np.unique(values, return_counts=True)
    merged, places = np.unique(np.concatenate([known[0], here]), return_inverse=True)
    if merged.size > DISTINCT_CAP:
        return None
    total = np.zeros(merged.size, np.int64)
    np.add.at(total, places, np.concatenate([known[1], counts]))
    return merged, total
