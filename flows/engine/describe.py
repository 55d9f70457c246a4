"""What a flow consists of, as serving and training lay it out for compiled loops."""

from dataclasses import replace

import numpy as np
import torch

from flows.bijections.base import Bijection
from flows.bijections.network_layers import NetworkLayer
from flows.engine.description import Description, arrange
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
    own_density = transform is not None and transform.own_density
    return arrange(listed, dim, context_dim, own_density=own_density)


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
