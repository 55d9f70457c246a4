"""Layers of a compiled flow, laid out in memory for `flows.compiled.kernels`."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flows.bijections.network_layers import LayerNetwork, NetworkLayer
from flows.compiled.packed_fields import ACTIVATIONS, PANEL

Singles = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Geometry:
    """Places of a row's values in a tile, in units; see `flows.compiled.kernels.invert`.

    Attributes:
        variables: Number of discrete variables.
        dim: Number of features.
        context: Number of values that the layers may read before the features.
        given: Number of those that are no levels of the variables.
        masks: True if features may be absent.
    """

    variables: int
    dim: int
    context: int
    given: int
    masks: bool

    @property
    def first_mask(self) -> int:
        """Offset of the masks."""
        return 2 * (self.context + self.dim + self.variables)

    @property
    def first_unit(self) -> int:
        """Offset of the units of the layers."""
        return _up(self.first_mask + self.dim)


@dataclass(frozen=True)
class PackedLayer:
    """Layer in memory.

    Attributes:
        line: Integers that encode the layer.
        units: Number of units of a tile that the layer needs.
        arrays: Arrays that they are addresses of.
    """

    line: Integers
    units: int
    arrays: list[npt.NDArray[np.generic]]

    @property
    def size_bytes(self) -> int:
        """Memory of the arrays, in bytes."""
        return sum(array.nbytes for array in self.arrays)


@dataclass(frozen=True)
class _Matrix:
    """Weights and biases of units, and how many units of the layer below each of them sees."""

    weight: Tensor
    bias: Tensor
    reach: Integers


def pack_layer(
    layer: NetworkLayer,
    geometry: Geometry,
    *,
    address: int,
    origins: Integers,
    level_numbers: Singles | None = None,
) -> PackedLayer:
    """Return the layer in memory.

    Args:
        layer: Layer to lay out.
        geometry: Places in a tile.
        address: Address of its map.
        origins: Number that each feature of the layer has in the data.
        level_numbers: Numbers of the map for each variable, if the layer maps levels.
    """
    networks, known, offsets = _networks_of(layer, geometry, level_numbers)
    arrays: list[npt.NDArray[np.generic]] = [known, offsets]
    place, heads = geometry.first_unit, []
    for matrices, network in zip(networks, layer.networks, strict=True):
        lines, place, parts = _packed_network(matrices, place, PANEL)
        arrays += [*parts, lines]
        heads += [lines.ctypes.data, ACTIVATIONS.index(network.activation)]
    heads += [0] * (4 - len(heads))
    numbers = np.array(layer.map.numbers, dtype=np.float32)
    numbers = numbers if level_numbers is None else level_numbers
    masks = geometry.first_mask + origins.astype(np.int64)
    arrays += [numbers, masks]
    is_masked = layer.degrees is not None
    first = 0 if is_masked else layer.copied
    line = [
        is_masked,
        layer.inverted,
        layer.context,
        first,
        first + len(offsets),
        len(networks[0]),
        *heads,
        known.ctypes.data,
        offsets.ctypes.data,
        address,
        numbers.ctypes.data,
        0 if level_numbers is None else numbers.strides[0],
        layer.map.own_density,
        level_numbers is not None,
        masks.ctypes.data if geometry.masks and level_numbers is None else 0,
        place,
    ]
    return PackedLayer(np.array(line, dtype=np.int64), place + layer.map.scratch, arrays)


def _networks_of(
    layer: NetworkLayer, geometry: Geometry, level_numbers: Singles | None
) -> tuple[list[list[_Matrix]], Integers, Integers]:
    """Return the matrices of each network, the known units, and the offsets of the parameters."""
    if layer.degrees is None:
        networks = [_dense(network, layer.map.outputs, layer) for network in layer.networks]
        step = layer.map.outputs // len(networks)
        count = geometry.dim - layer.copied
        return networks, np.zeros(1, dtype=np.int64), step * np.arange(count, dtype=np.int64)
    if level_numbers is not None:
        counts = level_numbers[:, 0].astype(np.int64)
    else:
        counts = np.full(layer.mapped or geometry.dim, layer.map.outputs)
    known = [_known(degrees, len(counts)) for degrees in layer.degrees]
    known[0] = known[0] + layer.context
    known.append(np.concatenate([[0], np.cumsum(counts)]))
    matrices = _masked(layer.networks[0], known, grouped=level_numbers is not None)
    return [matrices], np.stack(known).astype(np.int64), known[-1][:-1].astype(np.int64)


def _dense(network: LayerNetwork, outputs: int, layer: NetworkLayer) -> list[_Matrix]:
    """Return the matrices of a network without masks, the parameters of a feature side by side."""
    each = outputs // len(layer.networks)
    weights, biases = _grouped(network, each)
    return [
        _Matrix(weight, bias, np.full(len(bias), weight.shape[1]))
        for weight, bias in zip(weights, biases, strict=True)
    ]


def _masked(network: LayerNetwork, known: list[Integers], *, grouped: bool) -> list[_Matrix]:
    """Return the matrices of a masked network, the parameters of a feature side by side."""
    features = len(known[0]) - 1
    outputs = 1 if grouped else len(network.biases[-1]) // max(features, 1)
    weights, biases = _grouped(network, outputs)
    reaches = [
        # A hidden unit sees the units of its own degree, an output only those below.
        np.repeat(below, np.diff(above, prepend=0))
        for below, above in pairwise(known[:-1])
    ]
    reaches.append(np.repeat(known[-2][:-1], np.diff(known[-1])))
    return [
        _Matrix(weight, bias, reach)
        for weight, bias, reach in zip(weights, biases, reaches, strict=True)
    ]


def _grouped(network: LayerNetwork, outputs: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return weights and biases, with the `outputs` parameters of a feature side by side."""
    weights, biases = list(network.weights), list(network.biases)
    order = torch.arange(len(biases[-1])).view(outputs, -1).t().flatten()
    weights[-1], biases[-1] = weights[-1][order], biases[-1][order]
    return weights, biases


