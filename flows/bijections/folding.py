"""Layers compiled for inference: steps of a trained flow, and the merging of neighbours.

A step works on batches with features first, `(dim, batch)`: the sequential sampler writes one
feature of all rows at a time, and the products of wide layers are as fast either way.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flows.bijections.gradients import ACTIVATIONS, ActivationName
from flows.bijections.network_layers import NetworkLayer, Reordering, elementwise
from flows.bijections.observed import ObservedColumns, masked

# Activations of compiled networks; tanh is written as sigmoid.
FoldedActivation = Literal["sigmoid"] | ActivationName

# The same as `Batch` and `BatchContext` with features first, and the terms of a log-determinant.
Columns = Float[Tensor, "dim batch"]
ContextColumns = Float[Tensor, "context_dim batch"] | None
LogDetTerms = Float[Tensor, "terms batch"] | None


class Step(ABC):
    """Compiled layer. Its direction and signs are those of `Bijection`.

    Log-determinants have any number of rows `(k, batch)`, to be summed over k, so that a flow adds
    up all of its layers at once.

    Attributes:
        own_density: True if `log_density` exists and is to be preferred to the inverse.
        sample_rows: Least number of rows that samples should be drawn by; a multiple of a noise
            block, or 1.
    """

    own_density: bool = False
    sample_rows: int = 1

    @abstractmethod
    def inverse(
        self, x: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, LogDetTerms]:
        """Map data to noise; None stands for a log-determinant of 0."""

    @abstractmethod
    def forward(
        self, u: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, LogDetTerms]:
        """Map noise to data; None stands for a log-determinant of 0."""

    def log_density(
        self,
        x: Columns,
        context: ContextColumns = None,
        observed: ObservedColumns = None,
    ) -> Float[Tensor, "terms batch"]:
        """Return the log density of data whose noise is standard Gaussian."""
        raise NotImplementedError

    def noise_mask(self, observed: ObservedColumns) -> ObservedColumns:
        """Return the mask of the noise, from that of the data: steps may reorder features."""
        return observed

    @abstractmethod
    def tensors(self) -> list[Tensor]:
        """Return the tensors that take memory."""

    def network_layers(self) -> list[NetworkLayer | Reordering] | None:
        """Return the step as weights, from the data to the noise; None if it is of another kind."""
        return None


@dataclass(frozen=True)
class Pending:
    """Elementwise affine map that is still to be applied before the next layer, towards the data.

    The next layer's true input is `x * scale + shift`. Computed in float64; tensors that a step
    keeps pass through `cast`.

    Attributes:
        log_det: Constant log-determinant, in the inverse direction, of the `AffineStep`s so far.
            A layer that absorbs the map counts its log-determinant itself.
        dtype: Precision of the compiled flow.
        device: Device of the compiled flow.
        masks: True if the steps will be given masks: an elementwise map, whose log-determinant
            then is another one in each row, stays a step of its own, and nothing is pending.
    """

    scale: Float[Tensor, " dim"]
    shift: Float[Tensor, " dim"]
    log_det: float
    dtype: torch.dtype
    device: torch.device
    masks: bool = False

    @staticmethod
    def nothing(
        dim: int, *, dtype: torch.dtype, device: torch.device, masks: bool = False
    ) -> "Pending":
        """Return the identity."""
        one = torch.ones(dim, dtype=torch.float64)
        return Pending(one, torch.zeros_like(one), 0.0, dtype, device, masks)

    def nothing_of(self, dim: int) -> "Pending":
        """Return the identity of another number of features, for the same compiled flow."""
        return Pending.nothing(dim, dtype=self.dtype, device=self.device, masks=self.masks)

    def cleared(self) -> "Pending":
        """Return the identity, after a layer that absorbed the map."""
        return self.without(slice(None))

    def applied(self) -> "Pending":
        """Return the identity, after an `AffineStep`."""
        return replace(self.cleared(), log_det=self.log_det + float(self.scale.log().sum()))

    def without(self, features: slice) -> "Pending":
        """Return the identity for some features, after a layer that absorbed their part."""
        scale, shift = self.scale.clone(), self.shift.clone()
        scale[features], shift[features] = 1.0, 0.0
        return replace(self, scale=scale, shift=shift)

    def then_affine(self, scale: Float[Tensor, " dim"], shift: Float[Tensor, " dim"]) -> "Pending":
        """Return this map followed by another one with positive scales."""
        return replace(
            self,
            scale=self.scale * scale,
            shift=self.shift * scale + shift,
        )

    def folded_affine(
        self, scale: Float[Tensor, " dim"], shift: Float[Tensor, " dim"]
    ) -> tuple[list["Step"], "Pending"]:
        """Return this map followed by an elementwise layer: a step of its own if there are masks."""
        if not self.masks:
            return [], self.then_affine(scale, shift)
        return [ObservedAffineStep(self.cast(scale[:, None]), self.cast(shift[:, None]))], self

    def permuted(self, order: Int[Tensor, " dim"]) -> "Pending":
        """Return this map after a permutation of the features."""
        return replace(self, scale=self.scale[order], shift=self.shift[order])

    def steps(self) -> list["Step"]:
        """Return the map as a step, if it is not the identity."""
        if bool((self.scale == 1).all()) and bool((self.shift == 0).all()):
            return []
        return [AffineStep(self)]

    def cast(self, tensor: Tensor) -> Tensor:
        """Return a float64 tensor in the precision and on the device of the compiled flow."""
        return tensor.to(self.device, self.dtype).contiguous()


def in_place(activation: FoldedActivation) -> Callable[[Tensor], Tensor]:
    """Return the activation that writes its results in place."""
    return torch.sigmoid_ if activation == "sigmoid" else ACTIVATIONS[activation].apply_


def tanh_as_sigmoid(
    weights: list[Tensor], biases: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return weights and biases of the same network with sigmoid instead of tanh hidden units.

    tanh z = 2 sigmoid(2 z) - 1, and sigmoid is several times faster than tanh. Columns of the last
    weights after those of the hidden units read the input, and stay.
    """
    last = len(weights) - 1
    for layer in range(last):
        weights[layer], biases[layer] = 2 * weights[layer], 2 * biases[layer]
        above, width = weights[layer + 1].clone(), len(biases[layer])
        biases[layer + 1] = biases[layer + 1] - above[:, :width].sum(dim=1)
        above[:, :width] *= 2
        weights[layer + 1] = above
    return weights, biases


