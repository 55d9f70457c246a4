"""Colours, texts and panels that all plots share."""

from typing import Any

import matplotlib as mpl
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

PANEL_INCHES = 2.9

# Colours that people with any kind of colour blindness tell apart (Okabe and Ito 2008), those of
# the data and of samples first; the light ones of them on a dark ground.
_COLOURS = {
    "light": ["#0072B2", "#D55E00", "#009E73", "#CC79A7"],
    "dark": ["#56B4E9", "#E69F00", "#2FC99A", "#E8A3CC"],
}
DATA, SAMPLES, OTHER = "C0", "C1", "C2"


def use_theme(theme: str) -> None:
    """Draw all that follows in the colours of a theme, `light` or `dark`."""
    if theme == "dark":
        style.use("dark_background")
    mpl.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=_COLOURS[theme]),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "font.size": 9,
        }
    )


def text(name: object) -> str:
    """Return a name with its dollar signs escaped, which would begin a formula."""
    return str(name)[:40].replace("$", r"\$")


def panels(
    count: int, *, inches: float = PANEL_INCHES, columns: int = 4, share: bool = False
) -> tuple[Figure, Any]:
    """Return a figure with equal panels in rows, and its axes, which may share their limits."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure((inches * columns + 0.5, inches * rows + 0.5), layout="constrained")
    found = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).reshape(-1)
    for axes in found[count:]:
        axes.set_axis_off()
    return figure, found
