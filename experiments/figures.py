"""Figures of an experiment: its learning curve, and densities and layers in the plane."""

import copy
import io
import os
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.data import DENSITIES
from experiments.recipes import DensityRecipe, Recipe, VariationalRecipe
from flows import CompiledFlow, Flow, Potential, compile_flow
from flows.bijections.base import Bijection
from flows.families.planar import Planar

os.environ.setdefault("MPLBACKEND", "Agg")

_GRID = 200
_COLOURS = 64
_DPI = 80
_LAYERS_SHOWN = 8
_REACH = 2.5


def draw(
    recipe: Recipe, flow: Flow, curve: list[list[float]], test: Tensor | None, folder: Path
) -> list[Path]:
    """Write the figures of a recipe as PNG files and return their paths.

    There is always a learning curve; in two dimensions density and samples; for a potential the
    density of the flow beside it, and the effect of each layer on noise.

    Args:
        test: Test rows in the data's units; None for a potential.
        folder: Folder for the files, whose names begin with that of the recipe.
    """
    path = folder / recipe.name
    flow.cpu().eval()
    written = [_curve(recipe, curve, path)]
    if isinstance(recipe, VariationalRecipe):
        return [*written, _beside_potential(recipe, flow, path), _layer_by_layer(flow, path)]
    assert test is not None  # noqa: S101  a density recipe has test rows
    return [*written, _plane(recipe, flow, test, path)] if flow.dim == 2 else written


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
        axes.set_title(_heading(recipe.title))

    return _save(path.with_name(f"{path.name}-curve.png"), plot, (7, 4))


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


def _plane(recipe: DensityRecipe, flow: Flow, test: Tensor, path: Path) -> Path:
    """Draw test rows, their noise, samples, the true density and that of the flow."""
    compiled = compile_flow(flow)
    noise, _ = compiled.inverse(test.numpy())
    samples = compiled.sample(len(test), seed=0)
    places = _cells((-_REACH, -_REACH), (_REACH, _REACH))
    truth = _as_image(DENSITIES[recipe.data](places.numpy()))
    learnt = _density(compiled, places)

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        axes = figure.subplots(1, 5)
        titles = ("test rows", "their noise", "samples")
        for place, rows, title in zip(axes, (test.numpy(), noise, samples), titles, strict=False):
            place.plot(*rows.T, ".", markersize=1.5, alpha=0.5)
            place.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal", title=title)
        extent, brightest = [-_REACH, _REACH, -_REACH, _REACH], 1.25 * float(truth.max())
        _show(axes[3], truth, extent, "true density", brightest=brightest)
        _show(axes[4], learnt, extent, "learnt density", brightest=brightest)

    return _save(path.with_name(f"{path.name}.png"), plot, (15, 3.4))


def _beside_potential(recipe: VariationalRecipe, flow: Flow, path: Path) -> Path:
    target = Potential(recipe.potential)
    window = target.window
    assert window is not None  # noqa: S101  every potential has one
    places = _cells(window.lower, window.upper)
    truth = _as_image(target.log_density(places).exp().numpy())
    learnt = _density(compile_flow(flow), places)
    extent = [window.lower[0], window.upper[0], window.lower[1], window.upper[1]]

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        left, right = figure.subplots(1, 2)
        _show(left, truth, extent, f"exp(-{recipe.potential})")
        _show(right, learnt, extent, recipe.title)

    return _save(path.with_name(f"{path.name}.png"), plot, (9, 4.5))


def _layer_by_layer(flow: Flow, path: Path) -> Path:
    """Draw noise after the first, second, ... layer; below, each of these layers on noise alone."""
    u = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    layers = _layers(flow)
    stages, alone = [u], [u]
    with torch.no_grad():
        for layer in layers:
            stages.append(layer.forward(stages[-1])[0])
            alone.append(layer.forward(u)[0])
    shown = np.unique(np.linspace(0, len(layers), _LAYERS_SHOWN).round().astype(int))

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        for row, kind in zip(figure.subplots(2, len(shown)), (stages, alone), strict=True):
            for axes, stage in zip(row, shown, strict=True):
                axes.plot(*kind[stage].numpy().T, ".", markersize=0.5, alpha=0.4)
                axes.set(xlim=(-6, 6), ylim=(-6, 6), aspect="equal")
                axes.set_axis_off()
                if stage == 0:
                    axes.set_title("noise")
                else:
                    axes.set_title(f"layer {stage}{' alone' if kind is alone else ''}")

    return _save(path.with_name(f"{path.name}-layers.png"), plot, (2 * len(shown), 4.5))


def _layers(flow: Flow) -> list[Bijection]:
    """Return the layers from the noise to the data; those of a planar flow are one bijection."""
    layers: list[Bijection] = []
    for part in reversed(flow.transform.parts()):
        if not isinstance(part, Planar):
            layers.append(part)
            continue
        for index in range(len(part.raw.base)):
            layer = copy.deepcopy(part)
            layer.raw.base = torch.nn.Parameter(part.raw.base[index : index + 1].detach())
            layers.append(layer)
    return layers


def _save(
    path: Path, plot: Callable[[Any], None], size: tuple[float, float], *, dpi: int = _DPI
) -> Path:
    """Draw on a figure and write it as a PNG with few colours.

    Args:
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


def _heading(title: str) -> str:
    """Return a title in lines short enough for every figure."""
    return "\n".join(textwrap.fill(line, 64) for line in title.split("\n"))


def _cells(lower: tuple[float, ...], upper: tuple[float, ...]) -> Tensor:
    """Return the points of a grid over a window in the plane, in float64."""
    axes = [
        torch.linspace(a, b, _GRID, dtype=torch.float64) for a, b in zip(lower, upper, strict=True)
    ]
    return torch.cartesian_prod(*axes)


def _density(flow: CompiledFlow, points: Tensor) -> NDArray[np.float64]:
    """Return a flow's density at the points of `_cells`, as an image."""
    scores = flow.log_prob(points.numpy(), space="model")
    return _as_image(np.exp(scores))


def _as_image(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values at the points of `_cells` by row and column."""
    return values.reshape(_GRID, _GRID).T


def _show(
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
    axes.set_title(_heading(title))
