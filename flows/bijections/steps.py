"""Compiled steps of any flow, and runs through several of them."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.folding import Columns, ContextColumns, LogDetTerms, Step
from flows.bijections.network_layers import NetworkLayer, Reordering, within
from flows.bijections.observed import ObservedColumns, only_observed


@runtime_checkable
class Invertible(Protocol):
    """Layer on rows, as `LayerStep` wraps it."""

    def forward(
        self, u: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map noise to data."""

    def inverse(
        self, x: Tensor, context: Tensor | None, observed: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map data to noise."""

    def log_density(self, x: Tensor, context: Tensor | None, observed: Tensor | None) -> Tensor:
        """Return the log density of rows whose noise is standard Gaussian."""


class PermuteStep(Step):
    """Permutation of the features: u = x[order]."""

    def __init__(self, order: Tensor, inverse_order: Tensor) -> None:
        self.order = order
        self.inverse_order = inverse_order

    def inverse(
        self, x: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, None]:
        """Map data to noise."""
        return x.index_select(0, self.order), None

    def forward(
        self, u: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, None]:
        """Map noise to data."""
        return u.index_select(0, self.inverse_order), None

    def noise_mask(self, observed: ObservedColumns) -> ObservedColumns:
        """Return the mask in the order of the noise."""
        return None if observed is None else observed.index_select(0, self.order)

    def tensors(self) -> list[Tensor]:
        """Return the tensors that take memory."""
        return [self.order, self.inverse_order]

    def network_layers(self) -> list[NetworkLayer | Reordering]:
        """Return the permutation."""
        return [Reordering(self.order)]


class LayerStep(Step):
    """Uncompiled layer, for families without a compiled form of their own in PyTorch."""

    def __init__(
        self,
        layer: Invertible,
        tensors: list[Tensor],
        *,
        own_density: bool = False,
        network_layers: Sequence[NetworkLayer] | None = None,
    ) -> None:
        self._layer = layer
        self._tensors = tensors
        self._network_layers = network_layers
        self.own_density = own_density

    def inverse(
        self,
        x: Columns,
        context: ContextColumns = None,
        observed: ObservedColumns = None,
    ) -> tuple[Columns, Float[Tensor, "terms batch"]]:
        """Map data to noise."""
        u, log_det = self._layer.inverse(x.t(), _rows(context), _rows(observed))
        return u.t(), log_det[None, :]

    def forward(
        self,
        u: Columns,
        context: ContextColumns = None,
        observed: ObservedColumns = None,
    ) -> tuple[Columns, Float[Tensor, "terms batch"]]:
        """Map noise to data."""
        x, log_det = self._layer.forward(u.t(), _rows(context), _rows(observed))
        return x.t(), log_det[None, :]

    def log_density(
        self,
        x: Columns,
        context: ContextColumns = None,
        observed: ObservedColumns = None,
    ) -> Float[Tensor, "terms batch"]:
        """Return the log density of data whose noise is standard Gaussian."""
        return self._layer.log_density(x.t(), _rows(context), _rows(observed))[None, :]

    def tensors(self) -> list[Tensor]:
        """Return the tensors that take memory."""
        return self._tensors

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        """Return the layer as weights, if it has such a form."""
        return None if self._network_layers is None else [*self._network_layers]


class InvertedStep(Step):
    """Step with its directions swapped."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def inverse(
        self, x: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, LogDetTerms]:
        """Map data to noise."""
        return self._step.forward(x, context, observed)

    def forward(
        self, u: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, LogDetTerms]:
        """Map noise to data."""
        return self._step.inverse(u, context, observed)

    def tensors(self) -> list[Tensor]:
        """Return the tensors that take memory."""
        return self._step.tensors()

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        """Return the layers of the step, turned."""
        found = self._step.network_layers()
        return None if found is None else [layer.turned() for layer in reversed(found)]


class SliceStep(Step):
    """Step on some of the features."""

    def __init__(self, step: Step, features: slice, dim: int) -> None:
        self._step = step
        self._features = features
        self._dim = dim

    def inverse(
        self, x: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, LogDetTerms]:
        """Map data to noise."""
        u, part = x.clone(), x[self._features].contiguous()
        u[self._features], log_det = self._step.inverse(part, context, self._of(observed))
        return u, log_det

    def forward(
        self, u: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, LogDetTerms]:
        """Map noise to data."""
        x, part = u.clone(), u[self._features].contiguous()
        x[self._features], log_det = self._step.forward(part, context, self._of(observed))
        return x, log_det

    def noise_mask(self, observed: ObservedColumns) -> ObservedColumns:
        """Return the mask of the noise, by that of the step."""
        part = self._step.noise_mask(self._of(observed))
        if observed is None or part is None:
            return None
        mask = observed.clone()
        mask[self._features] = part
        return mask

    def tensors(self) -> list[Tensor]:
        """Return the tensors that take memory."""
        return self._step.tensors()

    def _of(self, observed: Tensor | None) -> Tensor | None:
        return None if observed is None else observed[self._features]

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        """Return the layers of the step, on some of the features."""
        found = self._step.network_layers()
        if found is None:
            return None
        return within(found, torch.arange(self._dim)[self._features], self._dim)


def inverse_steps(
    steps: Sequence[Step],
    x: Columns,
    context: ContextColumns = None,
    observed: ObservedColumns = None,
) -> tuple[Columns, list[Tensor], ObservedColumns]:
    """Map data to noise through steps, from the data to the noise.

    Args:
        steps: Steps of a flow.
        x: Data, 0 where they are not observed.
        context: Encoded context.
        observed: Mask of the data; the layers must have been folded for masks (`Pending.masks`).

    Returns:
        The noise, the terms of the log-determinant, and the mask of the noise.
    """
    terms = []
    for step in steps:
        x, log_det = step.inverse(x, context, observed)
        observed = step.noise_mask(observed)
        if log_det is not None:
            terms.append(log_det)
    return x, terms, observed


def forward_steps(
    steps: Sequence[Step],
    u: Columns,
    context: ContextColumns = None,
    observed: ObservedColumns = None,
) -> tuple[Columns, list[Tensor]]:
    """Map noise to data through steps, which are listed from the data to the noise.

    Args:
        steps: Steps of a flow.
        u: Noise, of all features.
        context: Encoded context.
        observed: Mask of the data, as in `inverse_steps`.

    Returns:
        The data, and the terms of the log-determinant.
    """
    masks = [observed]
    for step in steps:
        masks.append(step.noise_mask(masks[-1]))
    u = only_observed(u, masks.pop())
    terms = []
    for step in reversed(steps):
        u, log_det = step.forward(u, context, masks.pop())
        if log_det is not None:
            terms.append(log_det)
    return u, terms


def _rows(context: Tensor | None) -> Tensor | None:
    return None if context is None else context.t()
