"""Grids of pictures of 28 x 28 pixels: samples, completions of given halves, reconstructions."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.canvas import heading, save
from experiments.recipes.recipe import DensityRecipe
from flows import Flow, compile_flow, conditional_densities

_SIDE = 28
_SAMPLES = 8  # pictures per side of the grid
_COMPLETED, _COMPLETIONS = 10, 4
# Noise at which a binary feature is 1, or 0 for its opposite, whatever its probability.
_CERTAIN = -40.0

Rows = NDArray[Any]


def draw_samples(recipe: DensityRecipe, flow: Flow, path: Path) -> Path:
    """Draw a grid of samples in the data's units."""
    samples = compile_flow(flow).sample(_SAMPLES**2, seed=0)
    lines = list(samples.reshape(_SAMPLES, _SAMPLES, -1))
    return _save(recipe.title, lines, path.with_name(f"{path.name}-samples.png"))


def draw_completions(recipe: DensityRecipe, flow: Flow, test: Tensor, path: Path) -> Path:
    """Draw test rows, their given first half in the flow's order, and completions."""
    rows = test[:: len(test) // _COMPLETED][:_COMPLETED]
    completed, given = complete(flow, rows, _COMPLETIONS)
    hidden = torch.where(given, rows, 0.5)
    lines = [rows.numpy(), hidden.numpy(), *completed.numpy()]
    title = f"{recipe.title}\nrow 1: test, row 2: what is given, below: completions"
    return _save(title, lines, path.with_name(f"{path.name}-completions.png"))


def draw_reconstructions(recipe: DensityRecipe, flow: Flow, test: Tensor, path: Path) -> Path:
    """Draw test rows, and the probability of a 1 of each feature given those before it."""
    rows = test[:: len(test) // _COMPLETED][:_COMPLETED]
    lines = [rows.numpy(), reconstruct(flow, rows).numpy()]
    title = f"{recipe.title}\nrow 1: test, row 2: p(x_i = 1 | x_<i) of each pixel"
    return _save(title, lines, path.with_name(f"{path.name}-reconstructions.png"))


@torch.no_grad()
def reconstruct(flow: Flow, rows: Tensor) -> Tensor:
    """Return p(x_i = 1 | x_<i) of binary rows, what a MADE gives back as an autoencoder."""
    return conditional_densities(flow, rows).means


@torch.no_grad()
def complete(flow: Flow, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Draw the second half of binary rows, in the flow's order, given the first.

    A feature depends only on those before it, so it is enough to choose the noise of the first half
    such that the given values come out.

    Args:
        flow: Flow of one autoregressive layer, behind a permutation if its order is random.
        rows: Binary rows, `(rows, dim)`.
        count: Number of completions of each row.

    Returns:
        The `(count, rows, dim)` completions, and a mask of the `dim` features that are given.
    """
    *reorderings, _ = flow.transform.parts()
    ordered, first = rows, (torch.arange(flow.dim) < flow.dim // 2).float()[None]
    for part in reorderings:
        ordered = part.inverse(ordered)[0]
    for part in reversed(reorderings):
        first = part.forward(first)[0]
    fixed = torch.where(ordered > 0.5, _CERTAIN, -_CERTAIN)[:, : flow.dim // 2]
    noise = torch.randn(count, *rows.shape, generator=torch.Generator().manual_seed(0))
    noise[:, :, : flow.dim // 2] = fixed
    drawn, _ = flow.forward(noise.flatten(0, 1))
    return drawn.view_as(noise), first[0] > 0.5


def _save(title: str, lines: list[Rows], path: Path) -> Path:
    """Draw lines of pictures, one below the other; NaN is red."""
    from matplotlib import colormaps  # noqa: PLC0415  only figures need it

    rows = [np.concatenate(list(line.reshape(-1, _SIDE, _SIDE)), axis=1) for line in lines]
    image = np.concatenate(rows)
    colours = colormaps["gray"].with_extremes(bad="red")

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        axes = figure.subplots()
        axes.imshow(image, cmap=colours, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(heading(title), fontsize=10)

    return save(path, plot, (6, 0.5 + 6 * image.shape[0] / image.shape[1]))
