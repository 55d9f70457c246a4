"""Folded chains of masked affine layers, laid out for `flows.kernels`, and run by them."""

import functools
import logging
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flows.folding import AffineStep, MaskedAffine, PermuteStep, Step
from flows.masks import units_known

log = logging.getLogger(__name__)

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32] | Doubles

# Rows handed to a kernel at a time: a copy in float64 of so many is what a call takes.
CALL_ROWS = 2048
# The sampler takes so many features at a time that a tile has about so many units of each layer.
BLOCK_UNITS = 48


@functools.cache
def load_kernels() -> ModuleType | None:
    """The compiled kernels, or None, after one line in the log, where they cannot be had."""
    try:
        from flows import kernels  # noqa: PLC0415  importing it compiles
    except Exception as error:  # noqa: BLE001  whatever numba raises, PyTorch does the same work
        log.warning("PyTorch computes in the place of numba's kernels: %r", error)
        return None
    return kernels


def pack(steps: Sequence[Step]) -> "PackedFlow | None":
    """The steps as one engine, or None where they are another kind or numba is missing.

    Args:
        steps: of a whole flow on the CPU in float32, from the data to the noise.
    """
    if not isinstance(steps[-1], AffineStep):
        return None
    layers: list[MaskedAffine] = []
    place = np.arange(len(steps[-1].scale))
    places = [place]
    for step in steps[:-1]:
        layer = step.masked_affine()
        if layer is not None:
            layers.append(layer)
            places.append(place)
        elif isinstance(step, PermuteStep):
            places[-1] = step.inverse_order.numpy()[places[-1]]
        else:
            return None
    if not _alike(layers) or load_kernels() is None:
        return None
    return PackedFlow(layers, np.stack(places), steps[-1])


def _alike(layers: Sequence[MaskedAffine]) -> bool:
    """Whether there are layers, with hidden units, of one shape and activation."""
    return (
        len(layers) > 0
        and len(layers[0].weights) > 1
        and len({(layer.activation, *(len(b) for b in layer.biases)) for layer in layers}) == 1
    )


class PackedFlow:
    """A flow whose layers are all masked and affine, from arrays to arrays.

    Threads may share it: what a call writes, it allocates.

    Attributes:
        size_bytes: memory that it holds.
    """

    size_bytes: int

    def __init__(
        self, layers: Sequence[MaskedAffine], places: Integers, noise_affine: AffineStep
    ) -> None:
        """See `pack`; `places` are those of `flows.kernels.invert`."""
        kernels = load_kernels()
        assert kernels is not None  # noqa: S101  `pack` looked
        self._kernels = kernels
        self._dim = places.shape[1]
        widths = [len(bias) for bias in layers[0].biases]
        self._table, size = _table(self._dim, widths)
        self._params = _aligned(len(layers), size)
        for line, layer in zip(self._params, layers, strict=True):
            _fill(line, self._table, layer)
        self._known, self._reach = _known(self._dim, widths[:-1])
        self._places = places.astype(np.int64)
        self._kind = kernels.ACTIVATIONS.index(layers[0].activation)
        self._block = max(1, round(BLOCK_UNITS * self._dim / max(widths[:-1])))
        self._noise_affine = np.stack(
            [part[:, 0].double().numpy() for part in (noise_affine.shift, noise_affine.scale)]
        )
        self.size_bytes = self._params.nbytes

    def invert(
        self, rows: Rows, mean: Doubles, std: Doubles, *, noise: Doubles
    ) -> tuple[Doubles, Doubles]:
        """Log|det du/dx| of rows, constants left out, and half of the noise's squares' sum.

        Args:
            rows: data, to which (x - mean) / std is applied.
            mean: of the features.
            std: of the features.
            noise: where it goes, or an array of as many rows without columns.
        """
        log_det, squares = np.empty(len(rows)), np.empty(len(rows))
        affine = np.stack([mean, std, *self._noise_affine])
        for start in range(0, len(rows), CALL_ROWS):
            part = slice(start, start + CALL_ROWS)
            self._kernels.invert(
                np.ascontiguousarray(rows[part], dtype=np.float64),
                self._params,
                self._table,
                self._known,
                self._reach,
                self._places,
                self._kind,
                affine,
                noise[part],
                log_det[part],
                squares[part],
            )
        return log_det, squares

    def sample(self, noise: Rows, mean: Doubles, std: Doubles) -> tuple[Doubles, Doubles]:
        """Data from noise, times std plus mean, and log|det dx/du|, constants left out.

        Args:
            noise: rows.
            mean: of the features.
            std: of the features.
        """
        rows, log_det = np.empty(noise.shape), np.empty(len(noise))
        affine = np.stack([mean, std, *self._noise_affine])
        for start in range(0, len(rows), CALL_ROWS):
            part = slice(start, start + CALL_ROWS)
            self._kernels.sample(
                np.ascontiguousarray(noise[part], dtype=np.float64),
                self._params,
                self._table,
                self._known,
                self._places,
                self._kind,
                affine,
                self._block,
                rows[part],
                log_det[part],
            )
        return rows, log_det


