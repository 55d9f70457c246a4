"""Bijections made of others, and the two that rearrange and rescale features."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from flows.base import Bijection
from flows.folding import Pending, PermuteStep, Step


class Chain(Bijection):
    """Layers one after another, listed from the data to the noise."""

    def __init__(self, layers: Sequence[Bijection]) -> None:
        super().__init__()
        self.dim = layers[0].dim
        self.layers = nn.ModuleList(layers)

    def forward(
        self, u: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Noise to data, through the layers from the last to the first."""
        x, total = u, u.new_zeros(len(u))
        for layer in reversed(self._bijections()):
            x, log_det = layer.forward(x)
            total = total + log_det
        return x, total

    def inverse(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Data to noise, through the layers from the first to the last."""
        u, total = x, x.new_zeros(len(x))
        for layer in self._bijections():
            u, log_det = layer.inverse(u)
            total = total + log_det
        return u, total

    def parts(self) -> list[Bijection]:
        """The layers, chains among them taken apart."""
        return [part for layer in self._bijections() for part in layer.parts()]

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """The steps of all layers."""
        steps: list[Step] = []
        for layer in self._bijections():
            folded, pending = layer.fold(pending)
            steps += folded
        return steps, pending

    def _bijections(self) -> list[Bijection]:
        return [layer for layer in self.layers if isinstance(layer, Bijection)]


class Permutation(Bijection):
    """Features in another order: u = x[order]; the log-determinant is 0."""

    order: Tensor
    inverse_order: Tensor

    def __init__(self, order: Int[Tensor, " dim"]) -> None:
        super().__init__()
        self.dim = len(order)
        self.register_buffer("order", order.clone())
        self.register_buffer("inverse_order", torch.argsort(order))

    def forward(
        self, u: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Noise to data."""
        return u.index_select(1, self.inverse_order), u.new_zeros(len(u))

    def inverse(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Data to noise."""
        return x.index_select(1, self.order), x.new_zeros(len(x))

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """A change of order, before the pending map."""
        order, back = self.order.to(pending.device), self.inverse_order.to(pending.device)
        return [PermuteStep(order, back)], pending.permuted(self.order)


class Reverse(Bijection):
    """Features in reversed order; the log-determinant is 0."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(
        self, u: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Noise to data."""
        return u.flip(1), u.new_zeros(len(u))

    def inverse(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Data to noise."""
        return x.flip(1), x.new_zeros(len(x))

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """A change of order, before the pending map."""
        order = torch.arange(self.dim - 1, -1, -1)
        placed = order.to(pending.device)
        return [PermuteStep(placed, placed)], pending.permuted(order)


class Standardise(Bijection):
    """u = (x - mean) / std, in float64."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, " dim"], std: Float[Tensor, " dim"]) -> None:
        super().__init__()
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError("standardisation needs finite means and positive, finite deviations")
        self.dim = len(mean)
        self.register_buffer("mean", mean.double().clone())
        self.register_buffer("std", std.double().clone())

    def forward(
        self, u: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Noise to data."""
        return u * self.std + self.mean, self.std.log().sum().expand(len(u))

    def inverse(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Data to noise."""
        return (x - self.mean) / self.std, -self.std.log().sum().expand(len(x))
