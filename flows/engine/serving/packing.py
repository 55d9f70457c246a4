"""Compiled flows laid out for `flows.engine.serving.kernels`, and run by them."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from flows.engine.description import Description, Doubles, Integers, Singles
from flows.engine.fields import DENSITY, INVERSE, LAYER_SIZE
from flows.engine.serving.layers import PackedLayer, first_mask, first_unit, pack_layer

log = logging.getLogger(__name__)

Rows = Singles | Doubles

# Number of rows handed to a kernel at a time, which bounds the float64 copies of a call.
CALL_ROWS = 2048
# Most levels of all variables of a row: a tile holds a number for each.
MOST_LEVELS = 2048


@functools.cache
def load_kernels() -> ModuleType | None:
    """Return the compiled kernels, or None, after a log message, if numba cannot provide them."""
    try:
        from flows.engine.loop_cache import one_process  # noqa: PLC0415  numba may be missing

        with one_process("serving"):
            from flows.engine.serving import kernels  # noqa: PLC0415  importing it compiles
    except Exception as error:  # noqa: BLE001  numba raises many kinds; PyTorch does the same work
        log.warning("PyTorch computes in the place of numba's kernels: %r", error)
        return None
    return kernels


def pack_layers(described: Description | None) -> "PackedFlow | None":
    """Return layers of arrays as one engine; None if there are none, or no numba."""
    if described is None or described.slots > MOST_LEVELS:
        return None
    layers = [*described.layers, *([described.levels] if described.levels else [])]
    kernels = load_kernels()
    if kernels is None or not layers:
        return None
    addresses = load_maps([layer.map.kind for layer in layers])
    known = [address for address in addresses if address is not None]
    return PackedFlow(described, kernels, known) if len(known) == len(addresses) else None


def load_maps(kinds: Sequence[str]) -> list[int | None]:
    """Return the addresses of maps, compiled or loaded beside the kernels; None for those that there are not."""
    if load_kernels() is None:
        return [None] * len(kinds)
    from flows.engine.maps.registry import map_address  # noqa: PLC0415  numba is there

    return [map_address(kind) for kind in kinds]


@dataclass(frozen=True)
class Scores:
    """Terms of the log densities of rows, without the flow's constants.

    They are log|det du/dx|; the sum of u^2 + log(2 pi) over the noise of the observed features; and the
    log probability of the discrete variables.
    """

    log_det: Doubles
    squares: Doubles
    discrete: Doubles


class PackedFlow:
    """Flow of layers with compiled maps, from arrays to arrays.

    Rows are the indices of discrete variables, features, and an encoded context, as far as there are
    such. It is thread-safe: a call writes only to buffers that it allocates.
    """

    def __init__(
        self, described: Description, kernels: ModuleType, addresses: Sequence[int]
    ) -> None:
        """Lay out the layers, with the addresses of their maps, then of that of the levels."""
        self._kernels = kernels
        dim, given = described.dim, described.context_dim
        self._states = None if described.states is None else described.states.copy()
        pairs = zip(described.layers, described.origins, addresses, strict=False)
        layers = [
            pack_layer(layer, described, address=address, origins=origins)
            for layer, origins, address in pairs
        ]
        levels = []
        if described.levels is not None:
            last = addresses[-1]
            levels = [pack_layer(described.levels, described, address=last, origins=None)]
        self._layers, self._levels = _lines(layers), _lines(levels)
        self._keep = [*layers, *levels]
        self._places = np.stack(described.places).astype(np.int64)
        self._noise_masks = first_mask(described) + described.origins[-1].astype(np.int64)
        self._shape = np.array(
            [
                max([first_unit(described), *(layer.units for layer in self._keep)]),
                described.variables,
                dim,
                given + described.slots,
                given,
                0 if self._states is None else self._states.ctypes.data,
                self._noise_masks.ctypes.data if self._states is not None else 0,
            ],
            dtype=np.int64,
        )
        self._unchanged = np.stack([np.zeros(dim), np.ones(dim)])
        self._width = described.variables + dim
        self.size_bytes = sum(array.nbytes for layer in self._keep for array in layer.arrays)

    def __reduce__(self) -> str:
        raise TypeError("a packed flow can be neither copied nor pickled")

    def score(
        self, rows: Rows, affine: Doubles | None = None, *, noise: Doubles | None = None
    ) -> Scores:
        """Return the terms of the log density of each row.

        `affine` has the mean and the deviation of each feature, a line each, that data are standardised
        by. `noise` is an output buffer; without one, layers with a density of their own give that.
        """
        count, kernels = len(rows), self._kernels
        found = Scores(np.empty(count), np.empty(count), np.empty(count))
        kept = np.empty((count, 0)) if noise is None else noise
        direction = DENSITY if noise is None else INVERSE
        outputs = kept, found.log_det, found.squares, found.discrete
        self._call(kernels.invert, rows, affine, (direction,), outputs)
        return found

    def sample(self, noise: Rows, affine: Doubles | None = None) -> tuple[Doubles, Doubles]:
        """Return data from noise, and log|det dx/du| without constants."""
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


def _lines(layers: Sequence[PackedLayer]) -> Integers:
    """Return the integers of layers, a line each."""
    lines = [layer.line for layer in layers]
    return np.array(lines, dtype=np.int64).reshape(len(lines), LAYER_SIZE)
