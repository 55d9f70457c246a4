"""Flows: densities over the rows of a table."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from flows.bijections.base import Batch, Bijection, PerRow
from flows.errors import FlowError
from flows.preprocess import Preprocessing, Standardise

Space = Literal["data", "model"]

# Noise is drawn in whole blocks of this many rows, so that the rows of a seed do not depend on the
# number of rows that is asked for.
NOISE_BLOCK_ROWS = 64


class Flow(nn.Module):
    """Normalising flow: a bijection of standard Gaussian noise and table rows, in the data's units.

    Preprocessing is the outermost layer, next to the data, and counts in the log-determinant. It is
    computed in float64, whatever the precision of the rest, so that data far from 0 keep their
    digits.

    Attributes:
        dim: Number of features of a row.
        model_dim: Number of columns of a preprocessed row, and of its noise.
        context_dim: Number of columns that the density is conditioned on; 0 if there are none.
        model_columns: Number of columns of a preprocessed row with its context.
        row_bytes: Peak memory per row of a pass without gradients, in bytes; 0 if unknown.
    """

    def __init__(
        self,
        transform: Bijection,
        preprocessing: Preprocessing | None = None,
        *,
        context: "Context | None" = None,
        row_bytes: int = 0,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.preprocessing = preprocessing or Preprocessing()
        self.model_dim = transform.dim
        self.dim = self.preprocessing.data_dim or transform.dim
        self.context = context
        self.context_dim = 0 if context is None else context.dim
        self.model_columns = self.model_dim + (0 if context is None else context.model_dim)
        self.row_bytes = row_bytes

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.transform.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device that holds the weights."""
        return next(self.transform.parameters()).device

    @property
    def has_noise(self) -> bool:
        """True if data can be mapped to noise, that is, if `inverse` is available."""
        return self.transform.has_noise

    def forward(
        self,
        u: Float[Tensor, "batch noise"],
        context: Float[Tensor, "#batch context_dim"] | None = None,
        *,
        space: Space = "data",
    ) -> tuple[Batch, PerRow]:
        """Map noise to data, with log|det dx/du|.

        Args:
            u: Standard Gaussian noise.
            context: Values that the density is conditioned on, in their own units; one row stands
                for all.
            space: `model` leaves the preprocessing out.
        """
        x, log_det = self.transform.forward(u.to(self.dtype), self.features(context, len(u)))
        if space == "model":
            return x, log_det
        x, outer = self.preprocessing.forward(x)
        return x, log_det + outer.to(log_det.dtype)

    def inverse(
        self,
        x: Batch,
        context: Float[Tensor, "#batch context_dim"] | None = None,
        *,
        space: Space = "data",
    ) -> tuple[Batch, PerRow]:
        """Map data to noise, with log|det du/dx|.

        Args:
            x: Rows of data.
            context: Values that the density is conditioned on, as in `forward`.
            space: `model` leaves the preprocessing out.

        Raises:
            FlowError: The density has no noise (see `has_noise`).
        """
        x, outer = self._to_model(x, space)
        u, log_det = self.transform.inverse(x, self.features(context, len(x)))
        return u, log_det if outer is None else log_det + outer

    def log_prob(
        self,
        x: Batch,
        context: Float[Tensor, "#batch context_dim"] | None = None,
        *,
        space: Space = "data",
    ) -> PerRow:
        """Return the log density of each row in nats, conditioned on its context if there is one.

        Args:
            x: Rows of data.
            context: Values that the density is conditioned on, as in `forward`.
            space: `model` gives the density of the preprocessed rows.
        """
        x, outer = self._to_model(x, space)
        score = self.transform.log_density(x, self.features(context, len(x)))
        return score if outer is None else score + outer

    def log_prob_of_table(
        self, rows: Float[Tensor, "batch columns"], *, space: Space = "data"
    ) -> PerRow:
        """Return the log density of table rows, each holding the features, then the context.

        Args:
            rows: Rows of data, or preprocessed as `flows.training.rows` does it.
            space: `model` if the rows are preprocessed.
        """
        if self.context_dim == 0:
            return self.log_prob(rows, space=space)
        if space == "data":
            return self.log_prob(rows[:, : self.dim], rows[:, self.dim :])
        x, context = rows.tensor_split([self.model_dim], dim=1)
        return self.transform.log_density(x.to(self.dtype), self.model_features(context))

    def log_prob_parts(
        self,
        x: Batch,
        context: Float[Tensor, "#batch context_dim"] | None = None,
        *,
        space: Space = "data",
    ) -> Float[Tensor, "batch 2"]:
        """Return log P(d) and log p(x_O | d) of each row: log densities of its parts, in nats.

        Args:
            x: Rows of data.
            context: Values that the density is conditioned on, as in `forward`.
            space: `model` gives the densities of preprocessed rows.

        Raises:
            FlowError: The density has no parts: it is of another family than `mixed`.
        """
        x, outer = self._to_model(x, space)
        parts = self.transform.log_parts(x, self.features(context, len(x)))
        return parts if outer is None else parts + F.pad(outer[:, None], (1, 0))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator,
        context: Float[Tensor, "#batch context_dim"] | None = None,
        space: Space = "data",
    ) -> Batch:
        """Draw rows; the same generator state gives the same rows on every device.

        Args:
            n: Number of rows.
            generator: Random generator on the CPU.
            context: One context row for all samples, or one for each.
            space: `model` gives preprocessed rows.
        """
        u = base_noise(n, self.model_dim, generator=generator)
        x, _ = self.forward(u.to(self.device), context, space=space)
        return x if space == "model" else self.preprocessing.to_grid(x)

    def _to_model(self, x: Tensor, space: Space) -> tuple[Tensor, Tensor | None]:
        if space == "model":
            return x.to(self.dtype), None
        x, outer = self.preprocessing.inverse(x)
        return x.to(self.dtype), outer.to(self.dtype)

    def features(
        self, context: Float[Tensor, "#batch context_dim"] | None, rows: int
    ) -> Float[Tensor, "batch features"] | None:
        """Return the context as the layers see it: standardised, encoded, expanded to `rows` rows.

        Raises:
            FlowError: A context is given to an unconditional density, or missing for a conditional
                one.
        """
        if self.context is None:
            if context is not None:
                raise FlowError("this density has no context")
            return None
        if context is None:
            raise FlowError("this density is conditional: it needs a context")
        features: Tensor = self.context(context, self.dtype)
        return features.expand(rows, -1)

    def model_features(
        self, context: Float[Tensor, "batch columns"] | None
    ) -> Float[Tensor, "batch features"] | None:
        """Return a preprocessed context as the layers see it."""
        if self.context is None or context is None:
            return None
        return self.context.encode(context, self.dtype)


