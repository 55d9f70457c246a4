"""Canvas of the figures, written as small PNG files."""

import io
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows import CompiledFlow

os.environ.setdefault("MPLBACKEND", "Agg")

GRID = 200
_COLOURS = 64
_DPI = 80


def save(
    path: Path, plot: Callable[[Any], None], size: tuple[float, float], *, dpi: int = _DPI
) -> Path:
    """Draw on a figure and write it as a PNG with few colours.

    Args:
        path: Path of the file.
        plot: Function that draws on the figure that it is given.
        size: Width and height in inches.
        dpi: Pixels per inch.
    """
    import matplotlib.pyplot as plt  # noqa: PLC0415  only figures need it
    from PIL import Image  # noqa: PLC0415  comes with matplotlib

    figure = plt.figure(figsize=size, layout="constrained")
    plot(figure)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi)
    plt.close(figure)
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(_COLOURS).save(path, optimize=True)
    return path


def heading(title: str) -> str:
    """Return a title in lines short enough for every figure."""
    return "\n".join(textwrap.fill(line, 64) for line in title.split("\n"))


def cells(lower: tuple[float, ...], upper: tuple[float, ...]) -> Tensor:
    """Return the points of a grid over a window in the plane, in float64."""
    axes = [
        torch.linspace(a, b, GRID, dtype=torch.float64) for a, b in zip(lower, upper, strict=True)
    ]
    return torch.cartesian_prod(*axes)


def density(flow: CompiledFlow, points: Tensor) -> NDArray[np.float64]:
    """Return a flow's density at the points of `cells`, as an image."""
    scores = flow.log_prob(points.numpy(), space="model")
    return as_image(np.exp(scores))


def as_image(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values at the points of `cells` by row and column."""
    return values.reshape(GRID, GRID).T


def show(
    axes: Any,  # noqa: ANN401  matplotlib's
    values: NDArray[np.float64],
    extent: list[float],
    title: str,
    *,
    brightest: float | None = None,
) -> None:
    """Draw a density over its window."""
    axes.imshow(
        values, origin="lower", extent=extent, aspect="equal", cmap="magma", vmin=0, vmax=brightest
    )
    axes.set_title(heading(title))
