"""Explanations of mixed rows: what each cell adds to the log density, given all the others."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import Batch, PerRow
from flows.mixed.encoding import TableEncoding
from flows.specs.columns import HIDDEN, UNSEEN, Layout
from flows.specs.explained import explained, explained_exactly


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
