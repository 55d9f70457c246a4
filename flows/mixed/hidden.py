"""Densities of rows with hidden cells as sums over what these may be, of flows whose marginals are exact."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flows.bijections.base import Batch, Given
from flows.specs.columns import HIDDEN, UNSEEN, Layout

# Most terms of the sum of a row, and most rows that are scored at a time for them. The hidden variables of
# the most levels are left out where all would take more: the flow and the probabilities have them hidden.
MOST_FILLINGS = 512


@dataclass(frozen=True)
class Filled:
    """Some rows of the model, each as often as its hidden cells have states, with these.

    Attributes:
        places: Numbers of the rows.
        rows: The rows, all of one row behind each other.
        context: Context of these; None if there is none.
        hidden: Variables that are hidden in truth: they have no value, whatever their state is.
        summed: Places of the variables that are filled.
    """

    places: Tensor
    rows: Batch
    context: Given
    hidden: Bool[Tensor, "batch variables"]
    summed: list[int]

    def by_row(self, values: Tensor) -> Tensor:
        """Return what was computed of the rows by row and filling."""
        return values.reshape(len(self.places), -1, *values.shape[1:])


LogParts = Callable[[Batch, Given, Tensor | None], Float[Tensor, "batch 2"]]


def summed_parts(
    layout: Layout, rows: Batch, context: Given, log_parts: LogParts
) -> Float[Tensor, "batch 2"]:
    """Return log P(d) and log p(x_O | d) of rows of the model, summed over what is hidden.

    Args:
        layout: Places of the cells.
        rows: Rows of the model.
        context: Context of the flow; None if there is none.
        log_parts: Function that returns both parts of rows, given their context and their hidden variables.
    """
    if not bool((rows[:, : len(layout.variables)] == HIDDEN).any()):
        return log_parts(rows, context, None)
    result = rows.new_empty(len(rows), 2)
    for filled in fillings(layout, rows, context):
        parts = filled.by_row(log_parts(filled.rows, filled.context, filled.hidden))
        discrete = parts[:, :, 0].logsumexp(dim=1)
        total = parts.sum(dim=2).logsumexp(dim=1)
        result[filled.places] = torch.stack([discrete, total - discrete], dim=1)
    return result


def fillings(layout: Layout, rows: Batch, context: Given) -> Iterator[Filled]:
    """Yield all rows with all states of their hidden cells, those with the same hidden cells together."""
    hidden = rows[:, : len(layout.variables)] == HIDDEN
    patterns, numbers = torch.unique(hidden, dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        summed, listed = _states(layout, pattern.nonzero()[:, 0].tolist())
        states = torch.tensor(listed, dtype=rows.dtype, device=rows.device)
        count = len(states)
        alike = (numbers == number).nonzero()[:, 0]
        for places in alike.split(max(1, MOST_FILLINGS // count)):
            filled = rows[places].repeat_interleave(count, dim=0)
            filled[:, summed] = states.repeat(len(places), 1)
            given = None if context is None else context[places].repeat_interleave(count, dim=0)
            yield Filled(places, filled, given, pattern.expand(len(filled), -1), summed)


def later_fillings(layout: Layout, summed: list[int]) -> list[int]:
    """Return, for each variable, how many fillings share what is filled up to it."""
    counts = [len(_possible(layout, place)) for place in summed]
    return [
        math.prod(count for at, count in zip(summed, counts, strict=True) if at > place)
        for place in range(len(layout.variables))
    ]


def _states(layout: Layout, hidden: list[int]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Return the hidden variables that are summed over, the smallest ones, and their states together."""
    summed: list[int] = []
    total = 1
    for place in sorted(hidden, key=lambda place: len(_possible(layout, place))):
        total *= len(_possible(layout, place))
        if total <= MOST_FILLINGS:
            summed.append(place)
    return summed, list(itertools.product(*(_possible(layout, place) for place in summed)))


def _possible(layout: Layout, place: int) -> range:
    """Return the states of a variable, an unseen level included."""
    variable = layout.variables[place]
    return range(0 if variable.is_state else UNSEEN, variable.size)
