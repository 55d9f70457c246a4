"""Denormal numbers, which slow training down."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Flush float32 denormals (below 1.2e-38) to zero, in this thread and those that it starts.

    Weight decay pulls weights without a gradient towards zero, and Adam's averages of
    their gradients after them. Intel processors take a hundred times longer for denormals
    than for other numbers: epochs of five minutes come to take fifteen.
    """
    if _takes_denormals_for_zero() or not torch.set_flush_denormal(True):
        yield
        return
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _takes_denormals_for_zero() -> bool:
    return bool(torch.full((1,), torch.finfo(torch.float32).tiny) / 2 == 0)
