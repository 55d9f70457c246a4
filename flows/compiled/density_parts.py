"""Parts of log densities, of any family."""

import numpy as np

from flows.compiled.compiled_flow import CompiledFlow
from flows.compiled.model_space import Doubles, Rows
from flows.flow import Space


def density_parts(flow: CompiledFlow, rows: Rows, *, space: Space = "data") -> Doubles:
    """Return log P(d) and log p(x_O | d) of each row, of shape (rows, 2), in nats.

    A family of plain numbers has nothing discrete: its density is the second part.

    Args:
        flow: Compiled flow of any family.
        rows: Rows, float32 or float64: features, then context.
        space: `model` gives the densities of preprocessed rows.
    """
    if flow.has_parts:
        return flow.log_prob_parts(rows, space=space)
    log_prob = flow.log_prob(rows, space=space)
    return np.column_stack([np.where(np.isnan(log_prob), np.nan, 0.0), log_prob])
