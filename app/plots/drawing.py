"""Child process that draws one plot from numbers on standard input to standard output."""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_BINS = 60
_PANEL_INCHES = 2.6
_MOST_BARS = 10
_MOST_LABELS = 8
_LABEL, _LABELS = 12, 24  # characters of one label, and of all in a row
_MOST_LINES = 4
_DAY = 86_400


def draw(kind: str, numbers: Arrays) -> Figure:
    """Draw the picture of a kind, and say on it what is left out."""
    note = str(numbers.pop("note", ""))
    figure = _DRAWN[kind](numbers)
    if note:
        title = "\n".join(filter(None, [figure.get_suptitle(), note]))
        figure.suptitle(title, fontsize="small", wrap=True)
    return figure


def _learning_curve(numbers: Arrays) -> Figure:
    figure = Figure((7, 4.5), layout="constrained")
    axes = figure.subplots()
    at = numbers.pop("at")
    for name, values in numbers.items():
        axes.plot(at, values, label=name.replace("_", " "))
    axes.set_xlabel("epoch or iteration")
    axes.set_ylabel("nats")
    axes.legend(loc="lower right")
    return figure


def _marginals(numbers: Arrays) -> Figure:
    names, samples = numbers["names"], numbers["samples"]
    scales = _scales(numbers)
    figure, panels = _panels(len(names))
    for index, (axes, name, scale) in enumerate(zip(panels, names, scales, strict=False)):
        columns = {"samples": samples[:, index]}
        if "data" in numbers:
            columns = {"data": numbers["data"][:, index], **columns}
        _marginal(axes, columns, scale)
        axes.set_title(_text(name))
    panels[0].legend(loc="upper right")
    return figure


@dataclass(frozen=True)
class _Scale:
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


def _scales(numbers: Arrays) -> list[_Scale]:
    """Return the scale of each column; without any, all are continuous."""
    if "scales" not in numbers:
        return [_Scale([], [], [], is_date=False)] * len(numbers["names"])
    return [_Scale(**fields) for fields in json.loads(str(numbers["scales"]))]


def _marginal(axes: Axes, columns: Arrays, scale: _Scale) -> None:
    """Draw one column of the data and of samples."""
    if scale.labels:
        _bars(axes, columns, scale)
    else:
        _histograms(axes, columns, scale)


def _bars(axes: Axes, columns: Arrays, scale: _Scale) -> None:
    """Draw the share of each level, of the most frequent ones and of missing cells."""
    counts = {
        label: np.array(
            [*((values == number).sum() for number in scale.numbers), np.isnan(values).sum()]
        )
        for label, values in columns.items()
    }
    labels = [*scale.labels, "missing"]
    order = [int(index) for index in np.argsort(-sum(counts.values()), kind="stable")]
    shown = sorted(index for index in order[:_MOST_BARS] if sum(c[index] for c in counts.values()))
    places, width = np.arange(len(shown)), 0.8 / len(counts)
    for offset, (label, found) in enumerate(counts.items()):
        share = found[shown] / max(1, len(columns[label]))
        axes.bar(places + (offset - (len(counts) - 1) / 2) * width, share, width, label=label)
    texts = [_text(labels[index][:_LABEL]) for index in shown]
    crowded = sum(map(len, texts)) > _LABELS
    axes.set_xticks(places, texts, rotation=90 if crowded else 0)
    axes.set_ylabel("share of rows")


def _histograms(axes: Axes, columns: Arrays, scale: _Scale) -> None:
    """Draw histograms of continuous values; spikes and missing cells as shares of the rows."""
    inner = {
        label: values[~np.isnan(values) & ~np.isin(values, scale.spikes)]
        / (_DAY if scale.is_date else 1)
        for label, values in columns.items()
    }
    edges = _edges(np.concatenate(list(inner.values())))
    for label, values in inner.items():
        _hist(axes, values, edges, label=label)
    if scale.is_date:
        axes.xaxis_date()
        axes.tick_params(axis="x", rotation=60)
    told = [(f"= {spike:g}", {k: v == spike for k, v in columns.items()}) for spike in scale.spikes]
    told.append(("missing", {label: np.isnan(values) for label, values in columns.items()}))
    lines = [
        f"{what}: " + ", ".join(f"{label} {found.mean():.1%}" for label, found in shares.items())
        for what, shares in told
        if any(found.any() for found in shares.values())
    ]
    if lines:
        more = [f"and {len(lines) - _MOST_LINES} more values"] if len(lines) > _MOST_LINES else []
        axes.set_xlabel("\n".join([*lines[:_MOST_LINES], *more]), fontsize="x-small")


def _pairs(numbers: Arrays) -> Figure:
    names, samples = numbers["names"], numbers["samples"]
    count = len(names)
    data = numbers.get("data", samples)
    scales = _scales(numbers)
    shown = [_placed(rows, scales) for rows in (data, samples)]
    figure = Figure((_PANEL_INCHES * count,) * 2, layout="constrained")
    grid = figure.subplots(count, count, squeeze=False)
    for row in range(count):
        for column in range(count):
            axes: Axes = grid[row, column]
            if row == column:
                _marginal(axes, {"data": data[:, row], "samples": samples[:, row]}, scales[row])
                axes.set_title(_text(names[row]))
            else:  # data below the diagonal, samples above
                values = shown[0] if row > column else shown[1]
                values = values[~np.isnan(values[:, [row, column]]).any(axis=1)]
                if len(values):
                    axes.hexbin(
                        values[:, column], values[:, row], gridsize=40, mincnt=1, cmap="viridis"
                    )
                    _label_axis(axes.xaxis, scales[column])
                    _label_axis(axes.yaxis, scales[row])
    figure.suptitle("data below the diagonal, samples above" if "data" in numbers else "samples")
    return figure


