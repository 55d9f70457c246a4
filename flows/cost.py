"""Upper bounds of the memory that flows take, by arithmetic, before anything is built.

To build a flow on meta tensors instead imports 800 modules into whoever asks, in 2.5 s, and takes 1 to 20 ms then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

FLOAT_BYTES, INDEX_BYTES = 4, 8

# A small tensor, its view or a record of one, as objects of Python and of PyTorch.
OBJECT_BYTES = 1024

# A flow of more operations is slow: so few of its rows are computed at a time, for the sake of others.
_SLOW_OPERATIONS, _SLOW_ROWS = 2**16, 64

# Noise is drawn in whole blocks of this many rows, so that the rows of a seed do not depend on the
# number of rows that is asked for.
NOISE_BLOCK_ROWS = 64

# Memory of one chunk of rows: small enough for a server, and most flows take less.
CHUNK_BYTES = 128 * 2**20


class Operations(NamedTuple):
    """Time of a few rows in each direction, in sequential small operations of about a microsecond."""

    density: int
    sampling: int


NO_OPERATIONS = Operations(0, 0)


@dataclass(frozen=True, kw_only=True)
class Way:
    """Cost of one direction of a flow, or of one of its layers; memory in bytes.

    Attributes:
        kept: Memory that a training step keeps for its gradient, whatever its number of rows.
        kept_row: Memory per row that a training step keeps for its gradient.
        used: Most memory that one layer takes while it computes, whatever its number of rows.
        used_row: Most memory per row that one layer takes while it computes.
        operations: Time of a few rows, in sequential small operations of about a microsecond.
    """

    kept: int = 0
    kept_row: int = 0
    used: int = 0
    used_row: int = 0
    operations: int = 0

    def __add__(self, other: "Way") -> "Way":
        """Return the cost of two layers, one after the other."""
        return Way(
            kept=self.kept + other.kept,
            kept_row=self.kept_row + other.kept_row,
            used=max(self.used, other.used),
            used_row=max(self.used_row, other.used_row),
            operations=self.operations + other.operations,
        )

    def step(self, rows: int) -> int:
        """Return the bytes of a training step beside the weights and their gradients."""
        return self.kept + self.used + rows * (self.kept_row + self.used_row)

    def apply(self, rows: int) -> int:
        """Return the bytes of a pass without gradients."""
        return self.used + rows * self.used_row


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a flow, or of one of its layers; memory in bytes.

    Attributes:
        parameters: Number of trainable parameters, masked ones included.
        layers: Number of affine maps and thin layers, each a step of its own.
        width: Units of the widest hidden layer; 0 without hidden layers.
        buffers: Masks, orders and statistics beside the weights.
        density: Direction from data to noise.
        sampling: Direction from noise to data.
    """

    parameters: int = 0
    layers: int = 0
    width: int = 0
    buffers: int = 0
    density: Way = Way()
    sampling: Way = Way()

    @classmethod
    def both(
        cls, way: Way, *, parameters: int = 0, layers: int = 0, width: int = 0, buffers: int = 0
    ) -> "Cost":
        """Return the cost of a layer whose directions cost the same."""
        sizes = {"parameters": parameters, "layers": layers, "width": width, "buffers": buffers}
        return cls(**sizes, density=way, sampling=way)

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of two layers, one after the other."""
        return Cost(
            parameters=self.parameters + other.parameters,
            layers=self.layers + other.layers,
            width=max(self.width, other.width),
            buffers=self.buffers + other.buffers,
            density=self.density + other.density,
            sampling=self.sampling + other.sampling,
        )

    def __mul__(self, times: int) -> "Cost":
        """Return the cost of `times` equal layers, one after another."""
        doubled, total, left = self, Cost(), times
        while left > 0:  # a product of a number in binary: a million layers are 20 sums
            if left % 2 == 1:
                total = total + doubled
            doubled, left = doubled + doubled, left // 2
        return total

    def inverted(self) -> "Cost":
        """Return the cost of the layer with its directions swapped."""
        return replace(self, density=self.sampling, sampling=self.density)

    @property
    def flow_bytes(self) -> int:
        """Bytes of the flow while it is trained or loaded: float32 weights and buffers."""
        return FLOAT_BYTES * self.parameters + self.buffers

    @property
    def load_bytes(self) -> int:
        """Most bytes while a file becomes a compiled flow.

        The weights of the file, the flow, its copy in float64, the masked weights of that and the
        compiled flow are in memory at the same time.
        """
        return 8 * self.flow_bytes + 16 * OBJECT_BYTES * self.layers

    @property
    def loaded_bytes(self) -> int:
        """Bytes of the compiled flow: its weights, panels of them, and what tells where they are."""
        return 2 * self.flow_bytes + 16 * OBJECT_BYTES * self.layers

    @property
    def row_bytes(self) -> int:
        """Most bytes a row of a score or a sample."""
        return max(self.density.used_row, self.sampling.used_row)

    @property
    def operations(self) -> Operations:
        """Time of a few rows of a score and of a sample."""
        return Operations(self.density.operations, self.sampling.operations)

    def score_bytes(self, rows: int) -> int:
        """Return most bytes of a score or a sample of `rows` rows, computed at once."""
        return max(self.density.apply(rows), self.sampling.apply(rows))


def total_cost(costs: Sequence[Cost]) -> Cost:
    """Return the cost of layers one after another."""
    return sum(costs, start=Cost())


def turn_rows(most: int, operations: int) -> int:
    """Return the number of rows that are computed without keeping others waiting: `most`, or fewer.

    Args:
        most: Number of rows of a flow of few operations.
        operations: Time of a few rows, in sequential small operations.
    """
    return most if operations <= _SLOW_OPERATIONS else min(most, _SLOW_ROWS)


def fitting_rows(most: int, row_bytes: int, *, multiple: int = 1) -> int:
    """Return the number of rows of a chunk: `most`, or as many as fit in `CHUNK_BYTES`.

    Args:
        most: Number of rows of a chunk where memory does not matter.
        multiple: Number that divides the number of rows.
    """
    fitting = CHUNK_BYTES // max(row_bytes, 1) // multiple * multiple
    return max(multiple, min(most, fitting))
