"""Flows as programs of `flows.compiled_training.kernels`, written from the layer at the data on."""

from collections.abc import Sequence

import numpy as np
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
from flows.bijections.network_layers import ADDITIVE, MapSpec, affine_map
from flows.compiled.packed_fields import ACTIVATIONS
from flows.compiled_training.program import (
    Dense,
    Integers,
    Network,
    Program,
    Source,
    UnsupportedError,
    first_units,
    masked_network,
    reach_of,
)
from flows.mixed.categorical import CategoricalMade
from flows.mixed.density import MixedDensity

# Fields of the lines, as in `flows.compiled_training.fields`, which needs numba.
MAPPED, NORM, CATEGORICAL = range(3)
# Those whose gradient follows from their results: the first ones that the loops know.
TRAINED = ACTIVATIONS[:3]
MAPS = ("affine", "bounded-affine", "additive", "spline", "mixture", "sigmoids")
_LAYER_FIELDS = 21


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
                self._elementwise(part)
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
        self._add_line([*self._line(NORM), gain, offset, statistics, 1])

    def _elementwise(self, part: DiagonalAffine) -> None:
        spec = affine_map(part.log_scale_bound)
        nothing = np.zeros(spec.outputs * self._dim, dtype=np.int64)
        biases = Dense(None, [part.shift, part.log_scale], nothing)
        network = Network([biases], "relu", part.context_weight)
        self._conditioned(range(self._dim), range(0), [network], spec)

    def add_categorical(self, made: CategoricalMade, density: MixedDensity) -> None:
        """Add the probabilities of the variables."""
        program = self._program
        layers = [layer for layer in made.layers if isinstance(layer, MaskedLinear)]
        maps = [Dense(layer.weight, [layer.bias], reach_of(layer.mask)) for layer in layers]
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
        source = Source([line[1], line[3], 0, 1], 0, len(made.degrees[0]))
        self._network(network, source, (out, outs, 0))
        line += [out, grad_out, 0, 0, len(maps), 1]
        self._first.append(line + [0] * (_LAYER_FIELDS - len(line)))

    def _autoregressive(self, part: Autoregressive, features: range) -> None:
        network = masked_network(part)
        self._conditioned(features, features, [network], part.transformer.map_spec())

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
        spec = ADDITIVE if part.additive else affine_map(part.log_scale_bound)
        self._conditioned(moved, copied, networks, spec)

    def _transformer_coupling(self, part: TransformerCoupling) -> None:
        copied, moved = (range(self._dim)[half] for half in part.shape.halves())
        networks = [self._plain_network(part.layers, part.activation)]
        self._conditioned(moved, copied, networks, part.transformer.map_spec())

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
        spec: MapSpec | None,
    ) -> None:
        """Add a layer of maps whose parameters come from networks.

        Args:
            moved: Features that move.
            read: Features that the networks read.
            networks: One network for all parameters, or for shifts and log scales one each.
            spec: Map of each feature; None if engines do not know it.

        Raises:
            UnsupportedError: The map has no compiled loops.
        """
        if spec is None or spec.kind not in MAPS:
            raise UnsupportedError("maps without compiled loops")
        line = self._line(MAPPED)
        source = Source([line[1], self._dim, read.start, read.step], line[6], len(read))
        program, outputs = self._program, spec.outputs
        kept = [i for i in range(self._dim) if i not in moved]
        outs = outputs * len(moved)
        out, grad_out = program.take(outs), 2 * self._dim
        matrix = len(program.matrices)
        for number, network in enumerate(networks):
            self._network(network, source, (out, outs, number * len(moved)))
        step = moved.step if len(moved) > 1 else 1
        line += [moved.start, step, len(moved), program.number(kept), len(kept), out, grad_out]
        count = (len(program.matrices) - matrix) // max(1, len(networks))
        line += [outputs, matrix, count, len(networks)]
        self._add_line([*line, MAPS.index(spec.kind), len(program.map_numbers)])
        program.map_numbers += spec.numbers

    def _network(self, network: Network, source: Source, out: tuple[int, int, int]) -> None:
        """Add the matrices of a network.

        Args:
            network: Network to add.
            source: Features that it reads.
            out: Block of its outputs, the width of that, and its first unit in there.
        """
        if network.activation not in TRAINED:
            raise UnsupportedError(f"activation {network.activation}")
        program, dim = self._program, self._dim
        below, grad_below, grad_free = source.place, source.grad, 2 * dim + out[1]
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
            elif number == 0 and inputs > source.features:
                inputs -= program.context_dim
                given = weight + inputs, inputs + program.context_dim, 0, program.context_dim
            reach = np.minimum(dense.reach, inputs)
            up = list(out) if is_last else [program.take(units), units, 0]
            grad_up = 2 * dim if is_last else grad_free
            grad_free += 0 if is_last else units
            kind = -1 if is_last else ACTIVATIONS.index(network.activation)
            seen = program.number(reach), program.number(first_units(reach, inputs, dense.groups))
            line_of_weights = 0 if dense.weight is None else dense.weight.shape[1]
            own = [units, inputs, weight, line_of_weights, biases[0]]
            program.matrices.append(
                [*own, *below, *up, grad_below, grad_up, kind, *seen, dense.groups, *given]
            )
            program.widest = max(program.widest, inputs, program.context_dim)
            below, grad_below = [*up, 1], grad_up
        program.grad_units = max(program.grad_units, grad_free)
