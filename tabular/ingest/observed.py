"""Columns of a table as one pass over its rows shows them, in bounded memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tabular.cells import decode_cells
from tabular.columns import Column, ColumnType
from tabular.dates import DATE_DECIMALS, DAY_S, has_date
from tabular.formats import ColumnSummary
from tabular.ingest.numbers import (
    Sample,
    choose_transform,
    common_step,
    find_spikes,
    is_ordinal,
    lower_bound,
    quantiles,
    repetition,
    tied_columns,
)
from tabular.ingest.statistics import RunningStatistics
from tabular.numbers import MAX_DECIMALS, round_to
from tabular.source import Columns

MIN_SPREAD = 1e-37
"""A column whose standard deviation is not above this is constant: float32 cannot scale it."""

SHORT_FLOATS = frozenset({"float16", "float32"})
"""Types of numbers that float32 holds exactly."""


MAX_WHOLE_LEVELS = 20
"""The most values of a column of whole numbers that are levels."""

MAX_LEVELS = 10
"""The most values of a column of other numbers that are levels."""

ROWS_PER_LEVEL = 20
"""The fewest rows for each level, on average."""

_TRUTH_ROWS = 10
_SHARED_ROWS, _SHARED = 2, 0.005  # of a value that is no slip: fewest rows, least share of them
_MOST_NAMED = 5  # spikes in a reason
_LARGEST = 2.0**53
_CLOCK_STEPS = (DAY_S, 43_200, 21_600, 10_800, 3_600, 1_800, 900, 600, 300, 60, 30, 15, 10, 5)


class ObservedColumns:
    """Columns of which the rows have been seen: statistics, a sample, decimals, steps of dates, counts of levels."""

    def __init__(self, columns: Sequence[Column], dtypes: Sequence[str]) -> None:
        self.statistics = RunningStatistics(len(columns))
        self._dtypes = dtypes
        self._sample = Sample(len(columns))
        self._decimals: list[int | None] = [0] * len(columns)
        self._steps_s = {
            place: 0 for place, column in enumerate(columns) if column.type == "datetime"
        }
        discrete = {place: column for place, column in enumerate(columns) if column.is_discrete}
        self._level_counts = {
            place: np.zeros(column.level_count, np.int64) for place, column in discrete.items()
        }
        self._level_values = {
            place: np.array(column.level_numbers)
            for place, column in discrete.items()
            if column.holds_values
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
        for place, counts in self._level_counts.items():
            if place in self._level_values:
                levels = self._level_values[place]
                known = values[place][np.isin(values[place], levels)]
                indices = np.searchsorted(levels, known)
            else:
                indices = values[place][values[place] >= 0].astype(np.int64)
            counts[:] += np.bincount(indices, minlength=counts.size)

    def finish(self) -> None:
        """Compute what is asked of all columns once, when all rows have come."""
        statistics = self.statistics
        self.mean, self.std = statistics.mean, statistics.std
        self.missing, self.distinct = statistics.missing, statistics.distinct
        self.sample = [self._known(place, row) for place, row in enumerate(self._sample.rows())]

    def _known(self, place: int, sampled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values of a column in the sample, or some others where all that were drawn are missing."""
        known = sampled[~np.isnan(sampled)]
        if known.size or not self.statistics.counts[place]:
            return known
        values = self.statistics.values(place)
        extremes = self.statistics.low.value[place], self.statistics.high.value[place]
        return np.array(extremes) if values is None else np.repeat(*values)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """True for each column of one value, or of values too near to each other for float32."""
        statistics = self.statistics
        same = statistics.low.value == statistics.high.value
        tiny = ~(statistics.std > MIN_SPREAD) & (statistics.counts > 0)
        constant: NDArray[np.bool_] = (same | tiny) & (statistics.missing == 0)
        return constant

    def typed(
        self, place: int, column: Column, *, continuous: bool, reason: str | None
    ) -> tuple[Column, str]:
        """Return the type of a column of numbers or dates with all that its values tell, and the reason.

        Args:
            column: Type of the column as far as it is known: `number`, `integer` or `datetime`.
            continuous: True if several values are not to be taken for levels.
            reason: Reason of the type so far, such as of texts that are all numbers; None if there is none.
        """
        sample, decimals = self.sample[place], self._decimals[place]
        if column.type == "datetime" and decimals is None:
            decimals = DATE_DECIMALS
        column = replace(column, decimals=None if column.date_only else decimals)
        is_whole = bool(self.statistics.whole[place])
        if column.type == "number" and is_whole and abs(sample).max() < _LARGEST:
            column = replace(column, type="integer")
        levels = self._levels(place, column)
        if levels is not None and not (continuous and len(levels) > 1):
            is_truth = set(levels) == {0, 1} and column.type != "datetime"
            kind: ColumnType = "boolean" if is_truth else column.type
            return replace(column, levels=levels, type=kind), _level_reason(levels, column)
        spikes = tuple(find_spikes(sample))
        if column.type == "datetime":  # its spikes are such as 9999-12-31, which stands for no end
            column = replace(self._with_clock(place, column), spikes=spikes)
            return column, f"{reason or 'The values are dates.'}{_about_spikes(column)}"
        # Zero is a bound of all values, or of none.
        values = np.append(sample, self.statistics.low.value[place])
        rest = values[~np.isin(values, spikes)]
        transform, gain = choose_transform(rest, decimals=decimals)
        low = lower_bound(values, transform)
        column = replace(column, spikes=spikes, transform=transform, low=low)
        what = "whole numbers" if column.type == "integer" else "numbers"
        reason = f"{reason or f'The values are {what}.'}{_about_spikes(column)}"
        if transform != "none":
            reason += f" The scale {transform} gains {gain:.2g} nats a value."
        return column, reason

    def _levels(self, place: int, column: Column) -> tuple[float, ...] | None:
        """Return the values of a column as its levels, where they are few and each has many rows."""
        found, rows = self.statistics.values(place), int(self.statistics.counts[place])
        if found is None or not found[0].size:
            return None
        values = found[0]
        is_whole = self.statistics.whole[place] and column.type != "datetime"
        limit = MAX_WHOLE_LEVELS if is_whole else MAX_LEVELS
        truths = set(values.tolist()) == {0.0, 1.0} and rows >= _TRUTH_ROWS
        few = values.size <= limit and rows >= ROWS_PER_LEVEL * values.size
        few |= not is_whole and column.type != "datetime" and is_ordinal(*found)
        if values.size > 1 and not (truths or (few and not _are_far(*found))):
            return None
        return tuple(int(value) if value.is_integer() else value for value in values.tolist())

    def _with_clock(self, place: int, column: Column) -> Column:
        """Return a column of dates with the longest step of a clock that all are multiples of."""
        step_s = self._steps_s.get(place, 0)
        if step_s and not column.date_only:
            longest = next((step for step in _CLOCK_STEPS if step_s % step == 0), 0)
            column = replace(column, step_s=longest)
        if not has_date(column.datetime_format):
            return replace(column, low=0.0, high=DAY_S - 1.0)
        return column

    def summary(self, place: int, column: Column, reason: str) -> ColumnSummary:
        """Return the statistics of a column, as far as its type has them."""
        statistics = self.statistics
        values = statistics.values(place)
        level_counts = self._level_counts.get(place)
        if level_counts is None and column.levels and values is not None:
            level_counts = values[1]
        beside = ColumnSummary(
            column=column,
            reason=reason,
            dtype=self._dtypes[place],
            missing_count=int(self.missing[place]),
            level_counts=() if level_counts is None else tuple(level_counts.tolist()),
        )
        if not column.holds_values:
            return replace(beside, distinct=sum(count > 0 for count in beside.level_counts))
        if column.type == "ignored" or not statistics.counts[place]:
            return beside
        known = self.sample[place]
        distinct = values or np.unique(known, return_counts=True)
        count = int(statistics.counts[place])
        return replace(
            beside,
            mean=float(self.mean[place]),
            std=float(self.std[place]),
            min=float(statistics.low.value[place]),
            max=float(statistics.high.value[place]),
            distinct=self.distinct[place],
            spike_counts=_spike_counts(column, values, known, rows=count),
            quantiles={} if column.levels else quantiles(known),
            repetition=repetition(*distinct, spikes=column.spikes, rows=count),
        )

    def tied(
        self, spikes: Mapping[int, Sequence[float]]
    ) -> dict[int, tuple[list[int], list[float]]]:
        """Return what `tied_columns` finds in the sample."""
        return tied_columns(self._sample.rows(), spikes)

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


