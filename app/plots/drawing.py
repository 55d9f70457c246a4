"""Child process that draws one plot from numbers on standard input to standard output."""

import io
import sys
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from app.plots import columns, figures
from app.plots.style import Arrays, use_theme

_DRAWN: dict[str, Callable[[Arrays], Figure]] = {
    "learning-curve": figures.learning_curve,
    "marginals": columns.marginals,
    "pairs": columns.pairs,
    "density": figures.density,
    "noise": figures.noise,
    "images": figures.images,
}


def draw(kind: str, numbers: Arrays) -> Figure:
    """Draw the plot of a kind, and say on it what is left out."""
    note = str(numbers.pop("note", ""))
    figure = _DRAWN[kind](numbers)
    if note:
        title = "\n".join(filter(None, [figure.get_suptitle(), note]))
        figure.suptitle(title, fontsize="small", wrap=True)
    return figure


def main() -> None:
    """Draw what the arguments say: the kind, the format of the file and the theme."""
    kind, file_format, theme = sys.argv[1:]
    mpl.rcParams["svg.hashsalt"] = "densityd"  # equal numbers, equal plots
    use_theme(theme)
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as given:
        numbers = dict(given)
    figure = draw(kind, numbers)
    metadata = {"Date": None} if file_format == "svg" else None
    figure.savefig(sys.stdout.buffer, format=file_format, dpi=110, metadata=metadata)


if __name__ == "__main__":
    main()
