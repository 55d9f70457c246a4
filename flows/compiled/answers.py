"""Answers to questions about rows: gaps filled, one column expected given the others, draws given conditions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flows.compiled.compiled_flow import Doubles
from flows.compiled.conditions import GIVEN_ROWS, Conditions, Fill, Within
from flows.compiled.questions import PREDICTION, Effort, Integers, Questions, Weighted, hashed

# One of as many draws is taken for a sample, by their weights.
_SAMPLE_EFFORT = Effort(draws=32, most=128, effective=4.0)


@dataclass(frozen=True, eq=False)
class Imputed:
    """Rows whose gaps are filled.

    Attributes:
        rows: The rows; categories are the likeliest ones, or drawn.
        low: Lower ends of the intervals of the numbers that were filled; NaN elsewhere.
        probability: Probability of each category that was filled; NaN elsewhere.
        effective_samples: Effective number of draws of each row; NaN where all was exact.
        uncertain: 1 for each row whose draws did not reach the stated quality.
    """

    rows: Doubles
    low: Doubles
    high: Doubles
    probability: Doubles
    effective_samples: Doubles
    uncertain: Doubles


def impute(
    asks: Questions,
    x: Doubles,
    *,
    fill: Fill = "mean",
    level: float = 0.9,
    seed: int = 0,
    numbers: Integers | None = None,
) -> Imputed:
    """Fill the gaps of rows, each given all cells that its row has.

    Args:
        x: Rows in the data's units; what is not finite is a gap.
        fill: `mean` or `median` of numbers, of which those with levels get the nearest level, with the
            likeliest categories; `draw` draws all gaps of a row together.
        level: Probability of the intervals, each between equal tails, which validation rows calibrated.
        numbers: Numbers of the rows, of which each has draws of its own if `fill` is `draw`.
    """
    rows = np.array(x, np.float64)
    gaps = ~np.isfinite(rows)
    low, high, probability = (np.full(rows.shape, np.nan) for _ in range(3))
    effective, uncertain = np.full(len(rows), np.nan), np.zeros(len(rows))
    numbers = np.arange(len(rows)) if numbers is None else numbers
    shares = [(1 - level) / 2, (1 + level) / 2, 0.5]
    lacking = np.flatnonzero(gaps.any(axis=1))
    answers = asks.weighted(
        rows[lacking],
        ~gaps[lacking],
        conditions=Conditions(filled=np.flatnonzero(gaps.any(axis=0)).tolist()),
        effort=replace(PREDICTION, seed=seed, predicts=fill != "draw"),
        numbers=numbers[lacking] if fill == "draw" else None,
    )
    for some, found in answers:
        places = lacking[some]
        effective[places] = found.estimates.effective_samples
        uncertain[places] = found.estimates.uncertain
        drawn = _drawn(found, seed, numbers[places]) if fill == "draw" else None
        for at, column in enumerate(found.columns):
            mine = gaps[places, column]
            own, table = places[mine], found.levels[at]
            ends_at = asks.companion.calibrated(column, shares)
            if table is not None:
                table = table[mine]
                best = table.argmax(axis=1)
                probability[own, column] = table[np.arange(len(best)), best]
                values = asks.values_of(column)
                if asks.has_numbers(column):
                    ends = _level_quantiles(table[:, : len(values)], values, ends_at)
                    low[own, column], high[own, column] = ends[:, 0], ends[:, 1]
                    middle = ends[:, 2] if fill == "median" else table[:, : len(values)] @ values
                    values = values[np.abs(middle[:, None] - values).argmin(axis=1)]
                else:
                    values = values[best]
            else:
                cells, weights = found.cells[mine, :, at], found.weights[mine]
                ends = weighted_quantiles(cells, weights, ends_at)
                low[own, column], high[own, column] = ends[:, 0], ends[:, 1]
                values = ends[:, 2] if fill == "median" else _mean(cells, weights)
            rows[own, column] = values if drawn is None else drawn[mine, at]
    if fill == "draw":
        rows = np.where(gaps, asks.flow.to_grid(rows), rows)
    return Imputed(rows, low, high, probability, effective, uncertain)


@dataclass(frozen=True, eq=False)
class Expected:
    """What one column of rows is, given their other cells.

    Attributes:
        mean: Means; NaN for a column of texts.
        quantiles: Calibrated quantiles of a column of numbers, of shape (rows, shares); NaN for levels.
        probability: Probability that the condition holds; NaN without one.
        levels: Probability of each level; no columns for a column of numbers.
        effective_samples: As of `Imputed`.
        uncertain: As of `Imputed`.
    """

    mean: Doubles
    quantiles: Doubles
    probability: Doubles
    levels: Doubles
    effective_samples: Doubles
    uncertain: Doubles


def expect(
    asks: Questions,
    x: Doubles,
    column: int,
    *,
    shares: Sequence[float] = (),
    within: Within | None = None,
    seed: int = 0,
) -> Expected:
    """Return the distribution of one column given the other cells of each row; gaps among these are unknown.

    Args:
        x: Rows in the data's units; what they have in the column does not matter.
        within: Condition whose probability is asked for.
    """
    gaps = ~np.isfinite(np.array(x, np.float64))
    gaps[:, column] = True
    shares = asks.companion.calibrated(column, shares)
    values = asks.values_of(column)
    levels = np.full((len(x), len(values)), np.nan)
    mean, probability = np.full(len(x), np.nan), np.full(len(x), np.nan)
    quantiles = np.full((len(x), len(shares)), np.nan)
    effective, uncertain = np.full(len(x), np.nan), np.zeros(len(x))
    answers = asks.weighted(
        x, ~gaps, conditions=Conditions(filled=[column]), effort=PREDICTION.with_seed(seed)
    )
    for places, found in answers:
        effective[places] = found.estimates.effective_samples
        uncertain[places] = found.estimates.uncertain
        at = found.columns.index(column)
        table = found.levels[at]
        if table is not None:
            levels[places] = table[:, : len(values)]
            mean[places] = levels[places] @ values
            if within is not None:
                probability[places] = levels[places] @ within.holds(values)
            continue
        cells = found.cells[:, :, at]
        mean[places] = _mean(cells, found.weights)
        quantiles[places] = weighted_quantiles(cells, found.weights, shares)
        if within is not None:
            holds = within.holds(cells)
            probability[places] = (holds * found.weights).sum(axis=1)
    return Expected(mean, quantiles, probability, levels, effective, uncertain)


def sample_given(
    asks: Questions,
    n: int,
    row: Doubles,
    within: dict[int, Within],
    *,
    seed: int,
) -> Iterator[Doubles]:
    """Yield draws of rows given some of their cells, and conditions of others.

    Each is one of several draws of the companion, taken by its weight (sampling and importance resampling).

    Args:
        row: Known cells in the data's units, NaN where a cell is unknown.
        within: Conditions of unknown cells, by column.
        seed: Seed of the draws; the same seed gives the same rows.
    """
    known = ~np.isnan(row)
    for start in range(0, n, GIVEN_ROWS):
        numbers = np.arange(start, min(n, start + GIVEN_ROWS))
        rows = np.repeat(row[None], len(numbers), axis=0)
        if not known.all():
            answers = asks.weighted(
                rows,
                known,
                conditions=Conditions(within),
                effort=_SAMPLE_EFFORT.with_seed(seed),
                numbers=numbers,
            )
            for places, found in answers:
                rows[places[:, None], found.columns] = _drawn(found, seed, numbers[places])
            gridded = asks.flow.to_grid(rows)
            rows[:, ~known] = gridded[:, ~known]
        yield rows


def weighted_quantiles(cells: Doubles, weights: Doubles, shares: Sequence[float]) -> Doubles:
    """Return quantiles of weighted numbers, a row each, interpolated between the numbers.

    The k-th of n draws is the quantile of (k - 1/3) / (n + 1/3), with n their effective number (Hyndman and Fan
    1996, definition 8): the ends of draws lie within those of what they are drawn from.

    Args:
        cells: Numbers of shape (rows, draws); those without a weight may be NaN.
        weights: Their weights, which sum to 1 in each row.
        shares: Shares of the quantiles.
    """
    cells, places, last = _in_order(cells, weights)
    found = np.empty((len(cells), len(shares)))
    for at, share in enumerate(shares):
        above = np.minimum((places < share).sum(axis=1), last)
        found[:, at] = _between(above, share, places, cells)
    return found


def weighted_shares(cells: Doubles, weights: Doubles, x: Doubles) -> tuple[Doubles, Doubles]:
    """Return the shares of which a number is the quantile, a row each: the least and the largest.

    They differ where several draws are that number; beyond all draws both are 0 or 1.

    Args:
        cells: Numbers as those of `weighted_quantiles`, whose inverse this is.
        weights: Their weights, which sum to 1 in each row.
        x: Number of each row.
    """
    cells, places, last = _in_order(cells, weights)
    below, upto = (cells < x[:, None]).sum(axis=1), (cells <= x[:, None]).sum(axis=1)
    inside = _between(np.minimum(below, last), x, cells, places)
    inside = np.where(below == 0, 0.0, np.where(below > last, 1.0, inside))
    rows, is_one = np.arange(len(cells)), upto > below
    least = np.where(is_one, places[rows, np.minimum(below, last)], inside)
    return least, np.where(is_one, places[rows, np.minimum(upto - 1, last)], inside)


def _in_order(cells: Doubles, weights: Doubles) -> tuple[Doubles, Doubles, Integers]:
    """Return draws in order, the share of which each is the quantile, and the last that has a weight."""
    effective = 1 / np.square(weights).sum(axis=1, keepdims=True).clip(min=1e-300)
    order = np.argsort(cells, axis=1)
    cells, weights = np.take_along_axis(cells, order, 1), np.take_along_axis(weights, order, 1)
    middles = weights.cumsum(axis=1) - weights / 2
    places = (middles + 1 / (6 * effective)) / (1 + 1 / (3 * effective))
    return cells, places, (weights > 0).cumsum(axis=1).argmax(axis=1)


def _between(above: Integers, x: Doubles | float, of: Doubles, values: Doubles) -> Doubles:
    """Return the values of x, interpolated between those of the numbers before and at some places."""
    at = np.stack([np.maximum(above - 1, 0), above], axis=1)
    (start, stop), (low, high) = (np.take_along_axis(a, at, 1).T for a in (of, values))
    wide = stop > start
    part = np.where(wide, (x - start) / np.where(wide, stop - start, 1.0), x > start).clip(0, 1)
    found: Doubles = low + part * (high - low)
    return found


def _level_quantiles(table: Doubles, values: Doubles, shares: Sequence[float]) -> Doubles:
    """Return quantiles of numbers with probabilities of their own, which are among the numbers."""
    order = values.argsort()
    ends = table[:, order].cumsum(axis=1)
    chosen = [(ends < share * ends[:, -1:] - 1e-12).sum(axis=1) for share in shares]
    found: Doubles = values[order][np.minimum(np.stack(chosen, axis=1), len(values) - 1)]
    return found


def _mean(cells: Doubles, weights: Doubles) -> Doubles:
    total: Doubles = np.nansum(cells * weights, axis=1)
    return total


def _drawn(found: Weighted, seed: int, numbers: Integers) -> Doubles:
    """Return the cells of one draw of each row, taken by its weight."""
    ends = found.weights.cumsum(axis=1)
    uniform = hashed(seed + 1, numbers.astype(np.uint64)[:, None], np.zeros(1, np.uint64))
    chosen = np.minimum((ends < uniform * ends[:, -1:]).sum(axis=1), ends.shape[1] - 1)
    cells: Doubles = found.cells[np.arange(len(chosen)), chosen]
    return cells
