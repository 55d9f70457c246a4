"""Programs of `flows.compiled_training.kernels`, integers that say what to compute where, and their networks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.autoregressive.masked import MaskedLinear
from flows.bijections.batch_norm import BatchNorm

Integers = npt.NDArray[np.int64]

# Rows of a weight from this width on move only as far as their masks let them through.
_WIDE = 128
_VECTOR = 16


class UnsupportedError(Exception):
    """A flow has a part without compiled loops."""


class Segment(NamedTuple):
    """Part of the flat vector."""

    start: int
    length: int


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
        map_numbers: Numbers that the maps of a layer share.
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
    map_numbers: list[float] = field(default_factory=list)
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
            # Whole vectors: masked weights behind the last one stay 0, as their gradients are.
            whole = np.minimum(-(-reach // _VECTOR) * _VECTOR, parameter.shape[1])
            for row, length in enumerate(whole):
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


class Dense(NamedTuple):
    """Affine map of a network.

    Attributes:
        weight: Weights, a line for each unit; None if the map has biases alone.
        biases: Biases, one after the other.
        reach: Number of inputs that each unit sees.
        groups: Number of groups of units with the same masks.
    """

    weight: Tensor | None
    biases: Sequence[Tensor]
    reach: Integers
    groups: int = 1


class Source(NamedTuple):
    """Features that a network reads.

    Attributes:
        place: Their block, its width, the first one and the step to the next.
        grad: Block of their gradients.
        features: Number of features that it reads.
    """

    place: list[int]
    grad: int
    features: int


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


def masked_network(part: Autoregressive) -> Network:
    """Return the network of an autoregressive layer.

    Raises:
        UnsupportedError: It has no compiled loops.
    """
    conditioner = part.conditioner
    if conditioner.separate or conditioner.direct:
        raise UnsupportedError("separate networks or direct connections")
    layers = [layer for layer in part.layers if isinstance(layer, MaskedLinear)]
    maps = [Dense(layer.weight, [layer.bias], reach_of(layer.mask)) for layer in layers]
    maps[-1] = maps[-1]._replace(groups=part.transformer.outputs)
    return Network(maps, conditioner.activation, part.context_weight)


def reach_of(mask: Tensor) -> Integers:
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


def first_units(reach: Integers, inputs: int, groups: int) -> Integers:
    """Return the first unit of a group that sees each input."""
    seen = reach.reshape(groups, -1).max(axis=0, initial=0)[None] > np.arange(inputs)[:, None]
    first: Integers = np.where(seen.any(axis=1), seen.argmax(axis=1), seen.shape[1])
    return first
