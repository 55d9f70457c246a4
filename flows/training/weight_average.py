"""Moving average of weights, which generalises better than any of the weights it averages."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def average_share(decay: float, step: int) -> float:
    """Return the share of the weights after a step, counted from 1, in their average."""
    return 1 - min(decay, (1 + step) / (10 + step))


class WeightAverage:
    """Exponential moving average of the weights of a flow (Polyak and Juditsky 1992).

    average <- d average + (1 - d) weights after each step, with d = min(decay, (1 + n)/(10 + n))
    at step n: the first weights are soon forgotten.
    """

    def __init__(self, flow: nn.Module, decay: float) -> None:
        self._weights = dict(flow.named_parameters())
        self._decay = decay
        self._average: dict[str, Tensor] = {}
        self.restart()

    def restart(self) -> None:
        """Restart the average at the present weights."""
        self._average = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Update the average with the weights after a step, counted from 1."""
        share = average_share(self._decay, step)
        for name, weight in self._weights.items():
            self._average[name].lerp_(weight, share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the weights by the average for the duration of the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def tensors(self) -> dict[str, Tensor]:
        """Return a copy of the average, by the names of the weights."""
        return {name: value.clone() for name, value in self._average.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore the average from `tensors`."""
        for name, average in self._average.items():
            average.copy_(tensors[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            kept = weight.clone()
            weight.copy_(self._average[name])
            self._average[name].copy_(kept)
