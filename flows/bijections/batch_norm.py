"""Batch norm as a layer of a flow, and exact statistics of a training set."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.bijections.base import Batch, Bijection, Given, Mapped, Terms
from flows.bijections.network_layers import SCALED, NetworkLayer, Reordering, elementwise
from flows.bijections.observed import Observed, masked, only_observed
from flows.specs.spec import BATCH_NORM_EPS, BatchNormSpec

# Least number of observed values of a feature in a batch, some of which are missing, whose
# statistics are used: those of a few values would mean nothing.
LEAST_OBSERVED = 32


class BatchNorm(Bijection):
    """Batch norm u = (x - m) (v + eps)^-1/2 exp(log_gain) + offset (Dinh et al. 2017, section 3.7).

    log|det du/dx| = sum(log_gain - 1/2 log(v + eps)); eps = 1e-5; v is the population variance.
    In training, the inverse uses mean and variance of the batch, and gradients pass through them.
    In evaluation, and always in the forward direction, it uses the stored ones, so that the density
    of a row never depends on the other rows. With a mask, the statistics are those of the observed
    values; a feature that is observed in less than `LEAST_OBSERVED` rows of a batch, and not in
    all of them, takes the stored ones in training too.
    """

    triangular = True
    is_affine = True
    mean: Tensor
    var: Tensor

    def __init__(self, dim: int, spec: BatchNormSpec) -> None:
        super().__init__()
        self.dim = dim
        self.spec = spec
        # Those of kind `dataset` hold the statistics of the last rows that passed in training.
        self.momentum = spec.momentum if spec.statistics == "running" else 0.0
        self.log_gain = nn.Parameter(torch.zeros(dim))
        self.offset = nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("var", torch.ones(dim))

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        log_scale = self._log_scale()
        x = (u - self.offset) * torch.exp(-log_scale) + self.mean
        return masked(x, observed), -_row_sums(log_scale, u, observed)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        u, log_scale = self._normalised(x, observed)
        return u, _row_sums(log_scale, x, observed)

    def inverse_terms(self, x: Batch, context: Given = None, observed: Observed = None) -> Terms:
        u, log_scale = self._normalised(x, observed)
        return u, masked(log_scale.expand_as(x), observed)

    def _normalised(self, x: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the noise, and the log scale of each feature."""
        mean, var = self.mean, self.var
        if self.training:
            mean, var = self._batch_statistics(x, observed)
        log_scale = self.log_gain - 0.5 * torch.log(var + BATCH_NORM_EPS)
        u = (x - mean) * torch.exp(log_scale) + self.offset
        return masked(u, observed), log_scale

    def network_layers(self) -> list[NetworkLayer | Reordering]:
        log_slope = self._log_scale()
        shift = self.mean - self.offset * torch.exp(-log_slope)
        return [replace(elementwise([shift, log_slope.exp(), log_slope], SCALED), norm=self)]

    def set_statistics(self, mean: Float[Tensor, " dim"], var: Float[Tensor, " dim"]) -> None:
        """Store mean and population variance for evaluation."""
        self.mean.copy_(mean)
        self.var.copy_(var)

    def _batch_statistics(self, x: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return mean and variance to normalise a batch by."""
        if observed is None:
            var, mean = torch.var_mean(x, dim=0, correction=0)
        else:
            seen = observed.sum(dim=0)
            count = seen.clamp(min=1)
            mean = x.sum(dim=0) / count
            var = (masked(x - mean, observed).square()).sum(dim=0) / count
            few = (seen < LEAST_OBSERVED) & (seen < x.shape[0])
            mean, var = torch.where(few, self.mean, mean), torch.where(few, self.var, var)
        with torch.no_grad():
            self.mean.lerp_(mean, 1 - self.momentum)
            self.var.lerp_(var, 1 - self.momentum)
        return mean, var

    def _log_scale(self) -> Float[Tensor, " dim"]:
        return self.log_gain - 0.5 * torch.log(self.var + BATCH_NORM_EPS)


def _row_sums(log_scale: Tensor, rows: Tensor, observed: Tensor | None) -> Tensor:
    """Return the sum of the log scales of the observed features of each row."""
    if observed is None:
        return log_scale.sum().expand(rows.shape[0])
    return masked(log_scale, observed).sum(dim=1)


@torch.no_grad()
def set_dataset_statistics(
    transform: Bijection,
    pieces: Callable[[], Iterator[tuple[Tensor, Tensor | None, Tensor | None]]],
) -> None:
    """Set the exact statistics of a training set in every batch norm of kind `dataset`, from the data on.

    Rows pass each layer once: those in front of a norm are kept.

    Args:
        transform: Bijection in evaluation mode.
        pieces: Function that returns an iterator over chunks of all rows in the model's space, each with
            its encoded context and its mask; called once per batch norm.
    """
    parts, begin = transform.parts(), 0
    kept: list[tuple[Tensor, Tensor | None]] = []
    for index, norm in enumerate(parts):
        if not isinstance(norm, BatchNorm) or norm.spec.statistics != "dataset":
            continue
        for number, (rows, context, observed) in enumerate(pieces()):
            if number == len(kept):
                kept.append((only_observed(rows, observed), observed))
            hidden, mask = kept[number]
            for part in parts[begin:index]:
                hidden = part.inverse(hidden, context, mask)[0]
                mask = part.noise_mask(mask)
            kept[number] = hidden, mask
        norm.set_statistics(*_moments(kept))
        begin = index


def _moments(pieces: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor]:
    """Return mean and population variance of the observed values, in float64.

    They are 0 and 1 for a feature that was observed in less than `LEAST_OBSERVED` rows, and not in
    all of them.
    """

    def summed(rows: Iterator[Tensor]) -> Tensor:
        return torch.stack([some.sum(dim=0, dtype=torch.float64) for some in rows]).sum(dim=0)

    count = summed(torch.ones_like(x) if m is None else m for x, m in pieces)
    known = count.clamp(min=1)
    mean = summed(only_observed(x, m) for x, m in pieces) / known
    var = summed(only_observed((x - mean).square(), m) for x, m in pieces) / known
    few = (count < LEAST_OBSERVED) & (count < count.max())
    return mean.masked_fill(few, 0), var.masked_fill(few, 1)
