"""Child process that draws one plot from numbers on standard input to standard output."""

import io
import sys
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_BINS = 60
_PANEL_INCHES = 2.6


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
    figure, panels = _panels(len(names))
    for index, (axes, name) in enumerate(zip(panels, names, strict=False)):
        columns = {"samples": samples[:, index]}
        if "data" in numbers:
            columns = {"data": numbers["data"][:, index], **columns}
        edges = _edges(np.concatenate(list(columns.values())))
        for label, values in columns.items():
            _hist(axes, values, edges, label=label)
        axes.set_title(_text(name))
    panels[0].legend(loc="upper right")
    return figure


def _pairs(numbers: Arrays) -> Figure:
    names, samples = numbers["names"], numbers["samples"]
    count = len(names)
    data = numbers.get("data", samples)
    figure = Figure((_PANEL_INCHES * count,) * 2, layout="constrained")
    grid = figure.subplots(count, count, squeeze=False)
    for row in range(count):
        for column in range(count):
            axes: Axes = grid[row, column]
            if row == column:
                for label, values in (("data", data[:, row]), ("samples", samples[:, row])):
                    _hist(axes, values, _edges(values), label=label)
                axes.set_title(_text(names[row]))
            else:  # data below the diagonal, samples above
                values = data if row > column else samples
                if len(values):
                    axes.hexbin(
                        values[:, column], values[:, row], gridsize=40, mincnt=1, cmap="viridis"
                    )
    figure.suptitle("data below the diagonal, samples above" if "data" in numbers else "samples")
    return figure


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
