"""Numbers of columns: a sample, spikes, quantiles, and the scale on which they are modelled."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tabular.columns import TransformName
from tabular.formats import Repetition
from tabular.source import Columns

MAX_SAMPLE_BYTES = 8 << 20
"""Memory that the sample of a table takes at most."""

MAX_SAMPLE_ROWS = 32_768
"""The most rows of the sample of a table."""

MAX_SPIKES = 256
"""The most spikes of a column."""

MAX_ORDINAL = 256
"""The most values of a column of few values at irregular distances that are levels."""

ROWS_PER_VALUE = 10
"""The fewest rows for each value, on average, of a column of few values."""

_SPIKE_ROWS, _GRID_ROWS, _SPIKE_SHARE, _SPIKE_RATIO = 10, 20, 0.002, 5.0
_SURE_SHARE, _SURE_RATIO = 0.05, 3.0
_ORDINAL_SHARE = 0.9  # of the rows whose values are shared far more than the cells around explain
_MOST_CELLS = 1e5  # of a grid that rounding leaves recognisable
_ON_GRID, _SAME = 0.02, 1e-7  # of a step, and of a value in steps
_ROUNDING = 1e-9  # of the largest value, by which two that are the same may differ
_FEWEST_ON_GRID, _CELLS_PER_VALUE = (
    4,
    4,
)  # of a grid: fewest values, and cells for each value at most
_NEW_SHARE = 0.05  # of the rows of which the value may be one that no row had
_DECIMALS, _DECIMAL_SHARE = 4, 0.9  # of a column with a few values that are finer
# Part of the pairs of unrelated values that two columns have at most whose values come together; rows and
# columns that are looked at; values of a column of which pairs tell something.
_TIED, _PAIRED_ROWS, _MOST_PAIRED, _FEWEST_PAIRED = 0.4, 4096, 32, 10
_NEIGHBOURS = 5  # on each side
_SCALED_VALUES = 400  # fewer tell no scale from another
_KNOTS = 50
_GAINS: dict[TransformName, float] = {"log": 0.1, "asinh": 0.2, "quantiles": 0.5}  # nats a value
_SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


class Sample:
    """Random rows of a table, of bounded memory, the same for the same table."""

    def __init__(self, columns: int) -> None:
        self.size = max(256, min(MAX_SAMPLE_ROWS, MAX_SAMPLE_BYTES // (8 * max(columns, 1))))
        self._random = np.random.default_rng(0)
        self._share = 1.0
        self._rows: list[Columns] = []
        self._keys: list[NDArray[np.float64]] = []
        self._count = 0

    def update(self, values: Columns) -> None:
        """Add rows of the table."""
        keys = np.asarray(self._random.random(values.shape[1]))
        self._add(values, keys)
        while self._count > self.size:
            self._share /= 2
            rows, all_keys = self.rows(), np.concatenate(self._keys)
            self._rows, self._keys, self._count = [], [], 0
            self._add(rows, all_keys)

    def rows(self) -> Columns:
        """Return the sample, column by column."""
        return np.concatenate(self._rows, axis=1)

    def _add(self, values: Columns, keys: NDArray[np.float64]) -> None:
        kept = keys < self._share
        self._rows.append(values[:, kept])
        self._keys.append(keys[kept])
        self._count += int(kept.sum())


def common_step(seconds: NDArray[np.float64], step_s: int) -> int:
    """Return the greatest number of seconds that dates, and the step of those before, are multiples of."""
    known = seconds[~np.isnan(seconds)]
    if step_s == 1 or (known != np.rint(known)).any():
        return 1
    return int(np.gcd.reduce(known.astype(np.int64), initial=step_s))


def quantiles(sample: NDArray[np.float64]) -> dict[str, float]:
    """Return values by the share of a sample that is at most these."""
    found = np.quantile(sample, _SHARES, method="inverted_cdf")
    return {f"{share:g}": float(value) for share, value in zip(_SHARES, found, strict=True)}


def grid_step(values: NDArray[np.float64]) -> float:
    """Return the smallest distance of values if all are multiples of it, about; else 0.

    Args:
        values: Distinct values in ascending order.
    """
    size = float(np.abs(values).max(initial=0.0))
    values = values[np.diff(values, prepend=-np.inf) > _ROUNDING * size]
    if values.size < _FEWEST_ON_GRID:
        return 0.0
    step = float(np.diff(values).min())
    if size > _MOST_CELLS * step:
        return 0.0
    step = size / round(size / step)
    return step if bool(_are_multiples(values, step).all()) else 0.0


def _are_multiples(values: NDArray[np.float64], step: float) -> NDArray[np.bool_]:
    multiples = values / step
    off = np.abs(multiples - np.rint(multiples))
    return off <= _ON_GRID + _SAME * np.abs(multiples)


def _decimal_step(values: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """Return the decimal that nearly all rows are multiples of; 0 if that is none of the first ones."""
    for decimals in range(_DECIMALS + 1):
        step = 10.0**-decimals
        if counts[_are_multiples(values, step)].sum() >= _DECIMAL_SHARE * counts.sum():
            return step
    return 0.0


def is_ordinal(values: NDArray[np.float64], counts: NDArray[np.int64]) -> bool:
    """Return whether a column of no whole numbers has nearly only values that many rows share.

    They lie at irregular distances, or in steps that are no decimals, such as 4.5 or a third.

    Args:
        values: Distinct values of the column in ascending order.
        counts: Number of rows of each.
    """
    rows = int(counts.sum())
    if not 1 < values.size <= min(MAX_ORDINAL, rows // ROWS_PER_VALUE):
        return False
    step = grid_step(values)
    if step and abs(np.log10(step) - round(np.log10(step))) > _SAME:
        return True
    return int(counts[_shared(values, counts)].sum()) >= _ORDINAL_SHARE * rows


def repeats(counts: NDArray[np.int64]) -> bool:
    """Return whether a column repeats its values, so that further rows hardly have others.

    The share of the values that came once estimates that of the values that are still to come (Good 1953).

    Args:
        counts: Number of rows of each value.
    """
    once = int((counts == 1).sum())
    return once <= _NEW_SHARE * counts.sum() and once <= counts.size / 2


def repetition(
    values: NDArray[np.float64], counts: NDArray[np.int64], *, spikes: Sequence[float], rows: int
) -> Repetition:
    """Return how the values of a column repeat.

    Args:
        values: Distinct values in ascending order, of all rows or of a sample.
        counts: Number of rows of each.
        spikes: Values that are left out where it counts.
        rows: Number of all rows that have a value.
    """
    if not values.size:
        return Repetition()
    kept = ~np.isin(values, spikes)
    step = grid_step(values) or grid_step(values[kept])
    cells = (values[-1] - values[0]) / step if step else 0.0
    has_many = values.size > 1 and values.size * ROWS_PER_VALUE <= counts.sum()
    shared = int(counts[kept].max(initial=0))
    return Repetition(
        values=int(kept.sum()) if repeats(counts) else 0,
        shared=round(shared / int(counts.sum()) * rows),
        step=step if cells < _CELLS_PER_VALUE * values.size else 0.0,
        gap=float(np.median(np.diff(values))) if has_many else 0.0,
    )


def tied_columns(
    rows: Columns, spikes: Mapping[int, Sequence[float]]
) -> dict[int, tuple[list[int], list[float]]]:
    """Return the columns whose values come in the same pairs with those of others: these, and their values.

    So have the rates and the limits of the states of a country: no density of one near the other tells
    which of them belong together, probabilities of levels do.

    Args:
        rows: Sample of the table, column by column.
        spikes: Spikes of the continuous columns, by place.
    """
    coded: dict[int, NDArray[np.int64]] = {}
    listed: dict[int, list[float]] = {}
    for place, left_out in spikes.items():
        cells = rows[place, :_PAIRED_ROWS]
        values, counts = np.unique(rows[place][np.isfinite(rows[place])], return_counts=True)
        few = _FEWEST_PAIRED < values.size <= MAX_ORDINAL and repeats(counts)
        if few and not np.isin(values, left_out).all():
            coded[place] = np.where(np.isfinite(cells), np.searchsorted(values, cells), -1)
            listed[place] = values.tolist()
        if len(coded) == _MOST_PAIRED:
            break
    tied: dict[int, list[int]] = {}
    for one, other in combinations(coded, 2):
        if _come_together(coded[one], coded[other]):
            tied.setdefault(one, []).append(other)
            tied.setdefault(other, []).append(one)
    return {place: (others, listed[place]) for place, others in tied.items()}


def _come_together(one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Return whether values form far fewer pairs than unrelated ones with their frequencies would."""
    both = (one >= 0) & (other >= 0)
    one, other = one[both], other[both]
    if not one.size:
        return False
    shares = np.outer(np.bincount(one), np.bincount(other)) / one.size**2
    expected = float((1 - (1 - shares) ** one.size).sum())
    return np.unique(one * (MAX_ORDINAL + 1) + other).size < _TIED * expected


