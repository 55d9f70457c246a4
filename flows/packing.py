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
        layout = _Layout(places.shape[1], [len(bias) for bias in layers[0].biases], kernels.PANEL)
        params = _aligned(len(layers), layout.size)
        for line, layer in zip(params, layers, strict=True):
            layout.fill(line, layer)
        self._flow = (
            params,
            (layout.table, layout.panels, layout.reach),
            layout.known,
            places.astype(np.int64),
            kernels.ACTIVATIONS.index(layers[0].activation),
        )
        self._noise_affine = np.stack(
            [part[:, 0].double().numpy() for part in (noise_affine.shift, noise_affine.scale)]
        )
        self.size_bytes = params.nbytes

    def invert(
        self, rows: Rows, mean: Doubles, std: Doubles, *, noise: Doubles
    ) -> tuple[Doubles, Doubles]:
        """Log|det du/dx| of rows, constants left out, and the sum of the noise's squares.

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
            exact = np.ascontiguousarray(rows[part], dtype=np.float64)
            results = noise[part], log_det[part], squares[part]
            self._kernels.invert(exact, *self._flow, affine, *results)
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
            exact = np.ascontiguousarray(noise[part], dtype=np.float64)
            self._kernels.sample(exact, *self._flow, affine, rows[part], log_det[part])
        return rows, log_det


class _Layout:
    """Where everything stands, for networks of one shape.

    Attributes:
        table: of `flows.kernels`.
        panels: where each panel of weights starts.
        reach: how many units of the layer below each unit sees.
        known: units known with the first 0, 1, ... features: inputs, then layer by layer.
        size: numbers in the parameters of one network.
    """

    def __init__(self, dim: int, widths: Sequence[int], panel: int) -> None:
        self._panel = panel
        features = np.arange(dim + 1)
        hidden = [np.array(units_known(width, dim)) for width in widths[:-1]]
        known = [features, *hidden, 2 * features]
        seen = [below[1:] for below in known[:-2]] + [known[-2][:-1]]
        reach = [
            np.repeat(below, np.diff(above)) for below, above in zip(seen, known[1:], strict=True)
        ]
        table, panels = [], []
        size, place = 0, 2 * _lines(dim)
        for width, sees in zip(widths, reach, strict=True):
            last = np.minimum(np.arange(panel - 1, width + panel - 1, panel), width - 1)
            starts = size + np.concatenate([[0], np.cumsum(sees[last] * panel)])
            bias = int(starts[-1])
            panels.append(starts[:-1])
            table.append([bias, width, place])
            size, place = bias + _lines(width), place + _lines(width)
        self.table = np.array(table, dtype=np.int64)
        self.panels, self.reach = _padded(panels), _padded(reach)
        self.known = np.stack(known).astype(np.int64)
        self.size = size

    def fill(self, line: npt.NDArray[np.float32], layer: MaskedAffine) -> None:
        """Writes one network's parameters."""
        dim = layer.weights[0].shape[1]
        # Shift and log scale of a feature side by side.
        paired = torch.arange(2 * dim).view(2, dim).t().flatten()
        weights = [*layer.weights[:-1], layer.weights[-1][paired]]
        biases = [*layer.biases[:-1], layer.biases[-1][paired]]
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            first, width = int(self.table[index, 0]), len(bias)
            line[first : first + width] = bias.numpy()
            for number, start in enumerate(range(0, width, self._panel)):
                units = weight[start : start + self._panel].t().numpy()
                depth = int(self.reach[index, min(start + self._panel, width) - 1])
                place = int(self.panels[index, number])
                block = line[place : place + depth * self._panel].reshape(depth, self._panel)
                block[:, : units.shape[1]] = units[:depth]


def _padded(lines: Sequence[Integers]) -> Integers:
    """Lines of different lengths as one array."""
    result = np.zeros((len(lines), max(len(line) for line in lines)), dtype=np.int64)
    for row, line in zip(result, lines, strict=True):
        row[: len(line)] = line
    return result


def _lines(size: int) -> int:
    """The next multiple of a cache line, in numbers."""
    return -(-size // 16) * 16


def _aligned(lines: int, size: int) -> npt.NDArray[np.float32]:
    """Zeros that start at a cache line."""
    size = _lines(size)
    raw = np.zeros(lines * size + 16, dtype=np.float32)
    skip = -raw.ctypes.data // 4 % 16
    return raw[skip : skip + lines * size].reshape(lines, size)
