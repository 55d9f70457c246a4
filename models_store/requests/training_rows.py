"""Spikes, scales and bounds of columns as training rows alone suggest them, after the split.

The types of a dataset are found from all of its rows, held-out ones included. What an accepted request
takes over from them are candidates: of its spikes those stay that training rows show, too, and the scale
is chosen anew. So nothing about the values of held-out rows decides how the density is modelled, but that
none lies beyond a bound: the bounds of an accepted request hold for all rows of the dataset.
"""

from collections.abc import Container, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows import MOST_REPEATED, MixedColumn, MixedSpec, with_tree
from models_store.requests.mixed import has_giants, is_numeric
from models_store.requests.training import AcceptedTable, AcceptedTraining, ColumnOptions
from tabular.columns import Column, TransformName
from tabular.ingest.numbers import (
    MAX_ORDINAL,
    MAX_SAMPLE_BYTES,
    MAX_SAMPLE_ROWS,
    choose_transform,
    find_spikes,
    grid_step,
    lower_bound,
    quantiles,
    repeats,
)

NOISE_SHARE = 0.05
"""Share of the rows that one value of a table of numbers has, from which on it gets wide noise."""

NOISE_WIDTH = 0.5
"""Width of this noise, in standard deviations of the column."""

# Cells of a grid for each value that training rows show.
_MOST_CELLS = 4

# Part of the pairs of unrelated values that two columns have at most whose values come together; rows and
# columns that are looked at; values of a column of which pairs tell something.
_TIED, _PAIRED_ROWS, _MOST_PAIRED, _FEWEST_PAIRED = 0.4, 4096, 32, 10

# Levels that count as having come once where none has.
_LEAST_ONCE = 0.1

Rows = NDArray[np.floating[Any]]
Values = NDArray[np.float64]


