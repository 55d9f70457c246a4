"""Figures of an experiment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from experiments.canvas import heading, save
from experiments.data import images, noise
from experiments.figures import plane
from experiments.recipes.recipe import DensityRecipe, Recipe, VariationalRecipe
from flows import Flow, MadeSpec

_PICTURE_DIM = 784


def draw(
    recipe: Recipe, flow: Flow, curve: list[list[float]], test: Tensor | None, folder: Path
) -> list[Path]:
    """Write the figures of a recipe as PNG files and return their paths.

    There is always a learning curve; for pictures a grid of samples, and of binary ones completions
    and reconstructions of test rows; the noise of test rows that are not binary; density and samples in two dimensions;
    for a potential the density of the flow beside it, and the effect of each layer on noise.

    Args:
        recipe: Recipe of the experiment.
        flow: Trained flow.
        curve: Learning curve.
        test: Test rows in the data's units; None for a potential.
        folder: Folder for the files, whose names begin with that of the recipe.
    """
    path = folder / recipe.name
    flow.cpu().eval()
    written = [_curve(recipe, curve, path)]
    if isinstance(recipe, VariationalRecipe):
        return [*written, *plane.draw_variational(recipe, flow, path)]
    assert test is not None  # noqa: S101  a density recipe has test rows
    binary = isinstance(recipe.flow, MadeSpec) and recipe.flow.conditional == "bernoulli"
    if flow.dim == _PICTURE_DIM:
        written.append(images.draw_samples(recipe, flow, path))
        if binary and getattr(recipe.flow, "masks", 1) == 1:
            written.append(images.draw_completions(recipe, flow, test, path))
            written.append(images.draw_reconstructions(recipe, flow, test, path))
    if not binary:
        written.append(noise.draw(recipe, flow, test, path))
    if flow.dim == 2:
        written.append(plane.draw(recipe, flow, test, path))
    return written


def _curve(recipe: Recipe, curve: list[list[float]], path: Path) -> Path:
    columns = np.array(curve).T

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        axes = figure.subplots()
        if isinstance(recipe, DensityRecipe):
            axes.plot(columns[0], columns[1], label="training, while it learns")
            axes.plot(columns[0], columns[2], label="validation, after the epoch")
            axes.set_xlabel("epoch")
            axes.set_ylabel("mean log-likelihood, nats")
            for known in recipe.published:
                axes.axhline(known.value, color="0.6", linestyle=":", label=f"{known.source}, test")
            _look_at_the_end(axes, columns[1:], [known.value for known in recipe.published])
        else:
            axes.plot(columns[0], columns[1], label="ELBO")
            axes.set_xlabel("iteration")
            axes.set_ylabel("ELBO, nats")
            _look_at_the_end(axes, columns[1])
        axes.legend()
        axes.set_title(heading(recipe.title))

    return save(path.with_name(f"{path.name}-curve.png"), plot, (7, 4))


def _look_at_the_end(
    axes: Any,  # noqa: ANN401  matplotlib's
    values: NDArray[np.float64],
    others: Sequence[float] = (),
) -> None:
    """Zoom in on all but the steep beginning of a curve and the values that it is compared with."""
    low = min([np.percentile(values, 5), *others])
    high = max([np.max(values), *others])
    room = 0.05 * (high - low)
    axes.set_ylim(low - room, high + room)
