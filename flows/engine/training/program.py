"""Programs of `flows.engine.training.kernels`: integers that say what to compute where."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from flows.bijections.base import Bijection
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.network_layers import LayerNetwork, NetworkLayer
from flows.engine.describe import describe
from flows.engine.description import Description, Integers
from flows.engine.fields import ACTIVATIONS
from flows.engine.training.fields import LAYER_FIELDS, MAPPED, MATRIX_FIELDS, NORM

# Those whose gradient follows from their results.
TRAINED = ACTIVATIONS[:3]
# Rows of a weight from this width on move only as far as their masks let them through.
_WIDE = 128
_VECTOR = 16


class UnsupportedError(Exception):
    """A flow has a part without compiled loops."""


class Segment(NamedTuple):
    """Part of the flat vector."""

    start: int
    length: int


def compile_program(transform: Bijection, parameters: Sequence[Tensor]) -> "Program":
    """Return the program of a flow, all of whose parameters move.

    Raises:
        UnsupportedError: A part of the flow has no compiled loops.
    """
    described = describe(transform)
    if described is None:
        raise UnsupportedError("a layer that is no network and maps")
    if described.projection is not None or not described.layers:
        raise UnsupportedError("no continuous values, or many levels")
    program = Program(described)
    if {id(parameter) for parameter in parameters} != set(program.starts):
        raise UnsupportedError("parameters outside of the layers")
    if any(parameter.dtype != torch.float32 for parameter in parameters):
        raise UnsupportedError("another precision than float32")
    return program


class _Source(NamedTuple):
    """Values that a network reads: their block, its width, the block of their gradients, and how many."""

    block: int
    width: int
    grad: int
    read: int


class Program:
    """Program of a flow, and the layout of its parameters in one flat vector.

    Attributes:
        dim, context_dim, variables: Numbers of features, of values of the context, levels included, and of
            discrete variables.
        parameters, starts, size: Parameters in the order of the flat vector, the start of each of them by
            its id, and the length of the vector.
        segments: Parts of the flat vector that move.
        norms: Batch norms.
        maps: Name of the map of each layer; of a batch norm an empty one.
        layers: Lines of the layers, in which the addresses of the maps are missing.
        matrices, index: Lines of their matrices, and numbers that these refer to.
        units, grad_units: Units of values, and of their gradients.
        widest: Most inputs of a matrix.
        blocks: Blocks of a batch.
    """

    def __init__(self, described: Description) -> None:
        """Write the program.

        Raises:
            UnsupportedError: A layer has no compiled loops.
        """
        self.dim, self.variables = described.dim, described.variables
        self.context_dim = described.slots + described.context_dim
        self.parameters: list[Tensor] = []
        self.starts: dict[int, int] = {}
        self.size = self.units = self.grad_units = 0
        self.widest = 1
        self.segments: list[Segment] = []
        self.norms: list[BatchNorm] = []
        self.maps: list[str] = []
        self._lines: list[list[int]] = []
        self._matrices: list[list[int]] = []
        self._index: list[int] = []
        self._keep: list[npt.NDArray[np.generic]] = []
        # Gradients: of a layer's input and output, in turns; of levels; of a layer's outputs and units.
        self._grad_free = 2 * self.dim + self.variables
        lines = 1 if described.states is None else self.dim + 1
        widths = self.context_dim, self.dim, self.variables, lines
        self.blocks = [*(self._take(width) for width in widths), lines]
        self.blocks.append(self._kept(described.places[0]))
        self._order = self._kept(np.arange(max(self.dim, self.variables)))
        if described.levels is not None:
            self._add_levels(described.levels, described)
        source = self.blocks[1]
        for number, layer in enumerate(described.layers):
            places = self._kept(described.places[number + 1])
            masks = self._kept(np.minimum(described.origins[number], lines - 1))
            target = self._take(self.dim)
            grads = [number % 2 * self.dim, (number + 1) % 2 * self.dim]
            ends = [source, target, self.dim, self._order, places, *grads]
            if isinstance(layer.norm, BatchNorm):
                self._add_norm(layer.norm, ends, masks)
            else:
                self._add(layer, ends, masks, wide=number > 0)
            source = target
        self.layers = np.array(self._lines, dtype=np.int64)
        self.matrices = np.array(self._matrices, dtype=np.int64).reshape(-1, MATRIX_FIELDS)
        self.index: Integers = np.array(self._index, dtype=np.int64)

    def _add_norm(self, norm: BatchNorm, ends: list[int], masks: int) -> None:
        gain, offset = self._place(norm.log_gain), self._place(norm.offset)
        statistics = 6 * self.dim * len(self.norms)
        self.norms.append(norm)
        head = [0] * 6 + [masks, 0, 0]
        self._add_line("", [*head, NORM, *ends, gain, offset, statistics])

    def _add(self, layer: NetworkLayer, ends: list[int], masks: int, *, wide: bool) -> None:
        """Add a layer of maps, by the fields on its input and output."""
        if layer.inverted:
            raise UnsupportedError("a layer whose directions are swapped")
        read = layer.reads(self.dim)
        first = 0 if layer.degrees is not None else layer.copied
        end = read if layer.degrees is not None else self.dim
        moved = end - first
        numbers = self._kept(np.array(layer.map.numbers, dtype=np.float32))
        head = [first, end, self._kept(np.arange(moved)), numbers, 0, masks, 0]
        source = _Source(ends[0], self.dim, ends[5], read)
        outs = layer.map.outputs * moved
        self._add_mapped(layer, [head, ends], source, outs=outs, step=moved, wide=wide)

    def _add_levels(self, layer: NetworkLayer, described: Description) -> None:
        """Add the probabilities of the variables, whose network reads levels of the context."""
        outputs = layer.outputs or []
        offsets = self._kept(np.array([one.start for one in outputs]))
        own = described.level_numbers
        masks = self._kept(np.full(self.variables, self.blocks[4] - 1))
        head = [0, self.variables, offsets, self._kept(own), own.strides[0], masks, 0]
        ends = [self.blocks[2], self._take(self.variables), self.variables]
        ends += [self._order, self._order, 2 * self.dim, 2 * self.dim]
        inputs = 0 if layer.degrees is None else len(layer.degrees[0])
        source = _Source(self.blocks[0], self.context_dim, 0, inputs)
        outs = len(layer.networks[0].weights[-1])
        self._add_mapped(layer, [head, ends], source, outs=outs, step=1, wide=False)

    def _add_mapped(
        self,
        layer: NetworkLayer,
        fields: list[list[int]],
        source: _Source,
        *,
        outs: int,
        step: int,
        wide: bool,
    ) -> None:
        """Add the networks of a layer, and its line, whose first fields are given."""
        out, grad_out, matrix = self._take(outs), self._grad_free, len(self._matrices)
        for number, network in enumerate(layer.networks):
            first = outs // len(layer.networks) * number
            self._add_network(network, layer, source, [out, outs, first])
        count = len(layer.networks[0].weights)
        own = [out, grad_out, outs, step, matrix, len(layer.networks), int(wide)]
        head, ends = fields
        self._add_line(layer.map.kind, [0, *head, count, MAPPED, *ends, *own])

    def _add_line(self, kind: str, line: list[int]) -> None:
        self.maps.append(kind)
        self._lines.append(line + [0] * (LAYER_FIELDS - len(line)))

    def _add_network(
        self, network: LayerNetwork, layer: NetworkLayer, source: _Source, out: list[int]
    ) -> None:
        """Add the matrices of a network, whose outputs are in a block of this width, from a unit on."""
        if network.activation not in TRAINED:
            raise UnsupportedError(f"activation {network.activation}")
        below, grad_below, free = (
            [source.block, source.width],
            source.grad,
            self._grad_free + out[1],
        )
        last = len(network.weights) - 1
        for number, (weight, biases) in enumerate(
            zip(network.weights, network.biases, strict=True)
        ):
            inputs = weight.shape[1]
            reach = np.full(len(weight), inputs)
            if network.masks is not None:
                reach = _reach_of(network.masks[number])
            place = self._place(weight, reach) if isinstance(weight, nn.Parameter) else 0
            if not isinstance(weight, nn.Parameter) and weight.shape[1]:
                raise UnsupportedError("weights that are computed from others")
            starts = [self._place(bias) for bias in biases]
            given = [-1, 0, 0, 0]
            if number == 0 and network.context is not None:
                width = network.context.shape[1]
                given = [self._place(network.context), width, self.context_dim - width, width]
            elif number == 0 and inputs > source.read:
                inputs = source.read
                given = [place + inputs, weight.shape[1], 0, weight.shape[1] - inputs]
            reach = np.minimum(reach, inputs)
            up = out if number == last else [self._take(len(weight)), len(weight), 0]
            grad_up = self._grad_free if number == last else free
            free += 0 if number == last else len(weight)
            kind = -1 if number == last else ACTIVATIONS.index(network.activation)
            masked = layer.degrees is not None and layer.outputs is None
            groups = layer.map.outputs if number == last and masked else 1
            seen = self._number(reach), self._number(_first_units(reach, inputs, groups))
            own = [len(weight), inputs, place, weight.shape[1], starts[0]]
            line = [*own, *below, *up, grad_below, grad_up, kind, *seen, groups, *given]
            self._matrices.append(line)
            self.widest = max(self.widest, inputs, self.context_dim)
            below, grad_below = up[:2], grad_up
        self.grad_units = max(self.grad_units, free)

    def _number(self, values: Integers) -> int:
        """Keep numbers in the index; return where."""
        start = len(self._index)
        self._index += values.tolist()
        return start

    def _kept(self, array: npt.NDArray[np.generic]) -> int:
        """Keep numbers in memory of their own; return the address."""
        self._keep.append(np.ascontiguousarray(array))
        return self._keep[-1].ctypes.data

    def _take(self, units: int) -> int:
        """Return the place of a new block of values."""
        start, self.units = self.units, self.units + units
        return start

    def _place(self, parameter: Tensor, reach: Integers | None = None) -> int:
        """Give a parameter its place in the flat vector."""
        start, self.size = self.size, self.size + parameter.numel()
        self.parameters.append(parameter)
        self.starts[id(parameter)] = start
        if reach is None or parameter.shape[1] < _WIDE:
            self._move(start, parameter.numel())
        else:
            # Whole vectors: masked weights behind the last one stay 0, as their gradients are.
            whole = np.minimum(-(-reach // _VECTOR) * _VECTOR, parameter.shape[1])
            for row, length in enumerate(whole):
                self._move(start + row * parameter.shape[1], int(length))
        return start

    def _move(self, start: int, length: int) -> None:
        if self.segments and self.segments[-1].start + self.segments[-1].length == start:
            start, length = self.segments[-1].start, self.segments[-1].length + length
            self.segments.pop()
        if length:
            self.segments.append(Segment(start, length))


def _reach_of(mask: Tensor) -> Integers:
    """Return the number of inputs that each unit sees.

    Raises:
        UnsupportedError: They are not the first ones.
    """
    reach = mask.sum(dim=1).long()
    expected = torch.arange(mask.shape[1]) < reach[:, None]
    if not torch.equal(mask > 0, expected):
        raise UnsupportedError("masks that are not triangular")
    numbers: Integers = reach.numpy()
    return numbers


def _first_units(reach: Integers, inputs: int, groups: int) -> Integers:
    """Return the first unit of a group that sees each input."""
    seen = reach.reshape(groups, -1).max(axis=0, initial=0)[None] > np.arange(inputs)[:, None]
    first: Integers = np.where(seen.any(axis=1), seen.argmax(axis=1), seen.shape[1])
    return first
