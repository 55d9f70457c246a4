"""Figures of flows in two dimensions."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments import canvas
from experiments.data import points
from experiments.recipes.recipe import DensityRecipe, VariationalRecipe
from flows import Flow, Potential, compile_flow
from flows.bijections.base import Bijection
from flows.families.planar import Planar

_LAYERS_SHOWN = 8
_REACH = 2.5


def draw_variational(recipe: VariationalRecipe, flow: Flow, path: Path) -> list[Path]:
    """Draw the density beside the potential's, and the effect of each layer on noise."""
    return [_beside_potential(recipe, flow, path), _layer_by_layer(flow, path)]


def draw(recipe: DensityRecipe, flow: Flow, test: Tensor, path: Path) -> Path:
    """Draw test rows, their noise, samples, the true density and that of the flow."""
    compiled = compile_flow(flow)
    noise, _ = compiled.inverse(test.numpy())
    samples = compiled.sample(len(test), seed=0)
    places = canvas.cells((-_REACH, -_REACH), (_REACH, _REACH))
    truth = canvas.as_image(points.DENSITIES[recipe.data](places.numpy()))
    learnt = canvas.density(compiled, places)

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        axes = figure.subplots(1, 5)
        titles = ("test rows", "their noise", "samples")
        for place, rows, title in zip(axes, (test.numpy(), noise, samples), titles, strict=False):
            place.plot(*rows.T, ".", markersize=1.5, alpha=0.5)
            place.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal", title=title)
        extent, brightest = [-_REACH, _REACH, -_REACH, _REACH], 1.25 * float(truth.max())
        canvas.show(axes[3], truth, extent, "true density", brightest=brightest)
        canvas.show(axes[4], learnt, extent, "learnt density", brightest=brightest)

    return canvas.save(path.with_name(f"{path.name}.png"), plot, (15, 3.4))


def _beside_potential(recipe: VariationalRecipe, flow: Flow, path: Path) -> Path:
    target = Potential(recipe.potential)
    window = target.window
    assert window is not None  # noqa: S101  every potential has one
    places = canvas.cells(window.lower, window.upper)
    truth = canvas.as_image(target.log_density(places).exp().numpy())
    learnt = canvas.density(compile_flow(flow), places)
    extent = [window.lower[0], window.upper[0], window.lower[1], window.upper[1]]

    def plot(figure: Any) -> None:  # noqa: ANN401  matplotlib's
        left, right = figure.subplots(1, 2)
        canvas.show(left, truth, extent, f"exp(-{recipe.potential})")
        canvas.show(right, learnt, extent, recipe.title)

    return canvas.save(path.with_name(f"{path.name}.png"), plot, (9, 4.5))


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

    return canvas.save(path.with_name(f"{path.name}-layers.png"), plot, (2 * len(shown), 4.5))


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
