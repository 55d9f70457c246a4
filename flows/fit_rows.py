"""The rows of a training in the space of the model."""

import numpy as np
import torch
from torch import Tensor

from flows.errors import FitError
from flows.flow import Flow

COPY_ROWS = 65_536


def generator_of(*numbers: int) -> torch.Generator:
    """A generator on the CPU that depends on these numbers alone."""
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


def to_model_space(
    flow: Flow, x: Tensor, noise: torch.Generator, *, name: str
) -> tuple[Tensor, float]:
    """A copy of the rows as the transform takes them, on the flow's device.

    Args:
        flow: whose preprocessing is applied.
        x: features in the data's units, then the columns of a context.
        noise: of the discrete columns.
        name: of the rows, for errors.

    Returns:
        The rows, and what the model's space lacks to a mean log density in the data's units.

    Raises:
        FitError: the rows are no such table, or not finite.
    """
    columns = flow.dim + flow.context_dim
    if x.ndim != 2 or x.shape[1] != columns or len(x) == 0:
        raise FitError(f"the {name} rows must be a table of {columns} columns, not empty")
    result = torch.empty(x.shape, dtype=flow.dtype, device=flow.device)
    total = 0.0
    for target, rows in zip(torch.split(result, COPY_ROWS), torch.split(x, COPY_ROWS), strict=True):
        placed = rows.to(flow.device)
        spread = flow.preprocessing.spread(placed[:, : flow.dim], generator=noise)
        target[:, : flow.dim], log_det = flow.preprocessing.inverse(spread)
        target[:, flow.dim :] = placed[:, flow.dim :]
        total += float(log_det.sum())
        if not torch.isfinite(target).all():
            raise FitError(f"the {name} rows hold values that are not finite")
    return result, total / len(x)