def _packed_network(
    matrices: list[_Matrix], place: int, panel: int
) -> tuple[Integers, int, list[npt.NDArray[np.generic]]]:
    """Return the lines of a network's matrices, the offset after its units, and the arrays."""
    lines, arrays = [], []
    for matrix in matrices:
        parts = _packed_matrix(matrix, panel)
        lines.append([len(matrix.bias), place, *(part.ctypes.data for part in parts[:3])])
        arrays += parts
        place += _up(len(matrix.bias))
    return np.array(lines, dtype=np.int64), place, arrays


def _packed_matrix(matrix: _Matrix, panel: int) -> list[npt.NDArray[np.generic]]:
    """Return biases, the addresses of the panels, the reach of the units, and the panels."""
    weight, reach = matrix.weight, matrix.reach
    width = len(matrix.bias)
    biases = _aligned_zeros(_up(width))
    biases[:width] = matrix.bias.numpy()
    ends = np.minimum(np.arange(panel, width + panel, panel), width)
    depths = reach[ends - 1]
    starts = np.cumsum(np.concatenate([[0], panel * depths]))
    panels = _aligned_zeros(int(starts[-1]))
    for end, depth, start in zip(ends, depths, starts, strict=False):
        first = (end - 1) // panel * panel
        block = panels[start : start + panel * depth].reshape(depth, panel)
        block[:, : end - first] = weight[first:end, :depth].t().numpy()
    return [biases, panels.ctypes.data + 4 * starts[:-1], reach.astype(np.int64), panels]


def _known(degrees: Tensor, dim: int) -> Integers:
    """Return how many units, in ascending order of degrees, have one of at most 0, 1, ..., dim."""
    found: Integers = np.searchsorted(degrees.numpy(), np.arange(dim + 1), side="right")
    return found


def _up(size: int) -> int:
    """Return the next multiple of a cache line, in numbers."""
    return -(-size // 16) * 16


def _aligned_zeros(size: int) -> Singles:
    """Return zeros that start at a cache line."""
    raw = np.zeros(size + 16, dtype=np.float32)
    skip = -raw.ctypes.data // 4 % 16
    return raw[skip : skip + size]
