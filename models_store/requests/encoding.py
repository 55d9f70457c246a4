"""Encoding of the columns of a training: what is done with their cells, as the profile of a dataset suggests it.

It is decided once, when a request is accepted. Where a dataset has no such profile, as those that an earlier
release stored, or a job that one accepted, the same decision is made from a profile of the training rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows import MOST_REPEATED, FlowSpec, MixedColumn, MixedSpec
from models_store.requests.mixed import is_numeric
from models_store.requests.training import AcceptedTraining, Preprocessing
from tabular.columns import Column
from tabular.formats import Repetition
from tabular.ingest.numbers import repetition

NOISE_SHARE = 0.05
"""Share of the rows that one value of a table of numbers has, from which on it gets wide noise."""

NOISE_WIDTH = 0.5
"""Width of this noise, in standard deviations of the column."""

_DAY_SECONDS = 86_400.0
_ON_GRID = 0.02  # of a step
# Levels that count as having come once where none has.
_LEAST_ONCE = 0.1

Statistics = Mapping[str, Mapping[str, Any]]
"""Statistics of columns by name, as a dataset has them."""


def has_profile(columns: Sequence[Column], statistics: Statistics) -> bool:
    """Return whether statistics tell all that the encoding of columns depends on."""
    return all(
        statistics[column.name].get("level_counts" if column.levels else "repetition") is not None
        for column in columns
    )


def profile(columns: Sequence[Column], rows: NDArray[np.floating[Any]]) -> Statistics:
    """Return the statistics of training rows that the encoding of columns depends on."""
    return {
        column.name: _profile(column, cells[np.isfinite(cells)])
        for column, cells in zip(columns, rows.astype(np.float64).T, strict=False)
    }


def _profile(column: Column, known: NDArray[np.float64]) -> dict[str, Any]:
    values, counts = np.unique(known, return_counts=True)
    if column.levels:
        return {"level_counts": counts.tolist()}
    found = repetition(values, counts, spikes=column.spikes, rows=known.size)
    return {
        "mean": float(known.mean()) if known.size else None,
        "std": float(known.std()) if known.size else None,
        "spike_counts": [int((known == spike).sum()) for spike in column.spikes],
        "spikes": list(column.spikes),
        "repetition": found.to_dict(),
        "count": known.size,
        "decimals": 0 if bool((known == np.rint(known)).all()) else None,
    }


def encodes_numbers(flow: FlowSpec, preprocessing: Preprocessing) -> bool:
    """Return whether a flow of numbers alone has an encoding: it is not the preprocessing that a caller states."""
    plain = not isinstance(flow, MixedSpec) and not flow.is_binary
    return plain and preprocessing.dequantise == "auto"


def decide(accepted: AcceptedTraining, rows: NDArray[np.floating[Any]]) -> AcceptedTraining:
    """Return an accepted training with its encoding, which training rows tell where no profile did.

    Args:
        rows: Training rows, in random order.
    """
    if accepted.is_decided:
        return accepted
    types = accepted.column_types[: len(accepted.columns)]
    grids = accepted.preprocessing.dequantise == "auto"
    statistics = profile(types, rows)
    columns = encoded_columns(types, statistics, rows=len(rows), grids=grids)
    found: dict[str, Any] = {"is_decided": True}
    if isinstance(accepted.flow, MixedSpec):
        found["flow"] = replace(accepted.flow, columns=columns)
    elif encodes_numbers(accepted.flow, accepted.preprocessing):
        found["encoding"] = columns
    return accepted.model_copy(update=found)


def encoded_columns(
    columns: Sequence[Column], statistics: Statistics, *, rows: int, grids: bool
) -> list[MixedColumn]:
    """Return how the cells of columns become numbers of a flow, as far as their statistics tell.

    Args:
        columns: Types of the columns.
        statistics: Statistics of the dataset or of training rows.
        rows: Number of rows that these are of.
        grids: True for noise on columns whose values repeat.
    """
    numeric = is_numeric(columns)
    return [
        _encoded(column, statistics[column.name], rows=rows, grids=grids, numeric=numeric)
        for column in columns
    ]


def _encoded(
    column: Column, known: Mapping[str, Any], *, rows: int, grids: bool, numeric: bool
) -> MixedColumn:
    described = MixedColumn(
        levels=column.level_count,
        values=list(column.level_numbers) if column.holds_values else [],
        missing=column.missing,
        spikes=list(column.spikes),
        transform=column.transform,
        low=column.low,
        high=column.high,
    )
    if column.is_discrete:
        return replace(described, unseen=_unseen(known.get("level_counts") or ()))
    if not grids or known.get("repetition") is None:
        return described
    found = Repetition(**known["repetition"])
    left_out = set(known.get("spikes") or ()) - set(column.spikes)
    if not all(_is_multiple(spike, found.step) for spike in left_out):
        found = replace(found, step=0.0)
    if column.type == "datetime":
        step = _DAY_SECONDS if column.date_only else float(column.step_s)
    else:
        decimals = known.get("decimals") if column.decimals is None else column.decimals
        step = _step(decimals, found)
    values = found.values + len(left_out) if found.values else 0
    described = replace(described, step=step, repeated=values if values <= MOST_REPEATED else 0)
    if not numeric or column.transform != "none":
        return described
    count = known.get("count") or rows - (known.get("missing_count") or 0)
    return replace(described, noise=_noise(column, found, known, step=step, rows=count))


def _is_multiple(value: float, step: float) -> bool:
    return step == 0 or abs(value / step - round(value / step)) <= _ON_GRID


def _unseen(counts: Sequence[int]) -> float:
    """Return the probability of a level that no row has (Good 1953): the share of levels that came once."""
    total = sum(counts)
    if not total:
        return 0.0
    once = min(max(sum(count == 1 for count in counts), _LEAST_ONCE), total / 2)
    return float(once / (total + 1))


def _step(decimals: int | None, found: Repetition) -> float:
    """Return the step of a column: that of its grid, where the decimals do not tell it, as in steps of 4.5."""
    repeats = found.gap > 0
    step = 0.0
    if decimals is not None and (repeats or decimals == 0):
        step = 10.0**-decimals
    return max(step, found.step) if repeats or step else 0.0


def _noise(
    column: Column, found: Repetition, known: Mapping[str, Any], *, step: float, rows: int
) -> float:
    """Return the width of the noise on a column of a table of numbers; 0 where its step is enough.

    Values that repeat off any grid get noise as wide as their median gap. A value that many rows share
    would have a density without bound, and outweigh all other columns in the ranks of rows. As a spike its
    rank would depend on the unit of the column. So its noise is half a standard deviation wide: it then adds
    to the density no more than twice its share, per deviation.
    """
    noise = 0.0 if found.step else found.gap
    counts = dict(zip(known.get("spikes") or (), known.get("spike_counts") or (), strict=False))
    kept = {spike: counts.pop(spike) for spike in column.spikes if spike in counts}
    count = rows - sum(kept.values())
    if count <= 0 or known.get("std") is None:
        return noise
    share = max([found.shared, *counts.values()]) / count
    std = _std_without(kept, float(known["mean"]), float(known["std"]), rows=rows)
    if share < NOISE_SHARE or share * std <= max(step, noise):
        return noise
    return max(noise, NOISE_WIDTH * std)


def _std_without(spikes: Mapping[float, int], mean: float, std: float, *, rows: int) -> float:
    """Return the standard deviation of the values of a column that are no spikes."""
    if not spikes:
        return std
    left = rows - sum(spikes.values())
    shift = sum((spike - mean) * count for spike, count in spikes.items()) / left
    squares = sum((spike - mean) ** 2 * count for spike, count in spikes.items())
    return float(np.sqrt(max(rows * std**2 - squares, 0.0) / left - shift**2).clip(min=0.0))