def _up(size: int, lanes: int = 16) -> int:
    """The next multiple of a cache line, in numbers."""
    return -(-size // lanes) * lanes


def _table(dim: int, widths: Sequence[int]) -> tuple[Integers, int]:
    """The table of the kernels, and the numbers in a layer's parameters.

    The first matrix has its inputs first, the others their units. A line is longer than it need
    be: powers of 2 apart, neighbours would share their places in the processor's cache.
    """
    table = []
    offset, place, below = 0, 2 * _up(dim), dim
    for index, width in enumerate(widths):
        if index == 0:
            strides, lines = (1, _up(width) + 16), dim
        else:
            strides, lines = (_up(below) + 16, 1), width
        bias = offset + lines * max(strides)
        table.append([offset, bias, *strides, width, place])
        offset, place, below = bias + _up(width), place + _up(width), width
    return np.array(table, dtype=np.int64), offset


def _aligned(lines: int, size: int) -> npt.NDArray[np.float32]:
    """Zeros that start at a cache line."""
    raw = np.zeros(lines * size + 16, dtype=np.float32)
    skip = -raw.ctypes.data // 4 % 16
    return raw[skip : skip + lines * size].reshape(lines, size)


def _fill(line: npt.NDArray[np.float32], table: Integers, layer: MaskedAffine) -> None:
    dim = layer.weights[0].shape[1]
    for index, (row, weight, bias) in enumerate(
        zip(table, layer.weights, layer.biases, strict=True)
    ):
        place, bias_place, width = int(row[0]), int(row[1]), int(row[4])
        stored = weight.t() if index == 0 else _paired(weight, dim, index == len(table) - 1)
        matrix = line[place:bias_place].reshape(len(stored), -1)
        matrix[:, : stored.shape[1]] = stored.numpy()
        line[bias_place : bias_place + width] = _paired(bias, dim, index == len(table) - 1).numpy()


def _paired(tensor: Tensor, dim: int, is_output: bool) -> Tensor:  # noqa: FBT001  private
    """Outputs with shift and log scale of a feature side by side; other layers as they are."""
    return tensor[torch.arange(2 * dim).view(2, dim).t().flatten()] if is_output else tensor


def _known(dim: int, hidden: Sequence[int]) -> tuple[Integers, Integers]:
    """Units known with the first 0, 1, ... features; and how many units below a unit sees."""
    features = np.arange(dim + 1)
    known = [features, *(np.array(units_known(width, dim)) for width in hidden), 2 * features]
    reach = np.zeros((len(hidden) + 1, max(*hidden, 2 * dim)), dtype=np.int64)
    for index, (below, above) in enumerate(zip(known[:-1], known[1:], strict=True)):
        seen = below[:-1] if index == len(hidden) else below[1:]
        reach[index, : above[-1]] = np.repeat(seen, np.diff(above))
    return np.stack(known).astype(np.int64), reach
