"""Bijections composed of others, and those that reorder features."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from flows.bijections.base import Batch, Bijection, Given, Mapped, PerRow
from flows.bijections.network_layers import NetworkLayer, Reordering, within
from flows.bijections.observed import Observed, only_observed


class Chain(Bijection):
    """Composition of layers, listed from the data to the noise."""

    def __init__(self, layers: Sequence[Bijection]) -> None:
        super().__init__()
        self.dim = layers[0].dim
        self.context_dim = max(layer.context_dim for layer in layers)
        self.has_noise = layers[-1].has_noise
        self.own_density = layers[-1].own_density
        self.layers = nn.ModuleList(layers)

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        masks = [observed]
        for layer in self._bijections():
            masks.append(layer.noise_mask(masks[-1]))
        x, total = only_observed(u, masks.pop()), u.new_zeros(u.shape[0])
        for layer in reversed(self._bijections()):
            x, log_det = layer.forward(x, context, masks.pop())
            total = total + log_det
        return x, total

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        x = only_observed(x, observed)
        return _inverse(self.parts(), x, context, observed)

    def log_density(self, x: Batch, context: Given = None, observed: Observed = None) -> PerRow:
        *outer, last = self.parts()
        if not last.own_density:
            return super().log_density(x, context, observed)
        x = only_observed(x, observed)
        u, total = _inverse(outer, x, context, observed)
        for part in outer:
            observed = part.noise_mask(observed)
        return total + last.log_density(u, context, observed)

    def noise_mask(self, observed: Observed) -> Observed:
        for layer in self._bijections():
            observed = layer.noise_mask(observed)
        return observed

    def parts(self) -> list[Bijection]:
        return [part for layer in self._bijections() for part in layer.parts()]

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        found: list[NetworkLayer | Reordering] = []
        for layer in self._bijections():
            layers = layer.network_layers()
            if layers is None:
                return None
            found += layers
        return found

    def _bijections(self) -> list[Bijection]:
        return [layer for layer in self.layers if isinstance(layer, Bijection)]


def _inverse(
    parts: list[Bijection], x: Tensor, context: Tensor | None, observed: Tensor | None
) -> tuple[Tensor, Tensor]:
    u, total = x, x.new_zeros(x.shape[0])
    for part in parts:
        u, log_det = part.inverse(u, context, observed)
        total = total + log_det
        observed = part.noise_mask(observed)
    return u, total


class Inverted(Bijection):
    """Layer with its directions swapped."""

    def __init__(self, layer: Bijection) -> None:
        super().__init__()
        self.dim = layer.dim
        self.context_dim = layer.context_dim
        self.layer = layer

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        return self.layer.inverse(u, context, observed)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        return self.layer.forward(x, context, observed)

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        found = self.layer.network_layers()
        return None if found is None else [layer.turned() for layer in reversed(found)]


class Slice(Bijection):
    """Layer that acts on some of the features; the others pass unchanged."""

    def __init__(self, dim: int, features: slice, layer: Bijection) -> None:
        super().__init__()
        self.dim = dim
        self.context_dim = layer.context_dim
        self.features = features
        self.layer = layer

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        part, log_det = self.layer.forward(u[:, self.features], context, self._of(observed))
        return self._with(u, part), log_det

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        part, log_det = self.layer.inverse(x[:, self.features], context, self._of(observed))
        return self._with(x, part), log_det

    def noise_mask(self, observed: Observed) -> Observed:
        part = self.layer.noise_mask(self._of(observed))
        return None if observed is None or part is None else self._with(observed, part)

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        found = self.layer.network_layers()
        if found is None:
            return None
        return within(found, np.arange(self.dim)[self.features], self.dim)

    def _of(self, observed: Tensor | None) -> Tensor | None:
        return None if observed is None else observed[:, self.features]

    def _with(self, rows: Tensor, part: Tensor) -> Tensor:
        result = rows.clone()
        result[:, self.features] = part
        return result


class Permutation(Bijection):
    """Permutation of the features: u = x[order]; the log-determinant is 0."""

    order: Tensor
    inverse_order: Tensor

    def __init__(self, order: Int[Tensor, " dim"]) -> None:
        super().__init__()
        self.dim = len(order)
        self.register_buffer("order", order.clone())
        self.register_buffer("inverse_order", torch.argsort(order))

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        return u.index_select(1, self.inverse_order), u.new_zeros(u.shape[0])

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        return x.index_select(1, self.order), x.new_zeros(x.shape[0])

    def noise_mask(self, observed: Observed) -> Observed:
        return None if observed is None else observed.index_select(1, self.order)

    def network_layers(self) -> list[NetworkLayer | Reordering]:
        return [Reordering(self.order.cpu().numpy())]


class Reverse(Bijection):
    """Features in reversed order; the log-determinant is 0."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        return u.flip(1), u.new_zeros(u.shape[0])

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        return x.flip(1), x.new_zeros(x.shape[0])

    def noise_mask(self, observed: Observed) -> Observed:
        return None if observed is None else observed.flip(1)

    def network_layers(self) -> list[NetworkLayer | Reordering]:
        return [Reordering(np.arange(self.dim)[::-1])]
