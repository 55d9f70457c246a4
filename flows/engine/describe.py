"""What a flow consists of, as serving and training lay it out for compiled loops."""

from dataclasses import replace

import numpy as np
import torch

from flows.bijections.base import Bijection
from flows.bijections.network_layers import NetworkLayer, Reordering
from flows.engine.description import Description
from flows.engine.serving.packing import PackedFlow, pack_layers
from flows.mixed.density import MixedDensity


def describe(transform: Bijection) -> Description | None:
    """Return what a bijection consists of; None if it has layers that are no networks and maps."""
    if not isinstance(transform, MixedDensity):
        return _described(transform, transform.dim, transform.context_dim)
    layout, made = transform.layout, transform.made
    found = _described(transform.flow, len(layout.continuous), transform.context_dim)
    if found is None:
        return None
    places = {variable.column: place for place, variable in enumerate(layout.variables)}
    states = [places.get(column, -1) for column in layout.continuous]
    sizes = torch.tensor([variable.size for variable in layout.variables])
    numbers = torch.stack([sizes, transform.log_seen.cpu(), transform.log_unseen.cpu()], dim=1)
    return replace(
        found,
        levels=None if made is None else made.network_layer(),
        level_numbers=numbers.float().numpy(),
        states=np.array(states, dtype=np.int64) if layout.masks else None,
        projection=transform.projection,
    )


def _described(transform: Bijection | None, dim: int, context_dim: int) -> Description | None:
    listed = [] if transform is None else transform.network_layers()
    if listed is None:
        return None
    layers, places = [], [np.arange(dim)]
    for layer in listed:
        if isinstance(layer, Reordering):
            places[-1] = np.argsort(layer.order)[places[-1]]
            continue
        layers.append(layer)
        own = np.arange(dim) if layer.places is None else layer.places
        places[-1] = own[places[-1]]
        places.append(np.argsort(own))
    origins = [np.arange(dim)]
    for to in places:
        # The feature that was at i now is at to[i].
        origins.append(origins[-1][np.argsort(to)])
    if transform is not None:
        layers = _with_one_density(layers, last=transform.own_density)
    return Description(dim, context_dim, layers, places, origins[1:])


def _with_one_density(layers: list[NetworkLayer], *, last: bool) -> list[NetworkLayer]:
    """Return the layers of which the last alone may have a density of its own."""
    whole = len(layers) - 1 if last else len(layers)
    plain = [replace(one, map=replace(one.map, own_density=False)) for one in layers[:whole]]
    return [*plain, *layers[whole:]]


@torch.no_grad()
def pack(transform: Bijection) -> PackedFlow | None:
    """Return the bijection as one engine; None if it has other kinds of layers, or no numba.

    It is on the CPU, in evaluation mode and float64, without gradients.
    """
    described = describe(transform)
    return None if described is None else pack_layers(_in_arrays(described))


def _in_arrays(described: Description) -> Description:
    """Return a description whose weights are arrays instead of tensors."""
    levels, projection = described.levels, described.projection
    return replace(
        described,
        layers=[_layer_in_arrays(layer) for layer in described.layers],
        levels=None if levels is None else _layer_in_arrays(levels),
        projection=None if projection is None else projection.numpy(),
    )


def _layer_in_arrays(layer: NetworkLayer) -> NetworkLayer:
    networks = [
        replace(
            network,
            weights=[np.asarray(weight) for weight in network.weights],
            biases=[[np.asarray(bias) for bias in parts] for parts in network.biases],
            context=None if network.context is None else np.asarray(network.context),
            masks=None if network.masks is None else [np.asarray(mask) for mask in network.masks],
        )
        for network in layer.networks
    ]
    return replace(layer, networks=networks)
