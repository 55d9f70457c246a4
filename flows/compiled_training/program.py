"""Flows as programs of `flows.compiled_training.kernels`: integers that say what to compute where."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from flows.bijections.affine import DiagonalAffine
from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.autoregressive.masked import MaskedLinear
from flows.bijections.base import Bijection
from flows.bijections.batch_norm import BatchNorm
from flows.bijections.compose import Permutation, Reverse, Slice
from flows.bijections.coupling.affine import Coupling
from flows.bijections.coupling.transformer import TransformerCoupling
from flows.bijections.linear import network_parameters
from flows.bijections.transformers import Affine, Transformer
from flows.families.nsf import RationalQuadratic
from flows.mixed.categorical import CategoricalMade
from flows.mixed.density import MixedDensity

Integers = npt.NDArray[np.int64]

# Fields of the lines, in the order of `flows.compiled_training.fields`.
AFFINE, NORM, SPLINE, CATEGORICAL = range(4)
ACTIVATIONS = ("relu", "tanh", "elu")
_LAYER_FIELDS = 21
# Rows of a weight from this width on move only as far as their masks let them through.
_WIDE = 128


class UnsupportedError(Exception):
    """A flow has a part without compiled loops."""


class Segment(NamedTuple):
    """Part of the flat vector."""

    start: int
    length: int


class Dense(NamedTuple):
    """Affine map of a network.

    Attributes:
        weight: Weights, a line for each unit; None if the map has biases alone.
        biases: Biases, one after the other.
        reach: Number of inputs that each unit sees.
        groups: Number of groups of units with the same masks.
    """

    weight: Tensor | None
    biases: list[Tensor]
    reach: Integers
    groups: int = 1


class Network(NamedTuple):
    """Network that conditions a layer.

    Attributes:
        maps: Affine maps.
        activation: Activation between them.
        context: Weights of the context in the first map; None if there are none, or if they are the
            last columns of its weights.
        given: First value of the context that these are for.
    """

    maps: list[Dense]
    activation: str
    context: Tensor | None = None
    given: int = 0


@dataclass
class Program:
    """Program of a flow, and the layout of its parameters in one flat vector.

    Attributes:
        dim: Number of features.
        context_dim: Number of values of the context.
        parameters: Parameters in the order of the flat vector.
        starts: Start of each of them, by its id.
        size: Length of the flat vector.
        segments: Parts of the flat vector that move.
        norms: Batch norms.
        layers: Lines of the layers.
        matrices: Lines of their matrices.
        index: Numbers that the lines refer to.
        units: Units of values, and of their gradients.
        widest: Most inputs of a matrix.
        blocks: Blocks of the context, of the rows and of the levels, and where the places of the
            features are in `index`.
        numbers: Numbers that the lines refer to, after the two that every program has.
        variables: Number of categorical variables.
    """

    dim: int
    context_dim: int
    parameters: list[Tensor] = field(default_factory=list)
    starts: dict[int, int] = field(default_factory=dict)
    size: int = 0
    segments: list[Segment] = field(default_factory=list)
    norms: list[BatchNorm] = field(default_factory=list)
    layers: list[list[int]] = field(default_factory=list)
    matrices: list[list[int]] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    units: int = 0
    grad_units: int = 0
    widest: int = 1
    blocks: list[int] = field(default_factory=list)
    numbers: list[float] = field(default_factory=lambda: [0.0, 0.0])
    variables: int = 0

    def number(self, values: Sequence[int] | Integers) -> int:
        """Keep numbers in the index; return where."""
        start = len(self.index)
        self.index += [int(value) for value in values]
        return start

    def place(self, parameter: Tensor, reach: Integers | None = None) -> int:
        """Give a parameter its place in the flat vector."""
        start, self.size = self.size, self.size + parameter.numel()
        self.parameters.append(parameter)
        self.starts[id(parameter)] = start
        if reach is None or parameter.shape[1] < _WIDE:
            self._move(start, parameter.numel())
        else:
            for row, length in enumerate(reach):
                self._move(start + row * parameter.shape[1], int(length))
        return start

    def take(self, units: int) -> int:
        """Return the place of a new block of values."""
        start, self.units = self.units, self.units + units
        return start

    def _move(self, start: int, length: int) -> None:
        if self.segments and self.segments[-1].start + self.segments[-1].length == start:
            start, length = self.segments[-1].start, self.segments[-1].length + length
            self.segments.pop()
        if length:
            self.segments.append(Segment(start, length))


def compile_program(transform: Bijection, parameters: Sequence[Tensor]) -> Program:
    """Return the program of a flow.

    Args:
        transform: Bijection of the flow.
        parameters: All parameters that training moves.

    Raises:
        UnsupportedError: A part of the flow has no compiled loops.
    """
    if isinstance(transform, MixedDensity):
        writer = _mixed_writer(transform)
    else:
        writer = _Writer(transform.dim, transform.context_dim)
        for part in transform.parts():
            writer.add(part)
    program = writer.finish()
    if {id(parameter) for parameter in parameters} != set(program.starts):
        raise UnsupportedError("parameters outside of the layers")
    if any(parameter.dtype != torch.float32 for parameter in parameters):
        raise UnsupportedError("another precision than float32")
    return program


def _mixed_writer(density: MixedDensity) -> "_Writer":
    """Return the writer of a density of mixed rows.

    Raises:
        UnsupportedError: It has no continuous values, or too many levels to read them one-hot.
    """
    if density.flow is None or density.projection is not None:
        raise UnsupportedError("no continuous values, or many levels")
    slots = 0 if density.made is None else density.made.slots
    writer = _Writer(density.flow.dim, slots + density.context_dim, len(density.layout.variables))
    if density.made is not None:
        writer.add_categorical(density.made, density)
    for part in density.flow.parts():
        writer.add(part)
    return writer


class _Writer:
    """Writer of a program, from the layer at the data on."""

    def __init__(self, dim: int, context_dim: int, variables: int = 0) -> None:
        self._program = program = Program(dim, context_dim)
        program.variables = variables
        self._context = program.take(context_dim)
        self._source = program.take(dim)
        self._levels = program.take(variables)
        program.blocks = [self._context, self._source, self._levels]
        self._dim = dim
        self._seen = np.arange(dim)  # mask line of each feature
        self._places = np.arange(dim)  # of what the last layer gave
        self._turn = 0
        self._first: list[list[int]] = []
        self._lines: list[list[int]] = []
        self._places_of: list[Integers] = []

    def add(self, part: Bijection) -> None:
        """Add a layer.

        Raises:
            UnsupportedError: It has no compiled loops.
        """
        match part:
            case Reverse() | Permutation():
                self._permute(part)
            case BatchNorm():
                self._norm(part)
            case DiagonalAffine():
                self._diagonal(part)
            case Slice():
                self._slice(part)
            case Autoregressive():
                self._autoregressive(part, range(self._dim))
            case Coupling():
                self._coupling(part)
            case TransformerCoupling():
                self._transformer_coupling(part)
            case _:
                raise UnsupportedError(type(part).__name__)

    def finish(self) -> Program:
        """Return the program.

        Raises:
            UnsupportedError: It has no layers.
        """
        program = self._program
        if not self._lines:
            raise UnsupportedError("no layers")
        self._places_of.append(self._places)
        program.blocks.append(program.number(self._places_of[0]))
        for line, places in zip(self._lines, self._places_of[1:], strict=True):
            line[4] = program.number(places)
        program.layers = [*self._first, *self._lines]
        return program

    def _permute(self, part: Reverse | Permutation) -> None:
        order = np.arange(self._dim)[::-1]
        if isinstance(part, Permutation):
            order = part.order.numpy()
        self._places = np.argsort(order)[self._places]
        self._seen = self._seen[order]

    def _line(self, kind: int) -> list[int]:
        """Return the beginning of a layer's line; its output is the next layer's input."""
        self._places_of.append(self._places)
        self._places = np.arange(self._dim)
        source, self._source = self._source, self._program.take(self._dim)
        turn, self._turn = self._turn, 1 - self._turn
        seen = self._program.number(self._seen)
        grads = [turn * self._dim, (1 - turn) * self._dim]
        return [kind, source, self._source, self._dim, 0, seen, *grads]

    def _add_line(self, line: list[int]) -> None:
        self._lines.append(line + [0] * (_LAYER_FIELDS - len(line)))

    def _norm(self, part: BatchNorm) -> None:
        program = self._program
        gain, offset = program.place(part.log_gain), program.place(part.offset)
        statistics = 6 * self._dim * len(program.norms)
        program.norms.append(part)
        running = int(part.spec.statistics == "running")
        self._add_line([*self._line(NORM), gain, offset, statistics, running])

    def _diagonal(self, part: DiagonalAffine) -> None:
        nothing = np.zeros(2 * self._dim, dtype=np.int64)
        only = Dense(None, [part.shift, part.log_scale], nothing)
        network = Network([only], "relu", part.context_weight)
        transformer = Affine(part.log_scale_bound)
        self._conditioned(range(self._dim), range(0), [network], transformer)

    def add_categorical(self, made: CategoricalMade, density: MixedDensity) -> None:
        """Add the probabilities of the variables."""
        program = self._program
        layers = [layer for layer in made.layers if isinstance(layer, MaskedLinear)]
        maps = [Dense(layer.weight, [layer.bias], _reach(layer.mask)) for layer in layers]
        network = Network(maps, made.activation, made.context_weight, made.slots)
        outs = len(maps[-1].reach)
        out, grad_out = program.take(outs), 2 * self._dim
        line = [CATEGORICAL, self._context, 0, program.context_dim, 0, 0, 0, 0]
        variables = zip(made.outputs(), density.opened.tolist(), strict=True)
        starts = [
            number
            for outputs, is_open in variables
            for number in (outputs.start, outputs.stop - outputs.start, int(is_open))
        ]
        logs = len(program.numbers)
        program.numbers += density.log_shares
        line += [len(made.sizes), self._levels, program.number(starts), logs, outs]
        read = range(len(made.degrees[0]))
        self._network(network, line, read, (out, outs, 0))
        line += [out, grad_out, 0, 0, len(maps), 1]
        self._first.append(line + [0] * (_LAYER_FIELDS - len(line)))

    def _autoregressive(self, part: Autoregressive, features: range) -> None:
        conditioner, transformer = part.conditioner, part.transformer
        if conditioner.separate or conditioner.direct or conditioner.residual:
            raise UnsupportedError("separate networks, direct connections or residual blocks")
        layers = [layer for layer in part.layers if isinstance(layer, MaskedLinear)]
        maps = [Dense(layer.weight, [layer.bias], _reach(layer.mask)) for layer in layers]
        maps[-1] = maps[-1]._replace(groups=transformer.outputs)
        network = Network(maps, conditioner.activation, part.context_weight)
        self._conditioned(features, features, [network], transformer)

    def _slice(self, part: Slice) -> None:
        features = range(self._dim)[part.features]
        layers = part.layer.parts()
        if isinstance(layers[0], Reverse) and isinstance(layers[-1], Reverse):
            features, layers = features[::-1], layers[1:-1]
        if len(layers) != 1 or not isinstance(layers[0], Autoregressive):
            raise UnsupportedError("another layer on some of the features")
        self._autoregressive(layers[0], features)

    def _coupling(self, part: Coupling) -> None:
        copied, moved = (range(self._dim)[half] for half in part.shape.halves())
        networks = [self._plain_network(part.shift_layers, "relu")]
        if not part.additive:
            networks.append(self._plain_network(part.scale_layers, "tanh"))
        transformer = None if part.additive else Affine(part.log_scale_bound)
        self._conditioned(moved, copied, networks, transformer)

    def _transformer_coupling(self, part: TransformerCoupling) -> None:
        if part.residual:
            raise UnsupportedError("residual blocks")
        copied, moved = (range(self._dim)[half] for half in part.shape.halves())
        networks = [self._plain_network(part.layers, part.activation)]
        self._conditioned(moved, copied, networks, part.transformer)

    def _plain_network(self, layers: nn.ModuleList, activation: str) -> Network:
        maps = []
        for weight, bias in zip(*network_parameters(layers), strict=True):
            reach = np.full(len(weight), weight.shape[1])
            maps.append(Dense(weight, [bias], reach))
        return Network(maps, activation)

    def _conditioned(
        self,
        moved: range,
        read: range,
        networks: list[Network],
        transformer: Transformer | None,
    ) -> None:
        """Add a layer of maps whose parameters come from networks.

        Args:
            moved: Features that move.
            read: Features that the networks read.
            networks: One network for all parameters, or for shifts and log scales one each.
            transformer: Map of each feature; None for a shift.
        """
        kind, outputs, rest = self._map(transformer)
        program = self._program
        line = self._line(kind)
        kept = [i for i in range(self._dim) if i not in moved]
        outs = outputs * len(moved)
        out, grad_out = program.take(outs), 2 * self._dim
        matrix = len(program.matrices)
        for number, network in enumerate(networks):
            self._network(network, line, read, (out, outs, number * len(moved)))
        step = moved.step if len(moved) > 1 else 1
        line += [moved.start, step, len(moved), program.number(kept), len(kept), out, grad_out]
        count = (len(program.matrices) - matrix) // len(networks)
        self._add_line([*line, int(outputs > 1), matrix, count, len(networks), *rest])

    def _map(self, transformer: Transformer | None) -> tuple[int, int, list[int]]:
        """Return the kind of a layer, the parameters of each map, and what its line ends with.

        Raises:
            UnsupportedError: The map has no compiled loops.
        """
        match transformer:
            case None:
                return AFFINE, 1, []
            case Affine(log_scale_bound=None):
                return AFFINE, 2, []
            case Affine():
                self._program.numbers.append(transformer.log_scale_bound or 0.0)
                return AFFINE, 2, [len(self._program.numbers) - 1]
            case RationalQuadratic():
                number = len(self._program.numbers)
                self._program.numbers.append(transformer.tail_bound)
                return SPLINE, transformer.outputs, [transformer.bins, number]
            case _:
                raise UnsupportedError(f"maps {type(transformer).__name__}")

    def _network(
        self, network: Network, line: list[int], read: range, out: tuple[int, int, int]
    ) -> None:
        """Add the matrices of a network.

        Args:
            network: Network to add.
            line: Beginning of the layer's line.
            read: Features that it reads.
            out: Block of its outputs, the width of that, and its first unit in there.
        """
        if network.activation not in ACTIVATIONS:
            raise UnsupportedError(f"activation {network.activation}")
        program, dim = self._program, self._dim
        below = [line[1], line[3], read.start, read.step]
        grad_below, grad_free = line[6], 2 * dim + out[1]
        for number, dense in enumerate(network.maps):
            is_last = number == len(network.maps) - 1
            units = len(dense.reach)
            inputs = 0 if dense.weight is None else dense.weight.shape[1]
            weight = 0 if dense.weight is None else program.place(dense.weight, dense.reach)
            biases = [program.place(bias) for bias in dense.biases]
            given = -1, 0, 0, 0
            if number == 0 and network.context is not None:
                weights = network.context
                given = program.place(weights), weights.shape[1], network.given, weights.shape[1]
            elif number == 0 and inputs > len(read):
                inputs -= program.context_dim
                given = weight + inputs, inputs + program.context_dim, 0, program.context_dim
            reach = np.minimum(dense.reach, inputs)
            up = list(out) if is_last else [program.take(units), units, 0]
            grad_up = 2 * dim if is_last else grad_free
            grad_free += 0 if is_last else units
            kind = -1 if is_last else ACTIVATIONS.index(network.activation)
            seen = program.number(reach), program.number(_first(reach, inputs, dense.groups))
            line_of_weights = 0 if dense.weight is None else dense.weight.shape[1]
            own = [units, inputs, weight, line_of_weights, biases[0]]
            program.matrices.append(
                [*own, *below, *up, grad_below, grad_up, kind, *seen, dense.groups, *given]
            )
            program.widest = max(program.widest, inputs, program.context_dim)
            below, grad_below = [*up, 1], grad_up
        program.grad_units = max(program.grad_units, grad_free)


def _reach(mask: Tensor) -> Integers:
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


def _first(reach: Integers, inputs: int, groups: int) -> Integers:
    """Return the first unit of a group that sees each input."""
    seen = reach.reshape(groups, -1).max(axis=0, initial=0)[None] > np.arange(inputs)[:, None]
    first: Integers = np.where(seen.any(axis=1), seen.argmax(axis=1), seen.shape[1])
    return first
