"""Batch norm as a layer of a flow, and exact statistics of a training set."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.bijections.base import Batch, BatchContext, Bijection, PerRow
from flows.bijections.folding import Pending, Step
from flows.bijections.gradients import Pullback, batch_normalise_vjp
from flows.cost import FLOAT_BYTES, INDEX_BYTES, OBJECT_BYTES, Cost, Way

EPS = 1e-5


@dataclass(frozen=True)
class BatchNormSpec:
    """Statistics that a trained batch norm uses.

    Attributes:
        statistics: `dataset` for the statistics of the entire training set at that layer, computed
            at each evaluation, or `running` for averages over the training batches.
        momentum: Weight of the past in a running average.
    """

    statistics: Literal["dataset", "running"] = "dataset"
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if self.statistics not in ("dataset", "running"):
            raise ValueError("statistics must be dataset or running")
        if not 0 <= self.momentum < 1:
            raise ValueError("momentum must be at least 0 and below 1")


def batch_norm_cost(dim: int, spec: BatchNormSpec | None) -> Cost:
    """Return the cost of a layer; None stands for no layer."""
    if spec is None:
        return Cost()
    way = Way(kept_row=4 * FLOAT_BYTES * dim, used_row=8 * FLOAT_BYTES * dim)
    return Cost(
        parameters=2 * dim,
        buffers=2 * FLOAT_BYTES * dim,
        folding=8 * INDEX_BYTES * dim,
        compiled=4 * FLOAT_BYTES * dim + 8 * OBJECT_BYTES,
        density=way,
        sampling=way,
    )


class BatchNorm(Bijection):
    """Batch norm u = (x - m) (v + eps)^-1/2 exp(log_gain) + offset (Dinh et al. 2017, section 3.7).

    log|det du/dx| = sum(log_gain - 1/2 log(v + eps)); eps = 1e-5; v is the population variance.
    In training, the inverse uses mean and variance of the batch, and gradients pass through them.
    In evaluation, and always in the forward direction, it uses the stored ones, so that the density
    of a row never depends on the other rows.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, dim: int, spec: BatchNormSpec) -> None:
        super().__init__()
        self.dim = dim
        self.spec = spec
        self.log_gain = nn.Parameter(torch.zeros(dim))
        self.offset = nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("var", torch.ones(dim))

    def forward(self, u: Batch, context: BatchContext = None) -> tuple[Batch, PerRow]:
        """Map noise to data."""
        log_scale = self._log_scale()
        x = (u - self.offset) * torch.exp(-log_scale) + self.mean
        return x, -log_scale.sum().expand(len(u))

    def inverse(self, x: Batch, context: BatchContext = None) -> tuple[Batch, PerRow]:
        """Map data to noise."""
        mean, var = self.mean, self.var
        if self.training:
            var, mean = torch.var_mean(x, dim=0, correction=0)
            self._follow(mean, var)
        log_scale = self.log_gain - 0.5 * torch.log(var + EPS)
        u = (x - mean) * torch.exp(log_scale) + self.offset
        return u, log_scale.sum().expand(len(x))

    def parameter_list(self) -> list[Tensor]:
        """Return the parameters in the order of the gradients of `inverse_vjp`."""
        return [self.log_gain, self.offset]

    def inverse_vjp(self, x: Batch) -> tuple[Batch, Float[Tensor, " #batch"], Pullback]:
        """Return the inverse with its pullback, hand-written for training."""
        if not self.training:
            return super().inverse_vjp(x)
        u, log_det, pullback, statistics = batch_normalise_vjp(
            x, self.log_gain, self.offset, eps=EPS
        )
        self._follow(*statistics)
        return u, log_det, pullback

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Merge into the pending map and return no step."""
        scale = torch.exp(self._log_scale())
        return [], pending.then_affine(scale, self.offset - self.mean * scale)

    def set_statistics(self, mean: Float[Tensor, " dim"], var: Float[Tensor, " dim"]) -> None:
        """Store mean and population variance for evaluation."""
        self.mean.copy_(mean)
        self.var.copy_(var)

    def _log_scale(self) -> Float[Tensor, " dim"]:
        return self.log_gain - 0.5 * torch.log(self.var + EPS)

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor) -> None:
        if self.spec.statistics != "running":
            return
        self.mean.lerp_(mean, 1 - self.spec.momentum)
        self.var.lerp_(var, 1 - self.spec.momentum)


class Moments:
    """Mean and population variance of rows in chunks, in float64 (Chan et al. 1983)."""

    def __init__(self, dim: int, device: torch.device) -> None:
        self._rows = 0
        self._mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self._mean)

    def add(self, x: Batch) -> None:
        """Add further rows."""
        var, mean = torch.var_mean(x.double(), dim=0, correction=0)
        rows = self._rows + len(x)
        step = mean - self._mean
        self._squares += var * len(x) + step.square() * (self._rows * len(x) / rows)
        self._mean += step * (len(x) / rows)
        self._rows = rows

    def result(self) -> tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]]:
        """Return mean and variance of all rows so far."""
        return self._mean, self._squares / self._rows


@torch.no_grad()
def set_dataset_statistics(
    transform: Bijection,
    x: Float[Tensor, "rows dim"],
    context: Float[Tensor, "rows context_dim"] | None = None,
    *,
    chunk_rows: int,
    on_chunk: Callable[[], None] | None = None,
) -> None:
    """Set the exact statistics of a training set in every batch norm of kind `dataset`.

    The layers are handled from the data on: the statistics of one are known before rows pass it.
    Beside the rows this needs one buffer of their size, and works in chunks otherwise.

    Args:
        transform: Bijection in evaluation mode.
        x: Entire training set, in the model's space.
        context: Encoded context of the rows.
        chunk_rows: Number of rows computed at a time.
        on_chunk: Callback after each chunk.
    """
    parts = transform.parts()
    wanted = [
        index
        for index, part in enumerate(parts)
        if isinstance(part, BatchNorm) and part.spec.statistics == "dataset"
    ]
    hidden, start = x.clone(), 0
    for index in wanted:
        moments = Moments(transform.dim, x.device)
        for first in range(0, len(hidden), chunk_rows):
            rows = hidden[first : first + chunk_rows]
            given = None if context is None else context[first : first + chunk_rows]
            for part in parts[start:index]:
                rows.copy_(part.inverse(rows, given)[0])
            moments.add(rows)
            if on_chunk is not None:
                on_chunk()
        norm = parts[index]
        assert isinstance(norm, BatchNorm)  # noqa: S101  by the choice of the indices
        norm.set_statistics(*moments.result())
        start = index


@torch.no_grad()
def stream_dataset_statistics(
    transform: Bijection,
    pieces: Callable[[], Iterator[tuple[Tensor, Tensor | None]]],
    *,
    device: torch.device,
) -> None:
    """Set the exact statistics of rows that do not fit in memory, read once per batch norm.

    Args:
        transform: Bijection in evaluation mode.
        pieces: Returns an iterator over chunks of all rows in the model's space, each with its
            encoded context; called once per batch norm.
        device: Device of the rows.
    """
    parts = transform.parts()
    for index, norm in enumerate(parts):
        if not isinstance(norm, BatchNorm) or norm.spec.statistics != "dataset":
            continue
        moments = Moments(transform.dim, device)
        for rows, context in pieces():
            for part in parts[:index]:
                rows = part.inverse(rows, context)[0]  # noqa: PLW2901  through the layers
            moments.add(rows)
        norm.set_statistics(*moments.result())
