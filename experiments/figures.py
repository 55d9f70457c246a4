"""The figures of an experiment."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments import data
from experiments.recipes import DensityRecipe, Recipe, VariationalRecipe
from flows import Flow, Potential, compile_flow
from flows.base import Bijection
from flows.planar import Planar

os.environ.setdefault("MPLBACKEND", "Agg")

_GRID = 200
_GRID_IMAGES = 8
_LAYERS_SHOWN = 8


def draw(recipe: Recipe, flow: Flow, curve: list[list[float]], folder: Path) -> list[Path]:
    """Writes the figures of a recipe as PNG files; returns their paths.

    A learning curve always; a grid of samples for pictures; the density and samples in two
    dimensions; beside a potential the density of the flow, and what each layer does to noise.
    """
    written = [_curve(recipe, curve, folder)]
    if isinstance(recipe, VariationalRecipe):
        written.append(_beside_potential(recipe, flow, folder))
        written.append(_layer_by_layer(recipe, flow, folder))
    elif flow.dim == 784:
        written.append(_images(recipe, flow, folder))
    elif flow.dim == 2:
        written.append(_plane(recipe, flow, folder))
    return written


def _save(name: str, folder: Path, plot: Callable[[Any], None], size: tuple[float, float]) -> Path:
    import matplotlib.pyplot as plt  # noqa: PLC0415  only figures need it

    figure = plt.figure(figsize=size, layout="constrained")
    plot(figure)
    path = folder / name
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def _curve(recipe: Recipe, curve: list[list[float]], folder: Path) -> Path:
    columns = np.array(curve).T

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        axes = figure.subplots()
        if isinstance(recipe, DensityRecipe):
            axes.plot(columns[0], columns[1], label="training, while it learns")
            axes.plot(columns[0], columns[2], label="validation, after the epoch")
            axes.set_xlabel("epoch")
            axes.set_ylabel("mean log-likelihood, nats")
            axes.set_ylim(np.percentile(columns[1:], 5), np.max(columns[1:]))
            for known in recipe.published:
                axes.axhline(known.value, color="0.6", linestyle=":", label=known.source)
        else:
            axes.plot(columns[0], columns[1], label="ELBO")
            axes.set_xlabel("iteration")
            axes.set_ylabel("ELBO, nats")
            axes.set_ylim(np.percentile(columns[1], 5), np.max(columns[1]))
        axes.legend()
        axes.set_title(recipe.title)

    return _save(f"{recipe.name}-curve.png", folder, plot, (7, 4))


def _cells(lower: tuple[float, ...], upper: tuple[float, ...]) -> Tensor:
    axes = [
        torch.linspace(a, b, _GRID, dtype=torch.float64) for a, b in zip(lower, upper, strict=True)
    ]
    return torch.cartesian_prod(*axes)


def _density(flow: Flow, cells: Tensor) -> NDArray[np.float64]:
    scores = compile_flow(flow.cpu()).log_prob(cells.numpy(), space="model")
    return np.exp(scores).reshape(_GRID, _GRID).T


def _show(axes: Any, values: NDArray[np.float64], extent: list[float], title: str) -> None:  # noqa: ANN401  matplotlib's
    axes.imshow(values, origin="lower", extent=extent, aspect="equal", cmap="magma")
    axes.set_title(title)


def _beside_potential(recipe: VariationalRecipe, flow: Flow, folder: Path) -> Path:
    target = Potential(recipe.potential)
    window = target.window
    assert window is not None  # noqa: S101  every potential has one
    cells = _cells(window.lower, window.upper)
    truth = target.log_density(cells).exp().reshape(_GRID, _GRID).T.numpy()
    extent = [window.lower[0], window.upper[0], window.lower[1], window.upper[1]]

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        left, right = figure.subplots(1, 2)
        _show(left, truth, extent, f"exp(-{recipe.potential})")
        _show(right, _density(flow, cells), extent, recipe.title)

    return _save(f"{recipe.name}.png", folder, plot, (9, 4.5))


def _layer_by_layer(recipe: VariationalRecipe, flow: Flow, folder: Path) -> Path:
    """Noise after the first, second, ... layer; below, each of these layers on noise alone."""
    u = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    layers = _layers(flow.cpu())
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

    return _save(f"{recipe.name}-layers.png", folder, plot, (2 * len(shown), 4.5))


def _layers(flow: Flow) -> list[Bijection]:
    """The layers from the noise to the data; those of a planar flow are one bijection."""
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


def _images(recipe: DensityRecipe, flow: Flow, folder: Path) -> Path:
    samples = compile_flow(flow.cpu()).sample(_GRID_IMAGES**2, seed=0)
    images = samples.reshape(_GRID_IMAGES, _GRID_IMAGES, 28, 28)
    rows = [np.concatenate(list(line), axis=1) for line in images]

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        axes = figure.subplots()
        axes.imshow(np.concatenate(rows), cmap="gray")
        axes.set_axis_off()
        axes.set_title(recipe.title)

    return _save(f"{recipe.name}-samples.png", folder, plot, (6, 6.3))


def _plane(recipe: DensityRecipe, flow: Flow, folder: Path) -> Path:
    rows = data.load(recipe.data, None).test
    compiled = compile_flow(flow.cpu())
    noise, _ = compiled.inverse(rows.numpy())
    samples = compiled.sample(len(rows), seed=0)
    reach = 2.5
    cells = _cells((-reach, -reach), (reach, reach))

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        axes = figure.subplots(1, 4)
        titles = ("data", "noise of the data", "samples")
        for place, points, title in zip(axes, (rows.numpy(), noise, samples), titles, strict=False):
            place.plot(*points.T, ".", markersize=1, alpha=0.4)
            place.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal", title=title)
        _show(axes[3], _density(flow, cells), [-reach, reach, -reach, reach], "density")

    return _save(f"{recipe.name}.png", folder, plot, (15, 4))
