"""Flows compiled for serving: log densities and samples, from arrays to arrays."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flows.cost import NOISE_BLOCK_ROWS, Operations
from flows.specs.explained import Explained
from flows.specs.preprocessing import Space

if TYPE_CHECKING:
    from torch import Tensor

    from flows.compiled.plain import CompiledConditionals
    from flows.latent import Decoder
    from flows.mixed.companion import Companion

Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Doubles = npt.NDArray[np.float64]

PACKED_CHUNK_ROWS = 512
"""Rows that compiled loops are given at a time, which they cut into tiles of their own."""

_DRAWN_ROWS, _DRAWN_BYTES, _VALUE_BYTES = 1024, 2**21, 8


def drawn_bytes(n: int, columns: int) -> int:
    """Return the most bytes of samples that a CPU draws at once, which are kept until all were taken."""
    return _VALUE_BYTES * columns * min(n, drawn_rows(columns))


def drawn_rows(columns: int) -> int:
    """Return the most rows that a CPU draws at once."""
    fitting = _DRAWN_BYTES // (_VALUE_BYTES * columns) // NOISE_BLOCK_ROWS * NOISE_BLOCK_ROWS
    return max(NOISE_BLOCK_ROWS, min(_DRAWN_ROWS, fitting))


class CompiledFlow(ABC):
    """Flow without gradients, from arrays to arrays.

    Rows are float32 or float64: features or noise, then context. The space `model` is that of
    preprocessed rows. Log densities are those of the flow up to float32 rounding. A row that is too
    far from the data for float32 scores -inf, one that lacks a value NaN; other rows are not
    affected. It is thread-safe.

    Attributes:
        dim, model_dim: Numbers of features of a row, and of columns of a preprocessed row and its noise.
        context_dim: Number of columns that the density is conditioned on; they follow the features
            in the rows that are scored.
        has_noise: True if rows can be mapped to noise, that is, if `inverse` is available.
        has_parts: True if densities have a discrete and a continuous part (`log_prob_parts`).
        size_bytes: Memory of its weights, in bytes.
        row_bytes: Peak memory per row of a score or a sample, in bytes; 0 if unknown.
        operations: Time of a few rows, zeros if unknown.
        decoder: Generative model of the context given the rows, in float64; None if there is none.
        companion: Mixture that questions about some columns are answered from; None if there is none.
        conditional_order: Order of `flows.conditional_order`; None without one.
        conditionals: Densities of columns in this order, of a flow that was compiled with them.
        log_seen: Logarithms of what the known levels of each column of levels share.
    """

    dim: int
    model_dim: int
    context_dim: int
    has_noise: bool
    has_parts: bool
    size_bytes: int
    row_bytes: int
    operations: Operations
    decoder: "Decoder | None"
    companion: "Companion | None"
    conditional_order: list[int] | None
    conditionals: "CompiledConditionals | None"
    log_seen: dict[int, float]

    @property
    def is_whole(self) -> bool:
        """True if nothing has to be loaded any more."""
        return True

    def prepare(self) -> None:  # noqa: B027  most have nothing to load
        """Load what samples and questions need, where scores do without. It blocks."""

    @abstractmethod
    def log_prob(self, x: Rows, *, space: Space = "data") -> Doubles:
        """Return the log density of each row, in nats."""

    @abstractmethod
    def log_prob_parts(self, x: Rows, *, space: Space = "data") -> Doubles:
        """Return log P(d) and log p(x_O | d) of each row, of shape (rows, 2), in nats.

        A family of plain numbers has nothing discrete: its density is the second part.
        """

    @abstractmethod
    def inverse(self, x: Rows, *, space: Space = "data") -> tuple[Doubles, Doubles]:
        """Return noise and log|det du/dx| of each row.

        Raises:
            FlowError: The density has no noise (see `has_noise`).
        """

    @abstractmethod
    def forward(self, u: Rows, *, space: Space = "data") -> tuple[Doubles, Doubles]:
        """Return data and log|det dx/du| of each row of noise."""

    def sample(
        self, n: int, *, seed: int, context: Rows | None = None, space: Space = "data"
    ) -> Doubles:
        """Draw rows; the same seed gives the same rows.

        Args:
            seed: Seed of the noise, from 0 to 2^63 - 1.
            context: One context row for all samples or one for each, if the density is conditional.
        """
        rows = np.empty((n, self.dim if space == "data" else self.model_dim))
        start = 0
        pieces = self.iter_sample(n, seed=seed, chunk_rows=max(n, 1), context=context, space=space)
        for piece in pieces:
            rows[start : start + len(piece)] = piece
            start += len(piece)
        return rows

    @abstractmethod
    def iter_sample(
        self,
        n: int,
        *,
        seed: int,
        chunk_rows: int,
        context: Rows | None = None,
        space: Space = "data",
        start: int = 0,
    ) -> Iterator[Doubles]:
        """Yield the rows of `sample` in chunks; they do not depend on the size of the chunks.

        Only the noise of the rows before `start` is drawn.

        Raises:
            FlowError: The context is not one row or n rows of `context_dim` columns.
        """

    @property
    @abstractmethod
    def explained_kinds(self) -> list[Explained]:
        """Ways in which `explain` knows each column; it knows none unless the family is `mixed`."""

    @property
    @abstractmethod
    def explaining_passes(self) -> int:
        """Passes over the network that `explain` takes for a batch of rows."""

    @abstractmethod
    def explain(self, x: Rows) -> Doubles:
        """Return log p(row) - log p(row without the column) for each column, of shape (rows, dim).

        The density without a category of few levels is the exact sum over its levels. Without another
        column it is the one that training with hidden cells has learnt, with `missing` as `any`; NaN
        stands in the columns that it does not know. A cell that is hidden adds 0.

        Raises:
            FlowError: The flow is of another family than `mixed`.
        """

    @property
    @abstractmethod
    def inside(self) -> Doubles:
        """Row of data whose cells are within their bounds."""

    @abstractmethod
    def encode(self, x: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return rows of the model in float64, and the log slope of each cell; NaN where a cell lacks a value."""

    @abstractmethod
    def decode_continuous(self, values: "Tensor", places: list[int]) -> Doubles:
        """Return continuous values in the data's units, without the noise of training.

        Args:
            values: Values in the model's space, of shape (rows, columns).
            places: Places of the columns among all continuous ones.
        """

    @abstractmethod
    def to_grid(self, x: Doubles) -> Doubles:
        """Return rows of data rounded as those of training are."""

    @abstractmethod
    def score_model(self, rows: "Tensor") -> "Tensor":
        """Return the log densities of rows of the model, of a flow without a context, in float64."""
