"""Flows: densities over the rows of a table."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from flows.bijections.base import Batch, Bijection, PerRow
from flows.cost import NO_OPERATIONS, NOISE_BLOCK_ROWS, Operations
from flows.errors import FlowError
from flows.latent import Decoder
from flows.preprocess import Preprocessing, Standardise
from flows.specs.preprocessing import Space


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
        operations: Time of a few rows, zeros if unknown.
        decoder: Generative model of the context given the rows, which are its latent variables; None
            if there is none.
        companion: Mixture over all columns, from which questions about some of them are answered; None
            if none was fitted.
    """

    def __init__(
        self,
        transform: Bijection,
        preprocessing: Preprocessing | None = None,
        *,
        context: "Context | None" = None,
        decoder: Decoder | None = None,
        row_bytes: int = 0,
        operations: Operations = NO_OPERATIONS,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.preprocessing = preprocessing or Preprocessing()
        self.model_dim = transform.dim
        self.dim = self.preprocessing.data_dim or transform.dim
        self.context = context
        self.context_dim = 0 if context is None else context.dim
        self.model_columns = self.model_dim + (0 if context is None else context.model_dim)
        self.decoder = decoder
        self.companion: nn.Module | None = None
        self.row_bytes, self.operations = row_bytes, operations

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
            context: Values that the density is conditioned on, in their own units; one row stands
                for all.
            space: `model` leaves the preprocessing out.
        """
        x, log_det = self.transform.forward(u.to(self.dtype), self.features(context, u.shape[0]))
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
            context: Values that the density is conditioned on, as in `forward`.
            space: `model` leaves the preprocessing out.

        Raises:
            FlowError: The density has no noise (see `has_noise`).
        """
        x, outer = self._to_model(x, space)
        u, log_det = self.transform.inverse(x, self.features(context, x.shape[0]))
        return u, log_det if outer is None else log_det + outer

    def log_prob(
        self,
        x: Batch,
        context: Float[Tensor, "#batch context_dim"] | None = None,
        *,
        space: Space = "data",
    ) -> PerRow:
        """Return the log density of each row in nats, conditioned on its context if there is one.

        That of a row that lacks no value is never NaN, but -inf where the row is too far from the data
        for floating point. Only a training step, where NaN means divergence, leaves it.

        Args:
            context: Values that the density is conditioned on, as in `forward`.
            space: `model` gives the density of the preprocessed rows.
        """
        model, outer = self._to_model(x, space)
        score = self.transform.log_density(model, self.features(context, x.shape[0]))
        return self._without_nan(score if outer is None else score + outer, x, context, space)

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
        score = self.transform.log_density(x.to(self.dtype), self.model_features(context))
        return self._without_nan(score, rows, None, space)

    def log_prob_parts(
        self,
        x: Batch,
        context: Float[Tensor, "#batch context_dim"] | None = None,
        *,
        space: Space = "data",
    ) -> Float[Tensor, "batch 2"]:
        """Return log P(d) and log p(x_O | d) of each row: log densities of its parts, in nats.

        Args:
            context: Values that the density is conditioned on, as in `forward`.
            space: `model` gives the densities of preprocessed rows.

        Raises:
            FlowError: The density has no parts: it is of another family than `mixed`.
        """
        model, outer = self._to_model(x, space)
        parts = self.transform.log_parts(model, self.features(context, x.shape[0]))
        parts = parts if outer is None else parts + F.pad(outer[:, None], (1, 0))
        return self._without_nan(parts, x, context, space)

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
            generator: Random generator on the CPU.
            context: One context row for all samples, or one for each.
            space: `model` gives preprocessed rows.
        """
        u = base_noise(n, self.model_dim, generator=generator)
        x, _ = self.forward(u.to(self.device), context, space=space)
        return x if space == "model" else self.preprocessing.to_grid(x)

    def _without_nan(
        self, scores: Tensor, x: Tensor, context: Tensor | None, space: Space
    ) -> Tensor:
        """Return scores with -inf in the place of NaN where the row itself lacks nothing."""
        if self.training and torch.is_grad_enabled():
            return scores
        complete = partial(complete_rows, self.preprocessing, self.context, x, context, space=space)
        return without_nan(scores, complete)

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


def without_nan(scores: Tensor, complete: Callable[[], Tensor]) -> Tensor:
    """Return scores with -inf in the place of NaN where the row itself lacks nothing.

    Args:
        scores: Log densities of rows, or several terms of each row.
        complete: Function that returns True for each row that lacks nothing, called where it is needed.
    """
    unknown = scores.isnan()
    if not bool(unknown.any()):
        return scores
    known = complete().to(scores.device).view(-1, *[1] * (scores.dim() - 1))
    return torch.where(unknown & known, -torch.inf, scores)


def complete_rows(
    preprocessing: Preprocessing,
    given: "Context | None",
    x: Batch,
    context: Float[Tensor, "#batch columns"] | None,
    *,
    space: Space,
) -> Bool[Tensor, " batch"]:
    """Return True for each row that lacks no value that its density needs.

    Args:
        given: Context of the flow; None if it is unconditional.
        context: Rows of the context, in their own units; one row stands for all.
    """
    complete = x.isfinite().all(dim=1) if space == "model" else preprocessing.is_complete(x)
    if given is None or context is None:
        return complete
    return complete & given.is_complete(context).to(complete.device)


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

    def is_complete(self, context: Float[Tensor, "batch columns"]) -> Bool[Tensor, " batch"]:
        """Return True for each row that lacks no value: what it stands for is finite."""
        return self._numbers(self.prepare(context.double())).isfinite().all(dim=1)

    def _numbers(self, context: Tensor) -> Tensor:
        if self.table is not None:
            context = self.table.features(context)
        if self.standardise is not None:
            context, _ = self.standardise.inverse(context)
        return context

    def encode(
        self, context: Float[Tensor, "batch columns"], dtype: torch.dtype
    ) -> Float[Tensor, "batch features"]:
        """Standardise preprocessed rows in float64, then encode them."""
        context = self._numbers(context).to(dtype)
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