def find_spikes(sample: NDArray[np.float64]) -> list[float]:
    """Return values that many rows share, and far more than a smooth neighbourhood explains.

    On a grid these are the cells around a value, also those that no row has; elsewhere no two rows of a
    continuous column are equal.
    """
    values, counts = np.unique(sample, return_counts=True)
    if values.size < 2:
        return []
    largest = sorted(_shared(values, counts), key=lambda place: -counts[place])[:MAX_SPIKES]
    return [float(values[place]) for place in sorted(largest)]


def _shared(values: NDArray[np.float64], counts: NDArray[np.int64]) -> list[int]:
    """Return the places of the values that far more rows share than their surroundings explain."""
    step, rows = grid_step(values) or _decimal_step(values, counts), int(counts.sum())
    on = np.arange(values.size)
    if step:  # values between the cells are neighbours of none
        on = np.flatnonzero(_are_multiples(values, step))
        values, counts = values[on], counts[on]
    few = max(_GRID_ROWS if step else _SPIKE_ROWS, _SPIKE_SHARE * rows)
    found = []
    for place in np.flatnonzero(counts >= few).tolist():
        first, last = max(0, place - _NEIGHBOURS), min(values.size - 1, place + _NEIGHBOURS)
        beside = np.sort(np.delete(counts[first : last + 1], place - first))
        cells = round((values[last] - values[first]) / step) if step else 2 * beside.size + 1
        ratio = counts[place] / max(_median(beside, max(cells, beside.size)), 1.0)
        sure = counts[place] >= _SURE_SHARE * rows and ratio >= _SURE_RATIO
        if sure or ratio >= _SPIKE_RATIO:
            found.append(place)
    return [int(on[place]) for place in found]


