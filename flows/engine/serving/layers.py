"""Layers of a compiled flow, laid out in memory for `flows.engine.serving.kernels`."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from flows.bijections.network_layers import LayerNetwork, NetworkLayer
from flows.engine.description import Description, Doubles, Integers, Singles
from flows.engine.fields import ACTIVATIONS, PANEL

Arrays = list[npt.NDArray[np.generic]]
Floats = Singles | Doubles


def first_mask(described: Description) -> int:
    """Return the offset of the masks in a tile: after context, features and variables, each twice."""
    context = described.context_dim + described.slots
    return 2 * (context + described.dim + described.variables)


def first_unit(described: Description) -> int:
    """Return the offset of the units of the layers in a tile."""
    return _up(first_mask(described) + described.dim)


@dataclass(frozen=True)
class PackedLayer:
    """Layer in memory: integers, the arrays they are addresses of, and how many units of a tile it needs."""

    line: Integers
    units: int
    arrays: Arrays


@dataclass(frozen=True)
class _Network:
    """Network without masks: what it reads of the context, so many values, comes before the features.

    `reaches` say how many units of the layer below each unit sees, layer by layer.
    """

    weights: list[Floats]
    biases: list[Floats]
    reaches: list[Integers]
    context: int


def pack_layer(
    layer: NetworkLayer,
    described: Description,
    *,
    address: int,
    origins: Integers | None,
) -> PackedLayer:
    """Return a layer of a flow in memory, with the address of its map.

    `origins` are the numbers that its features have in the data; the layer of levels has none.
    """
    sizes = described.level_numbers[:, 0].astype(np.int64) if origins is None else None
    known = _known(layer, described.dim, sizes)
    folded = [_folded(network, layer, described, known) for network in layer.networks]
    if known is None:
        count, known = described.dim - layer.copied, np.zeros((1, 1), dtype=np.int64)
        offsets = layer.map.outputs // len(folded) * np.arange(count, dtype=np.int64)
    else:
        known[0] += folded[0].context
        offsets = known[-1][:-1].copy()
    arrays: Arrays = [known, offsets]
    place, heads = first_unit(described), []
    for matrices, network in zip(folded, layer.networks, strict=True):
        lines, place, parts = _packed_network(matrices, place)
        arrays += [*parts, lines]
        heads += [lines.ctypes.data, ACTIVATIONS.index(network.activation)]
    numbers = np.array(layer.map.numbers, dtype=np.float32)
    numbers = numbers if sizes is None else described.level_numbers
    masks = np.arange(0) if origins is None else first_mask(described) + origins.astype(np.int64)
    arrays += [numbers, masks]
    first = layer.copied if layer.degrees is None else 0
    line = [
        address,
        first,
        first + len(offsets),
        offsets.ctypes.data,
        numbers.ctypes.data,
        0 if sizes is None else numbers.strides[0],
        masks.ctypes.data if described.states is not None and origins is not None else 0,
        place,
        len(folded[0].weights),
        layer.degrees is not None,
        layer.inverted,
        folded[0].context,
        *heads,
        *[0] * (4 - len(heads)),
        known.ctypes.data,
        layer.map.own_density,
        sizes is not None,
    ]
    return PackedLayer(np.array(line, dtype=np.int64), place + layer.map.scratch, arrays)


def _known(layer: NetworkLayer, dim: int, sizes: Integers | None) -> Integers | None:
    """Return how many units of a masked network are known with the first 0, 1, ... features.

    There is a line for the inputs, for each hidden layer and for the parameters.
    """
    if layer.degrees is None:
        return None
    inputs, *hidden = layer.degrees
    counts = np.full(layer.reads(dim), layer.map.outputs)
    if sizes is not None:  # of a single variable, too, which reads nothing
        counts, inputs = (
            sizes,
            np.repeat(np.arange(1, len(sizes) + 1), sizes),
        )
    numbers = np.arange(len(counts) + 1)
    known = [np.searchsorted(one, numbers, side="right") for one in (inputs, *hidden)]
    return np.stack([*known, np.concatenate([[0], np.cumsum(counts)])]).astype(np.int64)


def _folded(
    network: LayerNetwork, layer: NetworkLayer, described: Description, known: Integers | None
) -> _Network:
    """Return a network without masks, the parameters of a feature side by side.

    `known` are the known units of the layer, without the context.
    """
    weights = list(network.weights)
    if network.masks is not None:
        weights = [weight * mask for weight, mask in zip(weights, network.masks, strict=True)]
    biases = [np.concatenate(list(parts)) for parts in network.biases]
    read = layer.copied if known is None else int(known[0, -1])
    if known is not None and len(weights) == 1:  # it may see nothing, and have no weights for that
        missing = read - weights[0].shape[1]
        weights[0] = np.pad(weights[0], ((0, 0), (0, missing)))
    context = weights[0][:, read:] if network.context is None else network.context
    if layer is not described.levels:
        levels, given = np.split(context, [context.shape[1] - described.context_dim], axis=1)
        if described.projection is not None and levels.shape[1]:
            levels = levels @ described.projection
        context = np.concatenate([given, levels], axis=1) if layer.context else context
    weights[0] = np.concatenate([context, weights[0][:, :read]], axis=1)
    order = _order(layer, len(biases[-1]))
    weights[-1], biases[-1] = weights[-1][order], biases[-1][order]
    if known is None:
        reaches = [np.full(len(weight), weight.shape[1]) for weight in weights]
    else:
        known = known + np.array([[context.shape[1]], *[[0]] * (len(known) - 1)])
        # A hidden unit sees the units of its own degree, an output only those below.
        reaches = [
            np.repeat(below, np.diff(above, prepend=0)) for below, above in pairwise(known[:-1])
        ]
        reaches.append(np.repeat(known[-2][:-1], np.diff(known[-1])))
    return _Network(weights, biases, reaches, context.shape[1])


def _order(layer: NetworkLayer, units: int) -> Integers:
    """Return the last units of a network, the parameters of a feature side by side."""
    if layer.outputs is not None:
        return np.concatenate([np.arange(one.start, one.stop) for one in layer.outputs])
    each = layer.map.outputs // len(layer.networks)
    return np.arange(units).reshape(each, -1).T.ravel()


def _packed_network(network: _Network, place: int) -> tuple[Integers, int, Arrays]:
    """Return the lines of a network's matrices, the offset after its units, and the arrays."""
    lines, arrays = [], Arrays()
    for matrix in zip(network.weights, network.biases, network.reaches, strict=True):
        parts = _packed_matrix(*matrix)
        width = len(matrix[1])
        lines.append([width, place, *(part.ctypes.data for part in parts[:3])])
        arrays += parts
        place += _up(width)
    return np.array(lines, dtype=np.int64), place, arrays


def _packed_matrix(weight: Floats, bias: Floats, reach: Integers) -> Arrays:
    """Return biases, the addresses of the panels, the reach of the units, and the panels."""
    width = len(bias)
    biases = aligned_zeros(_up(width))
    biases[:width] = bias
    ends = np.minimum(np.arange(PANEL, width + PANEL, PANEL), width)
    depths = reach[ends - 1]
    starts = np.cumsum(np.concatenate([[0], PANEL * depths]))
    panels = aligned_zeros(int(starts[-1]))
    for end, depth, start in zip(ends, depths, starts, strict=False):
        first = (end - 1) // PANEL * PANEL
        block = panels[start : start + PANEL * depth].reshape(depth, PANEL)
        block[:, : end - first] = weight[first:end, :depth].T
    return [biases, panels.ctypes.data + 4 * starts[:-1], reach.astype(np.int64), panels]


def _up(size: int) -> int:
    """Return the next multiple of a cache line, in numbers."""
    return -(-size // 16) * 16


def aligned_zeros(size: int) -> Singles:
    """Return zeros that start at a cache line."""
    raw = np.zeros(size + 16, dtype=np.float32)
    skip = -raw.ctypes.data // 4 % 16
    return raw[skip : skip + size]
