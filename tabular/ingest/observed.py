"""Columns of a table as one pass over its rows shows them, in bounded memory."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tabular.columns import Column
from tabular.formats import ColumnSummary
from tabular.ingest.numbers import Numbers, Sample, common_step, quantiles
from tabular.ingest.statistics import RunningStatistics
from tabular.numbers import MAX_DECIMALS, round_to
from tabular.source import Columns

MIN_SPREAD = 1e-37
"""A column whose standard deviation is not above this is constant: float32 cannot scale it."""

SHORT_FLOATS = frozenset({"float16", "float32"})
"""Types of numbers that float32 holds exactly."""


class ObservedColumns:
    """Columns of which the rows have been seen: statistics, a sample, decimals, steps of dates, counts of levels.

    Args:
        columns: Types of the columns, as far as they are known.
        dtypes: Types of their numbers in the file.
    """

    def __init__(self, columns: Sequence[Column], dtypes: Sequence[str]) -> None:
        self.statistics = RunningStatistics(len(columns))
        self._dtypes = dtypes
        self._sample = Sample(len(columns))
        self._decimals: list[int | None] = [0] * len(columns)
        self._steps_s = {
            place: 0 for place, column in enumerate(columns) if column.type == "datetime"
        }
        self._level_counts = {
            place: np.zeros(column.level_count, np.int64)
            for place, column in enumerate(columns)
            if not column.holds_values
        }
        self.mean = self.std = np.empty(0)
        self.missing = np.empty(0, np.int64)
        self.distinct: list[int | None] = []
        self.sample: list[NDArray[np.float64]] = []

    def update(self, values: Columns, numbers: NDArray[np.int64]) -> None:
        """Add rows with their numbers in the table."""
        self.statistics.update(values, row_numbers=numbers)
        self._sample.update(values)
        for place, known in enumerate(self._decimals):
            if known is not None and place not in self._level_counts:
                self._decimals[place] = self._count_decimals(values[place], place, known)
        for place, step_s in self._steps_s.items():
            self._steps_s[place] = common_step(values[place], step_s)
        for place in self._level_counts:
            indices = values[place][values[place] >= 0].astype(np.int64)
            counts = np.bincount(indices, minlength=self._level_counts[place].size)
            self._level_counts[place] += counts

    def finish(self) -> None:
        """Compute what is asked of all columns once, when all rows have come."""
        statistics = self.statistics
        self.mean, self.std = statistics.mean, statistics.std
        self.missing, self.distinct = statistics.missing, statistics.distinct
        self.sample = [values[~np.isnan(values)] for values in self._sample.rows()]

    @property
    def constant(self) -> NDArray[np.bool_]:
        """True for each column of one value, or of values too near to each other for float32."""
        statistics = self.statistics
        same = statistics.low.value == statistics.high.value
        tiny = ~(statistics.std > MIN_SPREAD) & (statistics.counts > 0)
        constant: NDArray[np.bool_] = (same | tiny) & (statistics.missing == 0)
        return constant

    def numbers(self, place: int, *, continuous: bool) -> Numbers:
        """Return what the values of a column are known to be.

        Args:
            place: Place of the column.
            continuous: True if several values are not to be taken for levels.
        """
        values = self.statistics.values(place)
        return Numbers(
            rows=int(self.statistics.counts[place]),
            values=None if values is None or (continuous and values[0].size > 1) else values[0],
            whole=bool(self.statistics.whole[place]),
            decimals=self._decimals[place],
            step_s=self._steps_s.get(place, 0),
            lowest=float(self.statistics.low.value[place]),
            sample=self.sample[place],
        )

    def summary(self, place: int, column: Column, reason: str) -> ColumnSummary:
        """Return the statistics of a column, as far as its type has them."""
        statistics = self.statistics
        values = statistics.values(place)
        beside = ColumnSummary(
            column=column,
            reason=reason,
            dtype=self._dtypes[place],
            missing_count=int(self.missing[place]),
        )
        if not column.holds_values:
            counts = self._level_counts[place]
            seen = int((counts > 0).sum())
            return replace(beside, level_counts=tuple(counts.tolist()), distinct=seen)
        if column.type == "ignored" or not statistics.counts[place]:
            return beside
        known = self.sample[place]
        return replace(
            beside,
            mean=float(self.mean[place]),
            std=float(self.std[place]),
            min=float(statistics.low.value[place]),
            max=float(statistics.high.value[place]),
            distinct=self.distinct[place],
            level_counts=tuple(values[1].tolist()) if column.levels and values is not None else (),
            spike_counts=_spike_counts(column, values, known, rows=int(statistics.counts[place])),
            quantiles={} if column.levels else quantiles(known),
        )

    def _count_decimals(self, values: NDArray[np.float64], place: int, known: int) -> int | None:
        """Return the decimals of the values, if more than are known."""
        short = self._dtypes[place] in SHORT_FLOATS
        finite = values[np.isfinite(values)]
        for decimals in range(known, MAX_DECIMALS + 1):
            rounded = round_to(finite, decimals)
            same = np.float32(rounded) == np.float32(finite) if short else rounded == finite
            finite = finite[~same]
            if not finite.size:
                return decimals
        return None


def _spike_counts(
    column: Column,
    values: tuple[NDArray[np.float64], NDArray[np.int64]] | None,
    sample: NDArray[np.float64],
    *,
    rows: int,
) -> tuple[int, ...]:
    """Return the number of cells of each spike, estimated by a sample where the values are too many."""
    if values is not None:
        return tuple(int(values[1][np.searchsorted(values[0], spike)]) for spike in column.spikes)
    return tuple(round(float(np.mean(sample == spike)) * rows) for spike in column.spikes)