class AffineStep(Step):
    """Elementwise affine map; its constant log-determinant is counted by `Pending`."""

    def __init__(self, pending: Pending) -> None:
        self.scale = pending.cast(pending.scale[:, None])
        self.shift = pending.cast(pending.shift[:, None])

    def inverse(
        self, x: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, None]:
        """Map data to noise."""
        return torch.addcmul(self.shift, self.scale, x), None

    def forward(
        self, u: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, None]:
        """Map noise to data."""
        return (u - self.shift) / self.scale, None

    def tensors(self) -> list[Tensor]:
        """Return the tensors that take memory."""
        return [self.scale, self.shift]

    def network_layers(self) -> list[NetworkLayer | Reordering]:
        """Return the map as a layer without inputs."""
        scale, shift = self.scale[:, 0], self.shift[:, 0]
        return [elementwise([-shift / scale, -scale.log()], counts=False)]


class ObservedAffineStep(Step):
    """Elementwise affine map of the observed features, which counts its log-determinant itself."""

    def __init__(self, scale: Float[Tensor, "dim 1"], shift: Float[Tensor, "dim 1"]) -> None:
        self._scale, self._shift = scale, shift
        self._log_scale = scale.log()

    def inverse(
        self, x: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, LogDetTerms]:
        """Map data to noise."""
        u = torch.addcmul(self._shift, self._scale, x)
        return masked(u, observed), self._terms(x, observed)

    def forward(
        self, u: Columns, context: ContextColumns = None, observed: ObservedColumns = None
    ) -> tuple[Columns, LogDetTerms]:
        """Map noise to data."""
        x = (u - self._shift) / self._scale
        return masked(x, observed), -self._terms(u, observed)

    def tensors(self) -> list[Tensor]:
        """Return the tensors that take memory."""
        return [self._scale, self._shift, self._log_scale]

    def network_layers(self) -> list[NetworkLayer | Reordering]:
        """Return the map as a layer without inputs."""
        scale, shift = self._scale[:, 0], self._shift[:, 0]
        return [elementwise([-shift / scale, -scale.log()])]

    def _terms(self, rows: Tensor, observed: Tensor | None) -> Tensor:
        if observed is None:
            return self._log_scale.sum(dim=0, keepdim=True).expand(-1, rows.shape[1])
        return self._log_scale.t() @ observed