def _placed(rows: NDArray[Any], scales: list[_Scale]) -> NDArray[Any]:
    """Return rows as points to draw: levels at their places, each spread a little; days of dates.

    Spikes outside the range of all other values, which would rule the axis, are left out.
    """
    placed = rows.copy()
    random = np.random.default_rng(0)
    for index, scale in enumerate(scales):
        values = rows[:, index]
        if scale.labels:
            matches = values[:, None] == np.array(scale.numbers)
            places = np.where(matches.any(axis=1), matches.argmax(axis=1), np.nan)
            placed[:, index] = places + random.uniform(-0.3, 0.3, len(rows))
            continue
        is_spike = np.isin(values, scale.spikes)
        others = values[~np.isnan(values) & ~is_spike]
        placed[:, index] = values / (_DAY if scale.is_date else 1)
        if len(others):
            outside = (values < others.min()) | (values > others.max())
            placed[outside & is_spike, index] = np.nan
    return placed


def _label_axis(axis: Axis, scale: _Scale) -> None:
    """Name the levels of an axis, or show its days as dates."""
    if scale.is_date:
        axis.axis_date()
        if isinstance(axis, XAxis):
            axis.set_tick_params(rotation=60)
    elif 0 < len(scale.labels) <= _MOST_LABELS:
        texts = [_text(label[:_LABEL]) for label in scale.labels]
        axis.set_ticks(range(len(texts)), texts, fontsize="small")


def _density(numbers: Arrays) -> Figure:
    figure = Figure((6, 5), layout="constrained")
    axes = figure.subplots()
    x, y = numbers["x"], numbers["y"]
    density = np.ma.masked_invalid(numbers["density"])
    mesh = axes.pcolormesh(x, y, density, shading="auto", cmap="viridis")
    figure.colorbar(mesh, label="density")
    axes.set_xlabel(_text(numbers["names"][0]))
    axes.set_ylabel(_text(numbers["names"][1]))
    return figure


def _noise(numbers: Arrays) -> Figure:
    names, noise, normal = numbers["names"], numbers["noise"], numbers["normal"]
    figure, panels = _panels(len(names))
    for index, (axes, name) in enumerate(zip(panels, names, strict=False)):
        axes.plot(normal, np.sort(noise[:, index]), ".", markersize=2)
        axes.axline((0, 0), slope=1, color="black", linewidth=0.8)
        axes.set_title(_text(name))
    figure.supxlabel("quantiles of a standard normal")
    figure.supylabel("noise of the held-out or training rows")
    return figure


def _images(numbers: Arrays) -> Figure:
    samples = numbers["samples"]
    side = int(np.sqrt(samples.shape[1]))
    figure, panels = _panels(len(samples), inches=0.9, columns=8)
    for axes, row in zip(panels, samples, strict=False):
        axes.imshow(row.reshape(side, side), cmap="gray")
        axes.set_axis_off()
    return figure


def _panels(count: int, *, inches: float = _PANEL_INCHES, columns: int = 4) -> tuple[Figure, Any]:
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure((inches * columns + 0.5, inches * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels


def _edges(values: NDArray[Any]) -> NDArray[Any]:
    """Return the edges of bins; the farthest values are left out, or all others had one bin."""
    if len(values) == 0:
        return np.linspace(0, 1, _BINS + 1)
    low, high = np.quantile(values, (0.001, 0.999))
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # bins must differ, also of one number
        margin = 1e-3 * max(abs(low), abs(high)) or 0.5
        low, high = low - margin, high + margin
    return np.linspace(low, high, _BINS + 1)


def _hist(axes: Axes, values: NDArray[Any], edges: NDArray[Any], *, label: str) -> None:
    """Draw a histogram of the values between the edges, if there are any."""
    inner = values[(values >= edges[0]) & (values <= edges[-1])]
    if len(inner):
        axes.hist(inner, edges.tolist(), density=True, alpha=0.55, label=label)


def _text(name: object) -> str:
    """Return a name with its dollar signs escaped, which would begin a formula."""
    return str(name)[:40].replace("$", r"\$")


_DRAWN: dict[str, Callable[[Arrays], Figure]] = {
    "learning-curve": _learning_curve,
    "marginals": _marginals,
    "pairs": _pairs,
    "density": _density,
    "noise": _noise,
    "images": _images,
}


def main() -> None:
    """Draw what the arguments say."""
    kind, picture_format = sys.argv[1:]
    mpl.rcParams["svg.hashsalt"] = "densityd"  # equal numbers, equal pictures
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as given:
        numbers = dict(given)
    figure = draw(kind, numbers)
    metadata = {"Date": None} if picture_format == "svg" else None
    figure.savefig(sys.stdout.buffer, format=picture_format, dpi=110, metadata=metadata)


if __name__ == "__main__":
    main()
