"""Explanations of mixed rows: what each cell adds to the log density, given all the others."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import Batch, PerRow
from flows.mixed.encoding import TableEncoding
from flows.specs.columns import HIDDEN, UNSEEN, Layout

# Most levels of a column whose marginal is computed by a sum over them. Where cells can be hidden, there
# is another way, which takes one pass, for columns of more levels, and for all where sums would take
# more passes in all.
MOST_LEVELS, MOST_SUMMED, MOST_PASSES = 64, 16, 128

Explained = Literal["exact", "learnt", "unavailable"]


def explained(layout: Layout) -> list[bool]:
    """Return which columns have explanations.

    Where cells can be hidden, all have; otherwise those whose explanations are exact.
    """
    exact = explained_exactly(layout)
    return [layout.hides or known for known in exact]


def explained_exactly(layout: Layout) -> list[bool]:
    """Return which columns have exact explanations: those of few levels, by a sum over their levels."""
    if not layout.hides:
        return [0 < column.levels <= MOST_LEVELS for column in layout.columns]
    few = [0 < column.levels <= MOST_SUMMED for column in layout.columns]
    passes = sum(c.states + 1 for c, known in zip(layout.columns, few, strict=True) if known)
    return few if passes <= MOST_PASSES else [False] * len(few)


def explained_kinds(layout: Layout) -> list[Explained]:
    """Return how each column is explained: by a sum over its levels, as learnt, or not at all."""
    kinds = zip(explained(layout), explained_exactly(layout), strict=True)
    return ["exact" if exact else "learnt" if known else "unavailable" for known, exact in kinds]


def explaining_passes(layout: Layout) -> int:
    """Return the passes over the network that explain a batch of rows."""
    kinds = zip(layout.columns, explained(layout), explained_exactly(layout), strict=True)
    return 1 + sum(column.states + 1 if exact else 1 for column, known, exact in kinds if known)


def explain(
    encoding: TableEncoding, x: Batch, log_density: Callable[[Batch], PerRow]
) -> Float[Tensor, "batch columns"]:
    """Return log p(row) - log p(row without the column) of each column; NaN if it has none.

    Args:
        encoding: Encoding of the rows.
        x: Rows of data.
        log_density: Function that returns the log density of rows of the model, in float64.
    """
    rows, terms = encoding.encode(x)
    whole = log_density(rows)
    result = torch.full_like(terms, torch.nan)
    exact = explained_exactly(encoding.layout)
    for number, known in enumerate(explained(encoding.layout)):
        if not known:
            continue
        if exact[number]:
            result[:, number] = whole - _summed(encoding.layout, rows, number, log_density)
        else:
            rest = log_density(encoding.without(rows, number))
            result[:, number] = whole - rest + terms[:, number]
    return torch.where(_hidden(encoding, rows), 0.0, result)


def _hidden(encoding: TableEncoding, rows: Batch) -> Tensor:
    """Return a mask of the cells that are hidden, which add nothing."""
    hidden = torch.zeros(len(rows), len(encoding.layout.columns), dtype=torch.bool)
    for place, variable in enumerate(encoding.layout.variables):
        hidden[:, variable.column] = rows[:, place] == HIDDEN
    return hidden


def _summed(
    layout: Layout, rows: Batch, column: int, log_density: Callable[[Batch], PerRow]
) -> PerRow:
    """Return the log density of the other columns, by a sum over the levels of one."""
    place = next(i for i, v in enumerate(layout.variables) if v.column == column)
    scores = []
    for level in range(UNSEEN, layout.variables[place].size):
        other = rows.clone()
        other[:, place] = torch.where(rows[:, place].isnan(), torch.nan, float(level))
        scores.append(log_density(other))
    return torch.stack(scores).logsumexp(dim=0)
