"""Drawing of a plot from its numbers; the libraries for it are loaded where it is done, in a process of its own."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from app.plots.style import Arrays


def draw(kind: str, numbers: "Arrays") -> "Figure":
    """Draw the plot of a kind, and say on it what is left out."""
    from app.plots import columns, figures  # noqa: PLC0415 - they load matplotlib

    drawn = {
        "learning-curve": figures.learning_curve,
        "marginals": columns.marginals,
        "pairs": columns.pairs,
        "density": figures.density,
        "noise": figures.noise,
        "images": figures.images,
    }
    note = str(numbers.pop("note", ""))
    figure = drawn[kind](numbers)
    if note:
        title = "\n".join(filter(None, [figure.get_suptitle(), note]))
        figure.suptitle(title, fontsize="small", wrap=True)
    return figure


def draw_file(kind: str, file_format: str, theme: str, numbers: "Arrays") -> bytes:
    """Return the plot of a kind as a file of an image format; equal numbers give equal files."""
    import matplotlib as mpl  # noqa: PLC0415 - as above

    from app.plots.style import use_theme  # noqa: PLC0415 - as above

    with mpl.rc_context({"svg.hashsalt": "densityd"}), io.BytesIO() as file:
        use_theme(theme)
        metadata = {"Date": None} if file_format == "svg" else None
        draw(kind, numbers).savefig(file, format=file_format, dpi=110, metadata=metadata)
        return file.getvalue()
