"""Counts of scored rows, and whether they are still like the rows that a model was made of.

Ranks are counted in ten equal parts, and the values of each column in as many parts of those of reference
rows, so that no row is kept. Two such counts are compared by the largest distance between their cumulative
shares, the statistic of Kolmogorov and Smirnov, whose p-value takes the numbers of rows of both into account.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models_store.counts import Counts

Array = NDArray[np.floating]
DECILES = 10
UNUSUAL = 0.01
"""Rank at which, and below which, a row is unusual."""
MOST_COLUMNS = 200
"""Columns whose values are counted: the first ones."""
SAMPLED_ROWS = 1024
"""Most rows of one request whose values are counted; ranks are of all."""
ALARM = 1e-3
"""p-value below which rows have drifted; they are looked at many times a day."""

_REFERENCE_VALUES = 2**20
_REFERENCE_ROWS = 10_000
_Doubles = NDArray[np.float64]
_ROUNDING = 1e-9  # of a rank that is a whole number of tenths
_TERMS = np.arange(1, 101)
_NEGLIGIBLE = 0.3  # below, the series converges slowly, and its value is 1


@dataclass(frozen=True)
class ColumnBins:
    """Parts of the values of columns, each with about as many of the reference rows; the last one is of gaps.

    Args:
        edges: Ascending lower ends of the parts of each column but the first.
        reference: Number of reference rows in each part of each column.
    """

    names: Sequence[str]
    edges: Sequence[Array]
    reference: Mapping[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Sequence[str], rows: Array) -> "ColumnBins":
        """Return the parts of reference rows, `(rows, columns)`."""
        names = names[:MOST_COLUMNS]
        edges = [_edges(column) for column in rows.T[: len(names)]]
        bins = cls(names, edges)
        return cls(names, edges, bins.count(rows))

    def count(self, rows: Array) -> dict[str, list[int]]:
        """Return the number of rows, `(rows, columns)`, in each part of each column."""
        counts = {}
        for name, edges, column in zip(self.names, self.edges, rows.T, strict=False):
            ordered = np.sort(column)  # NaN comes last
            known = len(column) - int(np.count_nonzero(np.isnan(column)))
            ends = np.searchsorted(ordered[:known], edges)
            counts[name] = [*np.diff([0, *ends, known]).tolist(), len(column) - known]
        return counts


def reference_count(columns: int) -> int:
    """Return the number of reference rows to read for a model of so many columns."""
    return min(_REFERENCE_ROWS, _REFERENCE_VALUES // max(1, columns))


def count_ranks(ranks: Array) -> Counts:
    """Return the counts of some ranks; those that are NaN are left out."""
    known = ranks[~np.isnan(ranks)]
    tenths = known * DECILES + _ROUNDING
    parts = np.minimum(tenths.astype(np.intp), DECILES - 1)
    return {
        "rows": len(known),
        "ranks": np.bincount(parts, minlength=DECILES).tolist(),
        "unusual": int(np.count_nonzero(known <= UNUSUAL)),
    }


def count_sorted(log_prob: _Doubles, rank: Callable[[_Doubles], _Doubles]) -> Counts:
    """Return the counts of the ranks of ascending log densities, as `count_ranks`; NaN, at the end, is left out.

    The ends of the tenths are found by bisection, so that few rows have to be ranked.

    Args:
        rank: Function that ranks log densities; higher ones have no lower ranks.
    """
    count = len(log_prob) - int(np.count_nonzero(np.isnan(log_prob)))
    low, high = np.zeros(DECILES, np.intp), np.full(DECILES, count)
    while (searched := low < high).any():
        middle = (low + high) // 2
        ranks = rank(log_prob[np.minimum(middle, count - 1)])
        tenths = ranks[:-1] * DECILES + _ROUNDING
        reached = np.append(tenths >= np.arange(1, DECILES), ranks[-1] > UNUSUAL)
        high = np.where(searched & reached, middle, high)
        low = np.where(searched & ~reached, middle + 1, low)
    tenths = np.diff([0, *low[:-1], count])
    return {"rows": count, "ranks": tenths.tolist(), "unusual": int(low[-1])}


def count_reasons(ranks: Array, differences: Array, names: Sequence[str]) -> dict[str, int]:
    """Return how many unusual rows differ most from what is usual in each column.

    Args:
        differences: Differences of their explanations from the usual ones, `(rows, columns)`.
    """
    known = np.where(np.isnan(differences), np.inf, differences)[ranks <= UNUSUAL]
    least = known.argmin(axis=1)[known.min(axis=1, initial=0) < 0]
    columns, counts = np.unique(least, return_counts=True)
    return {names[column]: int(count) for column, count in zip(columns, counts, strict=True)}


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Distance of counts from those of the reference.

    Attributes:
        statistic: Largest difference of the cumulative shares, from 0 to 1.
        p_value: Probability of one as large among rows of one kind.
    """

    statistic: float = 0.0
    p_value: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Drift(Distance):
    """Distance of scored rows from those that a version was made of: its statistic is that of the ranks.

    Attributes:
        p_value: Smallest of the ranks and of all columns, times their number.
        columns: Distance of each column.
        drifted: Names of the columns that have drifted by themselves.
    """

    columns: dict[str, Distance] = field(default_factory=dict)

    @property
    def has_drifted(self) -> bool:
        """True if rows of one kind are hardly ever so far apart."""
        return self.p_value < ALARM

    @property
    def drifted(self) -> list[str]:
        """Columns that have drifted, the furthest first."""
        most = ALARM / (1 + len(self.columns))
        found = [name for name, at in self.columns.items() if at.p_value < most]
        return sorted(found, key=lambda name: -self.columns[name].statistic)


def drift_of(
    counts: Counts, ranks: Sequence[float], columns: Mapping[str, list[int]] | None
) -> Drift:
    """Return the drift of counted rows.

    Args:
        ranks: Number of held-out rows in each tenth of the ranks.
        columns: Number of reference rows in each part of each column; None if there are none.
    """
    own = distance(ranks, counts["ranks"])
    counted = counts.get("columns", {})
    of_columns = {
        name: distance(reference, counted[name])
        for name, reference in (columns or {}).items()
        if len(counted.get(name, ())) == len(reference)
    }
    least = min(own.p_value, *(at.p_value for at in of_columns.values()), 1.0)
    p_value = min(1.0, least * (1 + len(of_columns)))
    return Drift(statistic=own.statistic, p_value=p_value, columns=of_columns)


def distance(reference: Sequence[float], counts: Sequence[float]) -> Distance:
    """Return the two-sample distance of Kolmogorov and Smirnov between two counts of the same parts.

    Its p-value is that of the limit of many rows, which for counts of few parts is an upper bound.
    """
    n, m = sum(reference), sum(counts)
    if not n or not m:
        return Distance()
    apart = np.abs(np.cumsum(reference) / n - np.cumsum(counts) / m).max()
    scaled = apart * np.sqrt(n * m / (n + m))
    p_value = 1.0
    if scaled > _NEGLIGIBLE:
        signs = np.where(_TERMS % 2, 2.0, -2.0)
        p_value = float(np.clip((signs * np.exp(-2 * (_TERMS * scaled) ** 2)).sum(), 0, 1))
    return Distance(statistic=float(apart), p_value=p_value)


def _edges(column: Array) -> Array:
    known = column[np.isfinite(column)]
    if not len(known):
        return np.empty(0)
    found = np.unique(np.quantile(known, np.arange(1, DECILES) / DECILES, method="higher"))
    edges: Array = found[found > known.min()]  # below it there is nothing
    return edges