def most_rows(columns: int) -> int:
    """Return the most training rows that are looked at."""
    return max(256, min(MAX_SAMPLE_ROWS, MAX_SAMPLE_BYTES // (8 * max(columns, 1))))


def choose_training(accepted: AcceptedTraining, rows: Rows) -> AcceptedTraining:
    """Return an accepted training with what its training rows suggest.

    Args:
        rows: Training rows, in random order.
    """
    if not isinstance(accepted.flow, MixedSpec):
        return accepted
    types = choose_types(accepted, rows)
    columns = [_typed(*pair) for pair in zip(accepted.flow.columns, types, strict=False)]
    known = rows.astype(np.float64).T
    grids = accepted.preprocessing.dequantise == "auto"
    columns = [
        replace(
            column,
            step=_step(column, values),
            repeated=_repeated(column, values) if grids else 0,
            unseen=_unseen(column, values),
        )
        for column, values in zip(columns, known, strict=False)
    ]
    if is_numeric(types):
        noisy = zip(columns, known, strict=False)
        columns = [replace(column, noise=_noise(column, values)) for column, values in noisy]
    return accepted.model_copy(
        update={
            "types": [column.to_dict() for column in types],
            "flow": with_tree(replace(accepted.flow, columns=columns), rows),
        }
    )


def _typed(column: MixedColumn, kind: Column) -> MixedColumn:
    """Return a column of a flow with what its type has become."""
    if kind.is_discrete and not column.levels:
        values = list(kind.level_numbers)
        return MixedColumn(levels=len(values), values=values, missing=column.missing)
    spikes, transform = list(kind.spikes), kind.transform
    return replace(column, spikes=spikes, transform=transform, low=kind.low, high=kind.high)


def _step(column: MixedColumn, values: Values) -> float:
    """Return the step of a column: that of its grid, where the decimals do not tell it, as in steps of 4.5."""
    if not column.step:
        return 0.0
    known = np.unique(values[np.isfinite(values) & ~np.isin(values, column.spikes)])
    step = grid_step(known)
    cells = (known[-1] - known[0]) / step if step else np.inf
    return step if step > column.step and cells < _MOST_CELLS * known.size else column.step


def _repeated(column: MixedColumn, values: Values) -> int:
    """Return the number of the continuous values of a column that repeats its values; else 0."""
    if column.levels:
        return 0
    known, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    return int((~np.isin(known, column.spikes)).sum()) if repeated(counts) else 0


def _unseen(column: MixedColumn, values: Values) -> float:
    """Return the probability of a level that no row has (Good 1953): the share of levels that came once."""
    if not column.levels:
        return 0.0
    counts = np.unique(values[np.isfinite(values)], return_counts=True)[1]
    once = min(max(int((counts == 1).sum()), _LEAST_ONCE), counts.sum() / 2)
    return float(once / (counts.sum() + 1))


def repeated(counts: NDArray[np.int64]) -> int:
    """Return the number of values of a column if samples have no others; 0 if they have any.

    Args:
        counts: Number of rows of each value.
    """
    return counts.size if counts.size <= MOST_REPEATED and repeats(counts) else 0


def _noise(column: MixedColumn, values: Values) -> float:
    """Return the width of the noise on a column of a table of numbers; 0 where its step is enough.

    A value that many rows share would have a density without bound, and outweigh all other columns in
    the ranks of rows. As a spike its rank would depend on the unit of the column. So it gets the noise
    that it has in a table of numbers alone.
    """
    if column.levels or column.transform != "none":
        return 0.0
    known = values[np.isfinite(values) & ~np.isin(values, column.spikes)]
    if not known.size:
        return 0.0
    share, std = np.unique(known, return_counts=True)[1].max() / known.size, float(known.std())
    return NOISE_WIDTH * std if share >= NOISE_SHARE and share * std > column.step else 0.0


def choose_types(accepted: AcceptedTable, rows: Rows) -> list[Column]:
    """Return the types of the columns of an accepted request, as its training rows suggest them.

    Args:
        rows: Training rows, in random order.
    """
    types = accepted.column_types
    numeric = is_numeric(types)
    options = accepted.preprocessing.columns
    modelled = len(accepted.columns)
    chosen = [
        _choose(column, values[np.isfinite(values)], options.get(column.name), numeric=numeric)
        for column, values in zip(types[:modelled], rows.astype(np.float64).T, strict=False)
    ]
    if not numeric:
        for place in _tied(rows[:_PAIRED_ROWS].astype(np.float64), chosen, stated=options):
            known = np.unique(rows[np.isfinite(rows[:, place]), place].astype(np.float64))
            levels = tuple(int(value) if value.is_integer() else value for value in known.tolist())
            chosen[place] = replace(
                chosen[place], levels=levels, spikes=(), transform="none", low=None, high=None
            )
    return [*chosen, *types[modelled:]]


def _tied(rows: Values, columns: Sequence[Column], *, stated: Container[str]) -> list[int]:
    """Return the continuous columns whose values come in the same pairs with those of another one.

    So have the rates and the limits of the states of a country: no density of one near the other tells
    which of them belong together, probabilities of levels do.

    Args:
        rows: Training rows.
        columns: Columns that are modelled, the first of the rows.
        stated: Names of the columns that the caller has options for, which stay.
    """
    coded: dict[int, NDArray[np.int64]] = {}
    for place, (column, values) in enumerate(zip(columns, rows.T, strict=False)):
        if column.is_discrete or column.type == "datetime" or column.name in stated:
            continue
        listed, counts = np.unique(values[np.isfinite(values)], return_counts=True)
        few = _FEWEST_PAIRED < listed.size <= MAX_ORDINAL and repeats(counts)
        if few and not np.isin(listed, column.spikes).all() and len(coded) < _MOST_PAIRED:
            coded[place] = np.where(np.isfinite(values), np.searchsorted(listed, values), -1)
    pairs = combinations(coded, 2)
    tied = [pair for pair in pairs if _come_together(*(coded[place] for place in pair))]
    return sorted({place for pair in tied for place in pair})


def _come_together(one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Return whether values form far fewer pairs than unrelated ones with their frequencies would."""
    both = (one >= 0) & (other >= 0)
    one, other = one[both], other[both]
    if not one.size:
        return False
    shares = np.outer(np.bincount(one), np.bincount(other)) / one.size**2
    expected = float((1 - (1 - shares) ** one.size).sum())
    return np.unique(one * (MAX_ORDINAL + 1) + other).size < _TIED * expected


def _choose(
    column: Column, values: Values, options: ColumnOptions | None, *, numeric: bool
) -> Column:
    """Return a column with the spikes, the scale and the bound that its training values suggest."""
    if column.is_discrete or not values.size:
        return column
    asked = set() if options is None else options.model_dump(exclude_none=True).keys()
    if "spikes" not in asked:
        shown = set(find_spikes(values))
        column = replace(column, spikes=tuple(s for s in column.spikes if s in shown))
    if column.type == "datetime" or asked & {"transform", "low", "high"}:
        return column
    transform = _scale(column, values, numeric=numeric)
    bounded = column.low is not None and lower_bound(values, transform) is not None
    return replace(column, transform=transform, low=column.low if bounded else None)


def _scale(column: Column, values: Values, *, numeric: bool) -> TransformName:
    if numeric and not (column.spikes and column.transform != "none"):
        giants = has_giants(float(values.std()), quantiles(values))
        return column.transform if giants else "none"
    rest = values[~np.isin(values, column.spikes)]
    transform, _ = choose_transform(rest, decimals=column.decimals)
    # A logarithm needs values above zero in all rows, as the bound says.
    is_free = transform == "none" or (transform == "log" and column.low is None)
    return "quantiles" if is_free else transform