class ContextTable(nn.Module, ABC):
    """Preprocessing of a context that has categories and missing cells.

    Attributes:
        model_dim: Number of columns of a preprocessed row.
    """

    model_dim: int

    @abstractmethod
    def prepare(self, context: Float[Tensor, "batch columns"]) -> Batch:
        """Return preprocessed rows, in float64."""

    @abstractmethod
    def features(self, rows: Batch) -> Float[Tensor, "batch features"]:
        """Return the numbers that preprocessed rows stand for, categories one-hot."""


class Context(nn.Module):
    """Standardisation and encoder of the columns that a flow is conditioned on.

    Attributes:
        dim: Number of context columns.
        model_dim: Number of columns of a preprocessed context.
    """

    def __init__(
        self,
        dim: int,
        standardise: Standardise | None,
        encoder: nn.Module | None,
        *,
        table: ContextTable | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.model_dim = dim if table is None else table.model_dim
        self.standardise = standardise
        self.encoder = encoder
        self.table = table

    def forward(
        self, context: Float[Tensor, "batch columns"], dtype: torch.dtype
    ) -> Float[Tensor, "batch features"]:
        """Preprocess in float64, then encode."""
        return self.encode(self.prepare(context), dtype)

    def prepare(self, context: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        """Return preprocessed rows, as training keeps them; plain numbers stay as they are."""
        return context if self.table is None else self.table.prepare(context)

    def encode(
        self, context: Float[Tensor, "batch columns"], dtype: torch.dtype
    ) -> Float[Tensor, "batch features"]:
        """Standardise preprocessed rows in float64, then encode them."""
        if self.table is not None:
            context = self.table.features(context)
        if self.standardise is not None:
            context, _ = self.standardise.inverse(context)
        context = context.to(dtype)
        if self.encoder is None:
            return context
        encoded: Tensor = self.encoder(context)
        return encoded


def base_noise(n: int, dim: int, *, generator: torch.Generator) -> Batch:
    """Draw standard Gaussian rows in float32 on the CPU, in blocks of `NOISE_BLOCK_ROWS`."""
    blocks = -(-n // NOISE_BLOCK_ROWS)
    u = torch.empty(blocks * NOISE_BLOCK_ROWS, dim)
    for block in torch.split(u, NOISE_BLOCK_ROWS):
        torch.randn(block.shape, generator=generator, out=block)
    return u[:n]
