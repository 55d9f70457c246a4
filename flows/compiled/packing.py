"""Compiled flows of affine layers, laid out for `flows.compiled.kernels`, and run by them."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flows.bijections.folding import AffineCoupling, AffineStep, MaskedAffine, Step
from flows.bijections.steps import PermuteStep

log = logging.getLogger(__name__)

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Rows = Singles | Doubles

# Number of rows handed to a kernel at a time, which bounds the float64 copies of a call.
CALL_ROWS = 2048


@functools.cache
def load_kernels() -> ModuleType | None:
    """Return the compiled kernels, or None, after a log message, if numba cannot provide them."""
    try:
        from flows.compiled import kernels  # noqa: PLC0415  importing it compiles
    except Exception as error:  # noqa: BLE001  numba raises many kinds; PyTorch does the same work
        log.warning("PyTorch computes in the place of numba's kernels: %r", error)
        return None
    return kernels


def pack(steps: Sequence[Step], dim: int) -> "PackedFlow | None":
    """Return the steps as one engine; None if there are other kinds of steps, or no numba.

    Args:
        steps: Steps of a whole flow without context, on the CPU in float32, from data to noise.
        dim: Number of features.
    """
    scale, shift = np.ones(dim), np.zeros(dim)
    last = steps[-1] if steps else None
    if isinstance(last, AffineStep):
        steps = steps[:-1]
        scale, shift = last.scale[:, 0].double().numpy(), last.shift[:, 0].double().numpy()
    layers: list[MaskedAffine | AffineCoupling] = []
    places = [np.arange(dim)]
    for step in steps:
        layer = step.affine_layer()
        if isinstance(layer, AffineCoupling):
            places[-1] = layer.places.numpy()[places[-1]]
            layers.append(layer)
            places.append(np.argsort(layer.places.numpy()))
        elif layer is not None:
            layers.append(layer)
            places.append(np.arange(dim))
        elif isinstance(step, PermuteStep):
            places[-1] = step.inverse_order.numpy()[places[-1]]
        else:
            return None
    if not layers or load_kernels() is None:
        return None
    return PackedFlow(layers, np.stack(places), np.stack([shift, scale]))


class PackedFlow:
    """Flow of affine layers, from arrays to arrays.

    It is thread-safe: a call writes only to buffers that it allocates.

    Attributes:
        size_bytes: Memory of its weights, in bytes.
    """

    size_bytes: int

    def __init__(
        self,
        layers: Sequence[MaskedAffine | AffineCoupling],
        places: Integers,
        noise_affine: Doubles,
    ) -> None:
        """Lay out the layers.

        Args:
            layers: Layers from the data to the noise.
            places: Positions of features, as in `flows.compiled.kernels.invert`.
            noise_affine: Shift and scale of the noise, after the last layer.
        """
        kernels = load_kernels()
        assert kernels is not None  # noqa: S101  `pack` looked
        self._kernels = kernels
        self._places = places.astype(np.int64)
        self._noise_affine = noise_affine
        dim = places.shape[1]
        self._keep = [_packed_layer(layer, dim, kernels) for layer in layers]
        self._layers = np.stack([line for line, *_ in self._keep])
        self._units = max(units for _, units, *_ in self._keep)
        self.size_bytes = sum(array.nbytes for *_, arrays in self._keep for array in arrays)

    def __reduce__(self) -> str:
        """Refuse to be pickled: the object consists of addresses.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a packed flow can be neither copied nor pickled")

    def invert(
        self, rows: Rows, mean: Doubles, std: Doubles, *, noise: Doubles
    ) -> tuple[Doubles, Doubles]:
        """Return log|det du/dx| of rows, without constants, and the sum of the squared noise.

        Args:
            rows: Data, to which (x - mean) / std is applied.
            mean: Mean of each feature.
            std: Standard deviation of each feature.
            noise: Output buffer for the noise, or an array of as many rows without columns.
        """
        log_det, squares = np.empty(len(rows)), np.empty(len(rows))
        outputs = noise, log_det, squares
        dtype = np.float32 if rows.dtype == np.float32 else np.float64
        self._call(self._kernels.invert, rows, (mean, std), outputs, dtype=dtype)
        return log_det, squares

    def sample(self, noise: Rows, mean: Doubles, std: Doubles) -> tuple[Doubles, Doubles]:
        """Return data from noise, times std plus mean, and log|det dx/du|, without constants.

        Args:
            noise: Rows of noise.
            mean: Mean of each feature.
            std: Standard deviation of each feature.
        """
        rows, log_det = np.empty(noise.shape), np.empty(len(noise))
        self._call(self._kernels.sample, noise, (mean, std), (rows, log_det))
        return rows, log_det

    def _call(
        self,
        kernel: Callable[..., None],
        rows: Rows,
        moments: tuple[Doubles, Doubles],
        outputs: Sequence[Doubles],
        *,
        dtype: npt.DTypeLike = np.float64,
    ) -> None:
        affine = np.concatenate([*(part[None] for part in moments), self._noise_affine])
        with np.errstate(over="ignore", invalid="ignore"):
            for part in _parts(len(rows)):
                taken = np.require(rows[part], dtype, ["C_CONTIGUOUS", "ALIGNED"])
                results = (output[part] for output in outputs)
                kernel(taken, self._layers, self._units, self._places, affine, *results)