def _are_far(values: NDArray[np.float64], counts: NDArray[np.int64]) -> bool:
    """Return whether rare values lie farther from the shared ones than these from each other, as slips do.

    Levels know no distance: 300 beside 20 to 40 would be as likely as any other rare value.
    """
    shared = values[counts >= max(_SHARED_ROWS, _SHARED * counts.sum())]
    if shared.size < 2:
        return False
    low, high = shared[0], shared[-1]
    return bool(values[0] < low - (high - low) or values[-1] > high + (high - low))


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


def _about_spikes(column: Column) -> str:
    """Return a sentence behind a reason that names the first spikes of a column; an empty text if it has none."""
    first = column.spikes[:_MOST_NAMED]
    if not first:
        return ""
    named = (
        decode_cells(np.array(first), column).to_pylist()
        if column.type == "datetime"
        else [f"{spike:g}" for spike in first]
    )
    more = ", ..." if len(column.spikes) > _MOST_NAMED else ""
    return f" Many cells have the same value: {', '.join(named)}{more}."


def _level_reason(levels: tuple[float, ...], column: Column) -> str:
    if len(levels) == 1:
        return "All cells have the same value."
    if set(levels) == {0, 1}:
        return "The cells are 0 or 1."
    kinds = {"integer": "whole numbers", "datetime": "dates"}
    kind = kinds.get(column.type, "numbers")
    return f"The cells are {kind} of {len(levels)} values."
