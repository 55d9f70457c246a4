"""Evaluation of a flow on rows that it was not trained on."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from flows.cost import fitting_rows
from flows.errors import FitError
from flows.flow import Flow
from flows.specs.preprocessing import Space
from flows.training.robust import robust_mean

# Number of rows computed at a time: on a processor the hidden units of a chunk should stay in its
# cache.
CPU_CHUNK_ROWS, GPU_CHUNK_ROWS = 512, 65_536


@runtime_checkable
class Chunked(Protocol):
    """Table that need not be in memory as a whole."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def chunks(self, chunk_rows: int) -> Iterator[Tensor]:
        """Yield all rows, in chunks of at most `chunk_rows`."""


@dataclass(frozen=True)
class Evaluation:
    """Log-likelihood of some rows.

    Attributes:
        mean: Mean log density, in nats.
        two_standard_errors: Two standard errors of the mean; NaN for a single row.
        robust_mean: Mean that single rows cannot ruin (`flows.training.robust`); without a bound,
            the mean.
    """

    mean: float
    two_standard_errors: float
    rows: int
    robust_mean: float


def evaluate(  # noqa: PLR0913  what is scored, how, from where, and a callback
    flow: Flow,
    x: Float[Tensor, "rows columns"] | Chunked,
    *,
    chunk_rows: int | None = None,
    noise_seed: int | None = None,
    space: Space = "data",
    row_loss_bound: float | None = None,
    score: Callable[[Tensor], Tensor] | None = None,
    on_chunk: Callable[[], None] | None = None,
) -> Evaluation:
    """Return the mean log density of rows with two standard errors, in evaluation mode.

    Args:
        flow: Flow, left in the mode that it was in.
        x: Rows on any device, or a table that yields them in chunks: features, then the columns
            of a context.
        chunk_rows: Number of rows computed at a time; None chooses by the device.
        noise_seed: Seed of uniform noise on discrete columns; None takes their values as they are.
        space: `model` leaves the preprocessing out.
        row_loss_bound: Bound of the robust mean, as in `FitOptions`.
        score: Function of rows in that space that returns their log densities as the flow does, but
            faster; None asks the flow.
        on_chunk: Callback after each chunk of rows that is scored.

    Raises:
        FitError: There are no rows.
    """
    if len(x) == 0:
        raise FitError("there are no rows to evaluate")
    chunk_rows = chunk_rows or default_chunk_rows(flow)
    was_training = flow.training
    flow.eval()
    scores: list[Tensor] = []
    with torch.no_grad():
        pieces = torch.split(x, chunk_rows) if isinstance(x, Tensor) else x.chunks(chunk_rows)
        chunks = (rows.to(flow.device) for rows in pieces)
        if noise_seed is not None:
            noise = torch.Generator().manual_seed(noise_seed)
            chunks = (spread_table(flow, rows, noise) for rows in chunks)
        score = score or partial(flow.log_prob_of_table, space=space)
        for rows in chunks:
            scores.append(score(rows))
            if on_chunk is not None:
                on_chunk()
    flow.train(was_training)
    found = torch.cat(scores).double()
    mean = float(found.mean())
    error = 2 * float(found.std()) / math.sqrt(len(x)) if len(x) > 1 else math.nan
    robust = mean
    if row_loss_bound is not None:
        robust = robust_mean(found, row_loss_bound)
    return Evaluation(mean, error, len(x), robust)


def default_chunk_rows(flow: Flow) -> int:
    """Return the best number of rows per chunk on the flow's device."""
    most = CPU_CHUNK_ROWS if flow.device.type == "cpu" else GPU_CHUNK_ROWS
    return fitting_rows(most, flow.row_bytes)


def spread_table(
    flow: Flow, rows: Float[Tensor, "batch columns"], generator: torch.Generator
) -> Float[Tensor, "batch columns"]:
    """Return rows of a table with uniform noise on their discrete features."""
    spread = flow.preprocessing.spread(rows[:, : flow.dim], generator=generator)
    if flow.context_dim == 0:
        return spread
    return torch.cat([spread, rows[:, flow.dim :].to(spread.dtype)], dim=1)
