"""Figures of columns: the data beside samples of the model, one by one and in pairs."""

import itertools
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from app.plots.style import DATA, SAMPLES, Arrays, panels, text
from tabular.dates import format_dates

_BINS, _PAIR_BINS = 60, 32
_MOST_BARS = 10
_MOST_LEVEL_BINS = 64  # of a column in pairs; neighbours share a bin where there are more levels
_MOST_LABELS = 8
_LABEL, _LABELS = 12, 27  # characters of one label, and of all in a row with the gaps between
_MOST_LINES = 4
_DAY = 86_400
_FIRST_DAY, _LAST_DAY = -719_000, 2_932_000  # that are dates: those of the years 1 to 9999
# A column that is positive and reaches so many medians is shown by its logarithm; one that reaches
# so many times the range of its middle half by its inverse hyperbolic sine.
_LOG_REACH, _WIDE_REACH = 30.0, 60.0
_COLOURS = {"data": DATA, "samples": SAMPLES}


@dataclass(frozen=True)
class Scale:
    """Scale of a column.

    Attributes:
        labels: Texts of its levels; empty for a continuous one.
        numbers: Numbers that stand for the levels.
        spikes: Single values that hold a large share of the rows.
        is_date: True if values are seconds since 1970.
    """

    labels: list[str]
    numbers: list[float]
    spikes: list[float]
    is_date: bool


