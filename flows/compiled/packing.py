"""Compiled flows laid out for `flows.compiled.kernels`, and run by them."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch

from flows.bijections.base import Bijection
from flows.bijections.network_layers import NetworkLayer, Reordering
from flows.compiled.packed_fields import DENSITY, INVERSE, LAYER_SIZE
from flows.compiled.packed_layers import Geometry, Integers, PackedLayer, Singles, pack_layer
from flows.mixed.density import MixedDensity

log = logging.getLogger(__name__)

Doubles = npt.NDArray[np.float64]
Rows = Singles | Doubles

# Number of rows handed to a kernel at a time, which bounds the float64 copies of a call.
CALL_ROWS = 2048
# Most levels of all variables of a row: a tile holds a number for each.
MOST_LEVELS = 2048


@functools.cache
def load_kernels() -> ModuleType | None:
    """Return the compiled kernels, or None, after a log message, if numba cannot provide them."""
    try:
        from flows.compiled import kernels  # noqa: PLC0415  importing it compiles
    except Exception as error:  # noqa: BLE001  numba raises many kinds; PyTorch does the same work
        log.warning("PyTorch computes in the place of numba's kernels: %r", error)
        return None
    return kernels


@dataclass(frozen=True)
class _Structure:
    """Layers of a flow, and what stands beside its features.

    Attributes:
        layers: Layers and permutations, from the data to the noise.
        dim: Number of features.
        given: Number of context values.
        levels: Layer of the levels of discrete variables, if there are any.
        level_numbers: Numbers of levels and the logarithms that are added for seen and unseen ones.
        states: Variable whose index 0 says that a feature is observed, -1 for none.
    """

    layers: list[NetworkLayer | Reordering]
    dim: int
    given: int
    levels: NetworkLayer | None = None
    level_numbers: Singles = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    states: Integers | None = None


@torch.no_grad()
def pack(transform: Bijection, context_dim: int) -> "PackedFlow | None":
    """Return the bijection as one engine; None if it has other kinds of layers, or no numba.

    Args:
        transform: Bijection on the CPU, in evaluation mode and float64, without gradients.
        context_dim: Number of values of the encoded context.
    """
    if isinstance(transform, MixedDensity):
        structure = _mixed(transform, context_dim)
    else:
        layers = _layers_of(transform)
        structure = None if layers is None else _Structure(layers, transform.dim, context_dim)
    if structure is None or not (structure.layers or structure.levels):
        return None
    kernels = load_kernels()
    addresses = None if kernels is None else _map_addresses(structure)
    if kernels is None or addresses is None:
        return None
    return PackedFlow(structure, kernels, addresses)


def _layers_of(transform: Bijection) -> list[NetworkLayer | Reordering] | None:
    """Return the layers of a bijection, of which the last alone may have a density of its own."""
    layers = transform.network_layers()
    if layers is None:
        return None
    last = len(layers) - 1 if transform.own_density else len(layers)
    return [*map(_without_density, layers[:last]), *layers[last:]]


def _without_density(layer: NetworkLayer | Reordering) -> NetworkLayer | Reordering:
    if isinstance(layer, Reordering):
        return layer
    return replace(layer, map=replace(layer.map, own_density=False))


def _mixed(density: MixedDensity, context_dim: int) -> _Structure | None:
    """Return the structure of a density of mixed rows."""
    layout, made = density.layout, density.made
    layers = [] if density.flow is None else _layers_of(density.flow)
    if layers is None or layout.slots > MOST_LEVELS:
        return None
    places = {variable.column: place for place, variable in enumerate(layout.variables)}
    states = [places.get(column, -1) for column in layout.continuous]
    log_seen, log_unseen = density.log_shares
    numbers = [[v.size, 0.0 if v.is_state else log_seen, log_unseen] for v in layout.variables]
    return _Structure(
        [_given_levels(layer, density, context_dim) for layer in layers],
        len(layout.continuous),
        context_dim,
        None if made is None else made.network_layer(),
        np.array(numbers, dtype=np.float32).reshape(-1, 3),
        np.array(states, dtype=np.int64) if layout.masks else None,
    )


def _given_levels(
    layer: NetworkLayer | Reordering, density: MixedDensity, context_dim: int
) -> NetworkLayer | Reordering:
    """Return the layer with its context in the order of a tile: context, then all levels."""
    if isinstance(layer, Reordering) or layer.context == 0:
        return layer
    networks, width = [], 0
    for network in layer.networks:
        first = network.weights[0]
        levels, context, rest = first.tensor_split(
            [layer.context - context_dim, layer.context], dim=1
        )
        if density.projection is not None:
            levels = levels @ density.projection
        weights = [torch.cat([context, levels, rest], dim=1), *network.weights[1:]]
        networks.append(replace(network, weights=weights))
        width = context_dim + levels.shape[1]
    return replace(layer, networks=networks, context=width)


def _map_addresses(structure: _Structure) -> dict[str, int] | None:
    """Return the addresses of all maps, which are compiled; None if one is unknown."""
    from flows.compiled.loops.maps import map_address  # noqa: PLC0415  after it is known that numba works

    layers = [layer for layer in structure.layers if isinstance(layer, NetworkLayer)]
    if structure.levels is not None:
        layers.append(structure.levels)
    addresses: dict[str, int] = {}
    for layer in layers:
        address = map_address(layer.map.kind)
        if address is None:
            return None
        addresses[layer.map.kind] = address
    return addresses


@dataclass(frozen=True)
class Scores:
    """Terms of the log densities of rows, without the flow's constants.

    Attributes:
        log_det: log|det du/dx|.
        squares: Sum of u^2 + log(2 pi) over the noise of the observed features.
        discrete: Log probability of the discrete variables.
    """

    log_det: Doubles
    squares: Doubles
    discrete: Doubles


class PackedFlow:
    """Flow of layers with compiled maps, from arrays to arrays.

    Rows are the indices of discrete variables, features, and an encoded context, as far as there are
    such. It is thread-safe: a call writes only to buffers that it allocates.

    Attributes:
        size_bytes: Memory of its weights, in bytes.
    """

    size_bytes: int

    def __init__(
        self,
        structure: _Structure,
        kernels: ModuleType,
        addresses: dict[str, int],
    ) -> None:
        """Lay out the layers.

        Args:
            structure: Structure of the flow.
            kernels: The compiled loops.
            addresses: Addresses of the maps.
        """
        self._kernels = kernels
        numbers, dim = structure.level_numbers, structure.dim
        slots = int(numbers[:, 0].sum())
        is_masked = structure.states is not None
        geometry = Geometry(len(numbers), dim, structure.given + slots, structure.given, is_masked)
        layers, places, origins = _placed(structure.layers, dim)
        self._keep = [
            pack_layer(layer, geometry, address=addresses[layer.map.kind], origins=origin)
            for layer, origin in zip(layers, origins, strict=False)
        ]
        levels = []
        if structure.levels is not None:
            address = addresses[structure.levels.map.kind]
            levels.append(
                pack_layer(
                    structure.levels,
                    geometry,
                    address=address,
                    origins=np.arange(0),
                    level_numbers=numbers,
                )
            )
        self._layers, self._levels = _lines(self._keep), _lines(levels)
        self._keep += levels
        self._places = np.stack(places).astype(np.int64)
        self._states = None if structure.states is None else structure.states.copy()
        self._noise_masks = geometry.first_mask + origins[-1].astype(np.int64)
        self._shape = np.array(
            [
                max([geometry.first_unit, *(layer.units for layer in self._keep)]),
                geometry.variables,
                dim,
                geometry.context,
                geometry.given,
                0 if self._states is None else self._states.ctypes.data,
                self._noise_masks.ctypes.data if is_masked else 0,
            ],
            dtype=np.int64,
        )
        self._unchanged = np.stack([np.zeros(dim), np.ones(dim)])
        self._width = geometry.variables + dim
        self.size_bytes = sum(layer.size_bytes for layer in self._keep)

    def __reduce__(self) -> str:
        """Refuse to be pickled: the object consists of addresses.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a packed flow can be neither copied nor pickled")

    def score(
        self, rows: Rows, affine: Doubles | None = None, *, noise: Doubles | None = None
    ) -> Scores:
        """Return the terms of the log density of each row.

        Args:
            rows: Rows of data.
            affine: Mean and deviation of each feature, a line each, that data are standardised by;
                without one, features are taken as they are.
            noise: Output buffer for the noise; without one, layers with a density of their own give
                that.
        """
        count, kernels = len(rows), self._kernels
        found = Scores(np.empty(count), np.empty(count), np.empty(count))
        kept = np.empty((count, 0)) if noise is None else noise
        direction = DENSITY if noise is None else INVERSE
        outputs = kept, found.log_det, found.squares, found.discrete
        self._call(kernels.invert, rows, affine, (direction,), outputs)
        return found

    def sample(self, noise: Rows, affine: Doubles | None = None) -> tuple[Doubles, Doubles]:
        """Return data from noise, and log|det dx/du| without constants.

        Args:
            noise: Rows of noise, and of context.
            affine: Mean and deviation of each feature, as for `score`.
        """
        rows, log_det = np.empty((len(noise), self._width)), np.empty(len(noise))
        self._call(self._kernels.sample, noise, affine, (), (rows, log_det))
        return rows, log_det

    def _call(
        self,
        kernel: Callable[..., None],
        rows: Rows,
        affine: Doubles | None,
        options: tuple[int, ...],
        outputs: Sequence[Doubles],
    ) -> None:
        affine = self._unchanged if affine is None else affine
        model = self._shape, self._layers, self._levels, self._places, affine
        for start in range(0, len(rows), CALL_ROWS):
            part = slice(start, start + CALL_ROWS)
            taken = np.require(rows[part], np.float64, ("C_CONTIGUOUS", "ALIGNED"))
            kernel(taken, *model, *options, *(output[part] for output in outputs))


def _placed(
    listed: Sequence[NetworkLayer | Reordering], dim: int
) -> tuple[list[NetworkLayer], list[Integers], list[Integers]]:
    """Return the layers alone; where each puts its noise; and what each of its features is in the data.

    The positions are those that `flows.compiled.kernels.invert` takes.
    """
    layers, places = [], [np.arange(dim)]
    for layer in listed:
        if isinstance(layer, Reordering):
            places[-1] = torch.argsort(layer.order).numpy()[places[-1]]
            continue
        layers.append(layer)
        own = np.arange(dim) if layer.places is None else layer.places.numpy()
        places[-1] = own[places[-1]]
        places.append(np.argsort(own))
    origins = [np.arange(dim)]
    for to in places:
        # The feature that was at i now is at to[i].
        origins.append(origins[-1][np.argsort(to)])
    return layers, places, origins[1:]


def _lines(layers: Sequence[PackedLayer]) -> Integers:
    """Return the integers of layers, a line each."""
    lines = [layer.line for layer in layers]
    return np.array(lines, dtype=np.int64).reshape(len(lines), LAYER_SIZE)
