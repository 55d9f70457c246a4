"""Figures of a whole model: its training, density, noise and images."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from app.plots.style import DATA, OTHER, SAMPLES, Arrays, panels, text

_FAR = 8.0  # standard deviations
_LABELS = {
    "train_log_likelihood": ("training rows", DATA),
    "validation_log_likelihood": ("validation rows", SAMPLES),
    "robust_validation_log_likelihood": ("validation rows, far ones bounded", OTHER),
    "elbo": ("evidence lower bound", DATA),
}


def learning_curve(numbers: Arrays) -> Figure:
    """Draw likelihoods by epoch; the one that chose the model is bold, with its best epoch."""
    figure = Figure((7, 4.5), layout="constrained")
    axes = figure.subplots()
    at, decides = numbers["at"], str(numbers.get("decides", ""))
    curves = {name: numbers[name] for name in _LABELS if name in numbers}
    for name, values in curves.items():
        label, colour = _LABELS[name]
        wide = 2.4 if name == decides else 1.2
        told = f"{label} (chooses the epoch)" if name == decides and len(curves) > 1 else label
        axes.plot(at, values, color=colour, linewidth=wide, label=told)
    if "kept" in numbers:
        _mark_kept(axes, *numbers["kept"].tolist())
    axes.set_ylim(_curve_limits(list(curves.values())))
    axes.set_xlabel("iteration" if "elbo" in curves else "epoch")
    axes.set_ylabel("nats" if "elbo" in curves else "mean log-likelihood of a row in nats")
    figure.legend(loc="outside lower center", ncols=2)  # where it hides no curve
    axes.grid(alpha=0.25)
    return figure


def _mark_kept(axes: Axes, epoch: float, value: float) -> None:
    """Mark the epoch whose weights were kept."""
    axes.axvline(epoch, color=OTHER, linestyle=":", linewidth=1.2)
    axes.plot([epoch], [value], "o", color=OTHER, label=f"kept: epoch {epoch:g}, {value:.3f} nats")


def _curve_limits(curves: list[NDArray[np.float64]]) -> tuple[float, float]:
    """Return limits that show where curves end; a far start would make them flat."""
    finite = [values[np.isfinite(values)] for values in curves]
    finite = [values for values in finite if len(values)]
    high = max(float(values.max()) for values in finite)
    low = min(float(values.min()) for values in finite)
    settled = min(float(np.quantile(values, 0.1)) for values in finite)
    low = max(low, settled - 2 * (high - settled)) if high > settled else low
    margin = 0.05 * (high - low) or 1e-3 * abs(high) or 1.0
    return low - margin, high + margin


def density(numbers: Arrays) -> Figure:
    """Draw the density of two columns, and beside it the data or the target, at the same scale."""
    x, y = numbers["x"], numbers["y"]
    shown = {"density of the model": numbers["density"]}
    if "target" in numbers:
        shown["density of the target"] = numbers["target"]
    has_data = "data" in numbers
    count = len(shown) + has_data
    figure = Figure((5.2 * count + 0.8, 4.8), layout="constrained")
    found = figure.subplots(1, count, squeeze=False, sharex=True, sharey=True)[0]
    peak = float(np.nanmax(numbers["density"])) or 1.0
    scale = PowerNorm(0.5, 0.0, peak)
    for axes, (title, values) in zip(found, shown.items(), strict=False):
        masked = np.ma.masked_invalid(values)
        axes.pcolormesh(x, y, masked, shading="auto", cmap="viridis", norm=scale, rasterized=True)
        axes.set_title(title)
    if has_data:
        rows = numbers["data"]
        found[-1].plot(rows[:, 0], rows[:, 1], ".", color=DATA, markersize=2.5, alpha=0.6)
        found[-1].set_title(f"{len(rows)} rows of the data")
    figure.colorbar(ScalarMappable(scale, "viridis"), ax=found.tolist(), label="density")
    found[0].set_ylabel(text(numbers["names"][1]))
    for axes in found:
        axes.set_xlabel(text(numbers["names"][0]))
    found[0].set_xlim(x[0], x[-1])
    found[0].set_ylim(y[0], y[-1])
    return figure


def noise(numbers: Arrays) -> Figure:
    """Draw quantiles of the data mapped to noise against those of the normal distribution."""
    names, found, normal = numbers["names"], numbers["noise"], numbers["normal"]
    figure, drawn = panels(len(names), share=True)
    reach = min(_FAR, max(3.0, float(np.abs(found).max(initial=0.0)), float(np.abs(normal).max())))
    for index, (axes, name) in enumerate(zip(drawn, names, strict=False)):
        axes.axline((0, 0), slope=1, color="gray", linewidth=1.0)
        axes.plot(normal, np.sort(found[:, index]), ".", color=DATA, markersize=3)
        outside = int((np.abs(found[:, index]) > reach).sum())
        axes.set_title(text(name) + (f" ({outside} outside)" if outside else ""), y=1.0)
        axes.set_aspect("equal")
    drawn[0].set_xlim(-reach, reach)
    drawn[0].set_ylim(-reach, reach)
    figure.supxlabel("quantiles of the standard normal distribution")
    figure.supylabel("quantiles of the data as the flow's noise")
    return figure


def images(numbers: Arrays) -> Figure:
    """Draw samples as square images, all in the same greys."""
    samples = numbers["samples"]
    side = int(np.sqrt(samples.shape[1]))
    figure, drawn = panels(len(samples), inches=0.9, columns=8)
    low, high = np.quantile(samples, (0.001, 0.999))
    for axes, row in zip(drawn, samples, strict=False):
        axes.imshow(row.reshape(side, side), cmap="gray", vmin=low, vmax=max(high, low + 1e-9))
        axes.set_axis_off()
    return figure
