"""Sentinels: numbers such as -999 that stand for no value, far outside all others of their column."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tabular.columns import Column
from tabular.formats import TableWarning
from tabular.ingest.warnings import warning

_FEWEST_CELLS = 3
_FEWEST_OTHERS = 10  # distinct values


def find_sentinels(sample: NDArray[np.float64], column: Column) -> list[float]:
    """Return values of several cells that are further from all others than these from one another.

    Args:
        sample: Values of a column.
        column: Type of the column, with its spikes.
    """
    values, counts = np.unique(sample, return_counts=True)
    several = values[counts >= _FEWEST_CELLS]
    if not several.size:
        return []
    asked = np.isin(values, column.spikes)
    asked[[0, -1]] |= counts[[0, -1]] >= _FEWEST_CELLS
    rest = values[~asked]
    if rest.size < _FEWEST_OTHERS:
        return []
    low, high = rest[0], rest[-1]
    found = values[asked]
    outside = np.maximum(low - found, found - high)
    return [float(value) for value in found[outside > high - low]]


def about_sentinels(sample: NDArray[np.float64], column: Column) -> Iterator[TableWarning]:
    """Yield a warning that names the sentinels of a column of numbers, if it has some."""
    if column.type not in ("number", "integer") or column.is_discrete:
        return
    found = find_sentinels(sample, column)
    if not found:
        return
    rest = sample[~np.isin(sample, found)]
    named = ", ".join(f"{value:.15g}" for value in found)
    share = 100 * (1 - rest.size / sample.size)
    wanted = "&".join(f"na_values={value:.15g}" for value in found)
    yield warning(
        "sentinel",
        column.name,
        f"{named} in {share:.2g} % of the cells is far from all others, which lie from"
        f" {rest.min():.6g} to {rest.max():.6g}. If it stands for no value, upload the table with"
        f" {wanted}: the cells are then missing. Otherwise it is modelled as a value.",
    )