_Array = Singles | Integers


def _packed_layer(
    layer: MaskedAffine | AffineCoupling, dim: int, kernels: ModuleType
) -> tuple[Integers, int, list[_Array]]:
    """Return the integers of a layer (`flows.compiled.kernels`), its tile units, and its arrays."""
    known = np.zeros(1, dtype=np.int64)
    if isinstance(layer, AffineCoupling):
        kind, copied, networks = 0, layer.copied, 2
        matrices = [*layer.minus_log_scale, *layer.minus_shift]
        reach = [np.full(len(bias), weight.shape[1]) for weight, bias in matrices]
    else:
        kind, copied, networks = kernels.ACTIVATIONS.index(layer.activation), 0, 1
        matrices = _paired(layer, dim)
        known = np.stack([*(_known(d, dim) for d in layer.degrees), 2 * np.arange(dim + 1)])
        # A hidden unit sees the units of its own degree, an output only those below.
        seen = [*known[:-2, 1:], known[-2, :-1]]
        reach = [np.repeat(s, np.diff(above)) for s, above in zip(seen, known[1:], strict=True)]
    arrays: list[_Array] = [known]
    lines, place = [], 2 * _up(dim)
    for (weight, bias), sees in zip(matrices, reach, strict=True):
        parts = _packed_matrix(weight, bias, sees, kernels.PANEL)
        lines.append([len(bias), place, *(part.ctypes.data for part in parts[:3])])
        arrays += parts
        place += _up(len(bias))
    arrays.append(np.array(lines))
    addresses = arrays[-1].ctypes.data, known.ctypes.data
    return np.array([kind, copied, len(matrices) // networks, *addresses]), place, arrays


def _packed_matrix(weight: Tensor, bias: Tensor, reach: Integers, panel: int) -> list[_Array]:
    """Return biases, the addresses of the panels, the reach of the units, and the panels."""
    width = len(bias)
    biases = _aligned_zeros(_up(width))
    biases[:width] = bias.numpy()
    ends = np.minimum(np.arange(panel, width + panel, panel), width)
    depths = reach[ends - 1]
    starts = np.cumsum(np.concatenate([[0], panel * depths]))
    panels = _aligned_zeros(int(starts[-1]))
    for end, depth, start in zip(ends, depths, starts, strict=False):
        first = (end - 1) // panel * panel
        block = panels[start : start + panel * depth].reshape(depth, panel)
        block[:, : end - first] = weight[first:end, :depth].t().numpy()
    return [biases, panels.ctypes.data + 4 * starts[:-1], reach.astype(np.int64), panels]


def _paired(layer: MaskedAffine, dim: int) -> list[tuple[Tensor, Tensor]]:
    """Return weights and biases, with shift and log scale of a feature side by side."""
    order = torch.arange(2 * dim).view(2, dim).t().flatten()
    *hidden, (weight, bias) = zip(layer.weights, layer.biases, strict=True)
    return [*hidden, (weight[order], bias[order])]


def _known(degrees: Tensor, dim: int) -> Integers:
    """Return how many units, in ascending order of degrees, have one of at most 0, 1, ..., dim."""
    return np.searchsorted(degrees.numpy(), np.arange(dim + 1), side="right")


def _parts(rows: int) -> Iterator[slice]:
    return (slice(start, start + CALL_ROWS) for start in range(0, rows, CALL_ROWS))


def _up(size: int) -> int:
    """Return the next multiple of a cache line, in numbers."""
    return -(-size // 16) * 16


def _aligned_zeros(size: int) -> Singles:
    """Return zeros that start at a cache line."""
    raw = np.zeros(size + 16, dtype=np.float32)
    skip = -raw.ctypes.data // 4 % 16
    return raw[skip : skip + size]