def _median(counts: NDArray[np.int64], cells: int) -> float:
    """Return the median of ascending counts and of those of empty cells, of which there are so many in all."""
    empty = cells - counts.size
    if not cells:  # beside a single value, there are none
        return 0.0
    middle = [place - empty for place in ((cells - 1) // 2, cells // 2)]
    return sum(float(counts[place]) if place >= 0 else 0.0 for place in middle) / 2


# Values overflow on a scale that does not suit them: its gain is no finite number then, and it is not chosen.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def choose_transform(
    values: NDArray[np.float64], *, decimals: int | None
) -> tuple[TransformName, float]:
    """Return the scale on which a Gaussian fits values best, and its gain in nats a value.

    Each scale is fitted to one half of the values, and judged by the likelihood of the other half in
    the units of the data. Values on a grid are spread over it.

    Args:
        values: Values of a column, in random order.
        decimals: Decimals of the values, if they are on a grid.
    """
    if values.size < _SCALED_VALUES or values.min() == values.max():
        return "none", 0.0
    step = 10.0**-decimals if decimals is not None else 0.0
    spread = values + step * (np.random.default_rng(0).random(values.size) - 0.5)
    train, test = spread[::2], spread[1::2]
    plain = _gaussian(train, test, np.zeros(test.size))
    best: TransformName = "none"
    best_gain = 0.0
    if values.min() > 0:
        floor = values.min() / 2
        logs = [np.log(np.maximum(half, floor)) for half in (train, test)]
        gain = _gaussian(logs[0], logs[1], -logs[1]) - plain
        best, best_gain = _better("log", gain, best, best_gain)
    centre = np.median(train)
    scale = max(float(np.median(np.abs(train - centre))), 1e-300)
    scaled = [(half - centre) / scale for half in (train, test)]
    slopes = -np.log(scale) - 0.5 * np.log1p(scaled[1] ** 2)
    gain = _gaussian(np.arcsinh(scaled[0]), np.arcsinh(scaled[1]), slopes) - plain
    best, best_gain = _better("asinh", gain, best, best_gain)
    return _better("quantiles", _by_quantiles(train, test) - plain, best, best_gain)


def _better(
    name: TransformName, gain: float, best: TransformName, best_gain: float
) -> tuple[TransformName, float]:
    if gain < float("inf") and gain > best_gain + _GAINS[name]:
        return name, float(gain)
    return best, best_gain


def _gaussian(
    train: NDArray[np.float64], test: NDArray[np.float64], slopes: NDArray[np.float64]
) -> float:
    """Return the mean log-likelihood of values on a scale, with the log-slopes of the scale."""
    std = max(float(train.std()), 1e-300)
    squares = ((test - train.mean()) / std) ** 2
    return float(np.mean(-0.5 * squares + slopes) - np.log(std) - 0.5 * np.log(2 * np.pi))


def _by_quantiles(train: NDArray[np.float64], test: NDArray[np.float64]) -> float:
    """Return the mean log-likelihood under the map of quantiles to those of a Gaussian."""
    shares = (np.arange(_KNOTS) + 0.5) / _KNOTS
    knots, first = np.unique(np.quantile(train, shares), return_index=True)
    if knots.size < _KNOTS // 2:
        return -np.inf
    scores = np.array([NormalDist().inv_cdf(share) for share in shares])[first]
    slopes = np.diff(scores) / np.diff(knots)
    place = np.clip(np.searchsorted(knots, test) - 1, 0, slopes.size - 1)
    mapped = scores[place] + (test - knots[place]) * slopes[place]
    squares = np.minimum(mapped**2, 1e6)
    return float(np.mean(-0.5 * squares + np.log(slopes[place])) - 0.5 * np.log(2 * np.pi))


def lower_bound(sample: NDArray[np.float64], transform: TransformName) -> float | None:
    """Return zero where no value is below it and some are near."""
    low = sample.min()
    natural = transform == "log" or (low >= 0 and low <= sample.std())
    return 0.0 if natural else None
