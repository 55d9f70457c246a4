"""Explanations of mixed rows: what each cell adds to the log density, given all the others."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import Batch, PerRow
from flows.mixed.columns import UNSEEN, Layout
from flows.mixed.encoding import TableEncoding

# Most levels of a column whose marginal is computed by a sum over them.
MOST_LEVELS = 64


def explained(layout: Layout) -> list[bool]:
    """Return which columns have explanations.

    Where cells can be hidden, all have; otherwise those of few levels, by a sum over their levels,
    which is exact.
    """
    return [layout.hides or 0 < column.levels <= MOST_LEVELS for column in layout.columns]


def explaining_passes(layout: Layout) -> int:
    """Return the passes over the network that explain a batch of rows."""
    columns = [c for c, known in zip(layout.columns, explained(layout), strict=True) if known]
    return 1 + sum(1 if layout.hides else column.states + 1 for column in columns)


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
    for number, known in enumerate(explained(encoding.layout)):
        if not known:
            continue
        if encoding.layout.hides:
            rest = log_density(encoding.without(rows, number))
            result[:, number] = whole - rest + terms[:, number]
        else:
            result[:, number] = whole - _summed(encoding.layout, rows, number, log_density)
    return result


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