@dataclass(frozen=True)
class Bins:
    """Bins of a continuous column, on an axis that shows its tails.

    Attributes:
        edges: Edges of the bins, ascending.
        width: Half-width of the linear part of an `asinh` axis.
    """

    edges: NDArray[np.floating]
    axis: Literal["linear", "log", "asinh"] = "linear"
    width: float = 1.0

    @staticmethod
    def equal(low: float, high: float, count: int, *, whole: bool) -> "Bins":
        """Return equal bins; those of whole numbers hold as many whole numbers each."""
        if whole and 2 <= high - low < 1e6:
            step = -(-(high - low + 1) // count)
            return Bins(np.arange(low - 0.5, high + step, step))
        return Bins(np.linspace(low, high, count + 1))

    def show(self, axes: Axes, which: Literal["x", "y"]) -> None:
        """Scale an axis of a panel, and limit it to the bins."""
        options = {"linear_width": self.width} if self.axis == "asinh" else {}
        axes.set(**{f"{which}lim": (self.edges[0], self.edges[-1])})
        if self.axis == "linear":
            longest = max(len(f"{edge:.4g}") for edge in (self.edges[0], self.edges[-1]))
            # Beside each other, numbers of many digits would run into one another.
            axes.locator_params(axis=which, nbins=3 if which == "x" and longest > 5 else 5)
        else:
            (axes.set_xscale if which == "x" else axes.set_yscale)(self.axis, **options)


def marginals(numbers: Arrays) -> Figure:
    """Draw each column: shares of the rows of the data and of samples."""
    names, scales = numbers["names"], _scales(numbers)
    figure, drawn = panels(len(names))
    for index, (axes, name, scale) in enumerate(zip(drawn, names, scales, strict=False)):
        cells = {key: rows[:, index] for key, rows in _sources(numbers).items()}
        _marginal(axes, cells, scale)
        axes.set_xlabel("\n".join([text(name), *_spikes_and_gaps(cells, scale)]))
    handles, labels = drawn[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def pairs(numbers: Arrays) -> Figure:
    """Draw each pair of columns: the data, and samples beside them, on the same axes."""
    names, scales, sources = numbers["names"], _scales(numbers), _sources(numbers)
    if len(names) == 1:
        return marginals(numbers)
    chosen = list(itertools.combinations(range(len(names)), 2))
    placed = {name: _places(rows, scales) for name, rows in sources.items()}
    bins = [
        _pair_bins({name: rows[:, index] for name, rows in placed.items()}, scale)
        for index, scale in enumerate(scales[: len(names)])
    ]
    figure, drawn = panels(len(chosen) * len(sources))
    for number, (x, y) in enumerate(chosen):
        group = drawn[number * len(sources) : (number + 1) * len(sources)]
        shares = [_shares(rows[:, [x, y]], bins[x], bins[y]) for rows in placed.values()]
        peak = max(float(share.max()) for share in shares) or 1.0
        for axes, title, share in zip(group, sources, shares, strict=True):
            edges = bins[x].edges, bins[y].edges
            masked = np.ma.masked_equal(share.T, 0.0)
            norm = PowerNorm(0.5, 0.0, peak)
            axes.pcolormesh(*edges, masked, cmap="viridis", norm=norm, rasterized=True)
            bins[x].show(axes, "x")
            bins[y].show(axes, "y")
            _label_axis(axes.xaxis, scales[x])
            _label_axis(axes.yaxis, scales[y])
            axes.set_title(title, y=1.0)  # a place of its own choice takes a sixth of the time
            axes.set_xlabel(text(names[x]))
            axes.set_ylabel(text(names[y]))
    return figure


def _sources(numbers: Arrays) -> Arrays:
    """Return the rows that are shown, the data first."""
    return {name: numbers[name] for name in _COLOURS if name in numbers}


def _scales(numbers: Arrays) -> list[Scale]:
    """Return the scale of each column; without any, all are continuous."""
    if "scales" not in numbers:
        return [Scale([], [], [], is_date=False)] * len(numbers["names"])
    return [Scale(**fields) for fields in json.loads(str(numbers["scales"]))]


def _marginal(axes: Axes, cells: Arrays, scale: Scale) -> None:
    """Draw one column of the data and of samples."""
    if scale.labels:
        _bars(axes, cells, scale)
    else:
        _histograms(axes, cells, scale)
    axes.set_ylabel("share of rows")


def _bars(axes: Axes, cells: Arrays, scale: Scale) -> None:
    """Draw the share of each level, of the most frequent ones and of missing cells."""
    size = len(scale.labels)
    counts = {
        label: np.append(
            np.bincount(places[~np.isnan(places)].astype(int), minlength=size),
            np.isnan(values).sum(),
        )
        for label, values in cells.items()
        for places in [_level_places(values, scale)]
    }
    labels = [*scale.labels, "missing"]
    order = [int(index) for index in np.argsort(-sum(counts.values()), kind="stable")]
    shown = sorted(index for index in order[:_MOST_BARS] if sum(c[index] for c in counts.values()))
    places, width = np.arange(len(shown)), 0.8 / len(counts)
    for offset, (label, found) in enumerate(counts.items()):
        share = found[shown] / max(1, len(cells[label]))
        left = places + (offset - (len(counts) - 1) / 2) * width
        axes.bar(left, share, width, label=label, color=_COLOURS[label])
    texts = [text(labels[index][:_LABEL]) for index in shown]
    crowded = _are_crowded(texts)
    axes.set_xticks(places, texts, rotation=90 if crowded else 0)


def _are_crowded(texts: list[str]) -> bool:
    return len(" ".join(texts)) > _LABELS


def _histograms(axes: Axes, cells: Arrays, scale: Scale) -> None:
    """Draw histograms of continuous values; spikes and missing cells as shares of the rows."""
    inner = {
        label: _shown(values[~np.isnan(values) & ~np.isin(values, scale.spikes)], scale)
        for label, values in cells.items()
    }
    bins = _bins(np.concatenate(list(inner.values())), _BINS, inner.get("data"))
    for label, values in inner.items():
        counts, _ = np.histogram(values, bins.edges)
        share = counts / max(1, len(cells[label]))
        is_data = label == "data"
        axes.stairs(
            share,
            bins.edges,
            label=label,
            color=_COLOURS[label],
            fill=is_data,
            alpha=0.6 if is_data else 1.0,
            linewidth=0 if is_data else 1.3,
        )
    bins.show(axes, "x")
    axes.set_ylim(bottom=0)
    if scale.is_date:
        axes.xaxis_date()
        axes.tick_params(axis="x", rotation=60)


def _spikes_and_gaps(cells: Arrays, scale: Scale) -> list[str]:
    """Return lines that say the shares of single values and of missing cells."""
    if scale.labels:
        return []  # they have bars
    names = (
        format_dates(np.array(scale.spikes), date_only=True).to_pylist() if scale.is_date else []
    )
    shown = names or [f"{spike:g}" for spike in scale.spikes]
    told = [
        (f"= {name}", {k: v == spike for k, v in cells.items()})
        for name, spike in zip(shown, scale.spikes, strict=True)
    ]
    told.append(("missing", {label: np.isnan(values) for label, values in cells.items()}))
    lines = [
        f"{what}: " + ", ".join(f"{label} {found.mean():.1%}" for label, found in shares.items())
        for what, shares in told
        if any(found.any() for found in shares.values())
    ]
    more = [f"and {len(lines) - _MOST_LINES} more values"] if len(lines) > _MOST_LINES else []
    return [*lines[:_MOST_LINES], *more]


def _shown(values: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    """Return the values that can be shown: dates as days, without those that are no dates."""
    if not scale.is_date:
        return values
    days = values / _DAY
    return days[(days > _FIRST_DAY) & (days < _LAST_DAY)]


def _level_places(values: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    """Return the place of the level of each value, NaN for those that have none."""
    numbers = np.array(scale.numbers, np.float64)
    order = np.argsort(numbers, kind="stable")
    found = order[np.searchsorted(numbers, values, sorter=order).clip(max=len(numbers) - 1)]
    return np.where(numbers[found] == values, found, np.nan)


def _places(rows: NDArray[np.float64], scales: list[Scale]) -> NDArray[np.float64]:
    """Return rows as places on axes: levels by their order, dates in days."""
    placed = rows.astype(np.float64)
    for index, scale in enumerate(scales):
        if scale.labels:
            placed[:, index] = _level_places(rows[:, index], scale)
        elif scale.is_date:
            days = rows[:, index] / _DAY
            placed[:, index] = np.where((days > _FIRST_DAY) & (days < _LAST_DAY), days, np.nan)
    return placed


def _pair_bins(sources: Arrays, scale: Scale) -> Bins:
    """Return the bins of a column in pairs: one for each level, or those of its values."""
    if scale.labels:
        step = -(-len(scale.labels) // _MOST_LEVEL_BINS)
        return Bins(np.arange(0, len(scale.labels) + step, step) - 0.5)
    spikes = np.array(scale.spikes) / (_DAY if scale.is_date else 1)
    inner = {
        name: places[~np.isnan(places) & ~np.isin(places, spikes)]
        for name, places in sources.items()
    }
    return _bins(np.concatenate(list(inner.values())), _PAIR_BINS, inner.get("data"))


def _shares(rows: NDArray[np.float64], x: Bins, y: Bins) -> NDArray[np.float64]:
    """Return the share of the rows in each cell of the grid of two columns' bins."""
    there = rows[~np.isnan(rows).any(axis=1)]
    counts, _, _ = np.histogram2d(there[:, 0], there[:, 1], bins=(x.edges, y.edges))
    return np.asarray(counts / max(1, len(rows)))


def _label_axis(axis: Axis, scale: Scale) -> None:
    """Name the levels of an axis, or show its days as dates."""
    if scale.is_date:
        axis.axis_date()
        if isinstance(axis, XAxis):
            axis.set_tick_params(rotation=60)
    elif scale.labels:
        step = -(-len(scale.labels) // _MOST_LABELS)
        texts = [text(label[:_LABEL]) for label in scale.labels[::step]]
        crowded = isinstance(axis, XAxis) and _are_crowded(texts)
        places = range(0, len(scale.labels), step)
        axis.set_ticks(places, texts, fontsize="small", rotation=90 if crowded else 0)


def _bins(values: NDArray[np.float64], count: int, data: NDArray[np.float64] | None = None) -> Bins:
    """Return bins of values; the farthest are left out, or all others had one bin.

    Args:
        values: Values of the data and of samples.
        count: Number of bins.
        data: Values of the data, by which the kind of axis is chosen: a few samples below 0 leave
            a positive column on its logarithmic axis. None for all values.
    """
    if len(values) == 0:
        return Bins(np.linspace(0, 1, count + 1))
    chosen_by = values if data is None or len(data) == 0 else data
    low, lower, median, upper, high = np.quantile(chosen_by, (0.001, 0.25, 0.5, 0.75, 0.999))
    is_log = low > 0 and high / median > _LOG_REACH
    middle = upper - lower
    is_wide = middle > 0 and high - low > _WIDE_REACH * middle and abs(median) < middle
    low, high = np.quantile(values[values > 0] if is_log else values, (0.001, 0.999))
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # bins must differ, also of one number
        margin = 1e-3 * max(abs(low), abs(high)) or 0.5
        return Bins(np.linspace(low - margin, high + margin, count + 1))
    if is_log:
        return Bins(np.exp(np.linspace(np.log(low), np.log(high), count + 1)), "log")
    if is_wide:
        ends = np.arcsinh(low / middle), np.arcsinh(high / middle)
        edges = middle * np.sinh(np.linspace(*ends, count + 1))
        return Bins(edges, "asinh", middle)
    whole = bool((values == np.round(values)).all())
    if whole:
        low, high = np.floor(low), np.ceil(high)
    return Bins.equal(float(low), float(high), count, whole=whole)
