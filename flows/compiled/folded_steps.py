"""Folded steps of a flow, computed by PyTorch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flows.bijections.base import LOG_TWO_PI
from flows.bijections.folding import Step


class FoldedSteps:
    """Steps from data to noise, on rows whose features come first.

    Attributes:
        sample_rows: Number of rows that a sample should take at a time, at least.
        size_bytes: Memory of the weights, in bytes.
        constant: Constant of each log density, which `log_density` leaves out.
    """

    def __init__(self, steps: Sequence[Step], dim: int) -> None:
        """Take the steps of a flow of `dim` features."""
        last = steps[-1] if steps and steps[-1].own_density else None
        self._steps, self._last = steps, last
        self._before = steps if last is None else steps[:-1]
        self.sample_rows = max((step.sample_rows for step in steps), default=0)
        self.size_bytes = sum(
            t.numel() * t.element_size() for step in steps for t in step.tensors()
        )
        self.constant = 0.0 if last is not None else -0.5 * dim * LOG_TWO_PI

    def log_density(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Return the log density of each row, without the constant."""
        u, terms = _invert(self._before, x, context)
        if self._last is not None:
            return _total([*terms, self._last.log_density(u, context)], u)
        return torch.sub(_total(terms, u), u.square().sum(dim=0), alpha=0.5)

    def log_density_parts(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Return log P(d) and log p(x_O | d), a line each; the only step must be one of mixed rows."""
        return self._steps[0].log_density(x, context)

    def inverse(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return noise and log|det du/dx|."""
        u, terms = _invert(self._steps, x, context)
        return u, _total(terms, u)

    def forward(self, u: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return data and log|det dx/du|."""
        terms = []
        for step in reversed(self._steps):
            u, log_det = step.forward(u, context)
            if log_det is not None:
                terms.append(log_det)
        return u, _total(terms, u)


def _invert(
    steps: Sequence[Step], x: Tensor, context: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    terms = []
    for step in steps:
        x, log_det = step.inverse(x, context)
        if log_det is not None:
            terms.append(log_det)
    return x, terms


def _total(terms: list[Tensor], rows: Tensor) -> Tensor:
    """Return the sum of all log-determinants of each column of `rows`."""
    return torch.cat(terms).sum(dim=0) if terms else rows.new_zeros(rows.shape[1])
