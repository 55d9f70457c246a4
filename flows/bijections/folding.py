"""Layers compiled for inference: what a trained flow is cut into, and how neighbours merge.

A step works on batches with features first, `(dim, batch)`: the sequential sampler writes one
feature of all rows at a time, and the products of wide layers are as fast either way.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

# tanh is written as sigmoid.
FoldedActivation = Literal["relu", "sigmoid", "elu", "gelu"]


class Step(ABC):
    """One compiled layer. Its direction and signs are those of `Bijection`.

    Log-determinants come as any number of rows `(k, batch)` whose sum over k is meant, so that a
    flow adds up all of its layers at once.

    Attributes:
        own_density: whether `log_density` is there, and to be preferred to the inverse.
        sample_rows: rows that samples should be drawn by at the least; a multiple of a block of
            noise, or 1.
    """

    own_density: bool = False
    sample_rows: int = 1

    @abstractmethod
    def inverse(
        self,
        x: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "terms batch"] | None]:
        """Data to noise; None stands for a log-determinant of 0."""

    @abstractmethod
    def forward(
        self,
        u: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "terms batch"] | None]:
        """Noise to data; None stands for a log-determinant of 0."""

    def log_density(
        self,
        x: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> Float[Tensor, "terms batch"]:
        """The log density of data whose noise is standard Gaussian."""
        raise NotImplementedError

    @abstractmethod
    def tensors(self) -> list[Tensor]:
        """Everything that takes memory."""

    def affine_layer(self) -> "MaskedAffine | AffineCoupling | None":
        """The step's numbers, if it is such a layer and has no context."""
        return None


@dataclass(frozen=True)
class MaskedAffine:
    """A masked autoregressive affine layer, its features in natural order.

    Attributes:
        weights: of the layers, masked; the rows of the last are all shifts, then all log scales,
            and its columns may go on with direct ones, for the inputs.
        biases: of the layers.
        degrees: of the inputs and the hidden layers, in rising order.
        activation: between the layers.
    """

    weights: list[Tensor]
    biases: list[Tensor]
    degrees: list[Tensor]
    activation: FoldedActivation


@dataclass(frozen=True)
class AffineCoupling:
    """A coupling layer with weights and biases of its two networks.

    Attributes:
        minus_log_scale: the network with sigmoid hidden units.
        minus_shift: the network with ReLU hidden units.
        copied: how many features are copied.
        places: where each feature stands in the copied ones followed by the moved ones.
    """

    minus_log_scale: list[tuple[Tensor, Tensor]]
    minus_shift: list[tuple[Tensor, Tensor]]
    copied: int
    places: Int[Tensor, " dim"]


@dataclass(frozen=True)
class Pending:
    """The elementwise affine map that still stands before the next layer, towards the data.

    The next layer's true input is `x * scale + shift`. Computed in float64; what a step keeps
    passes through `cast`.

    Attributes:
        log_det: the constant log-determinant, in the inverse direction, of the `AffineStep`s so
            far. A layer that takes the map in counts its log-determinant itself.
        dtype: of the compiled flow.
        device: of the compiled flow.
    """

    scale: Float[Tensor, " dim"]
    shift: Float[Tensor, " dim"]
    log_det: float
    dtype: torch.dtype
    device: torch.device

    @staticmethod
    def nothing(dim: int, *, dtype: torch.dtype, device: torch.device) -> "Pending":
        """The identity."""
        one = torch.ones(dim, dtype=torch.float64)
        return Pending(one, torch.zeros_like(one), 0.0, dtype, device)

    def cleared(self) -> "Pending":
        """The identity, after a layer that took the map in."""
        return self.without(slice(None))

    def applied(self) -> "Pending":
        """The identity, after an `AffineStep`."""
        return replace(self.cleared(), log_det=self.log_det + float(self.scale.log().sum()))

    def without(self, features: slice) -> "Pending":
        """The identity for some features, after a layer that took their part in."""
        scale, shift = self.scale.clone(), self.shift.clone()
        scale[features], shift[features] = 1.0, 0.0
        return replace(self, scale=scale, shift=shift)

    def then_affine(self, scale: Float[Tensor, " dim"], shift: Float[Tensor, " dim"]) -> "Pending":
        """This map, and after it another one with positive scales."""
        return replace(
            self,
            scale=self.scale * scale,
            shift=self.shift * scale + shift,
        )

    def permuted(self, order: Int[Tensor, " dim"]) -> "Pending":
        """This map, seen after the features were put into another order."""
        return replace(self, scale=self.scale[order], shift=self.shift[order])

    def steps(self) -> list["Step"]:
        """The map as a step, if it is not the identity."""
        if bool((self.scale == 1).all()) and bool((self.shift == 0).all()):
            return []
        return [AffineStep(self)]

    def cast(self, tensor: Tensor) -> Tensor:
        """A float64 tensor as the compiled flow keeps it."""
        return tensor.to(self.device, self.dtype).contiguous()


def tanh_as_sigmoid(
    weights: list[Tensor], biases: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of the same network with sigmoid in the place of tanh hidden units.

    tanh z = 2 sigmoid(2 z) - 1, and sigmoid is several times faster than tanh. What the last
    weights have after the columns of the hidden units reads the input, and stays.
    """
    last = len(weights) - 1
    for layer in range(last):
        weights[layer], biases[layer] = 2 * weights[layer], 2 * biases[layer]
        above, width = weights[layer + 1].clone(), len(biases[layer])
        biases[layer + 1] = biases[layer + 1] - above[:, :width].sum(dim=1)
        above[:, :width] *= 2
        weights[layer + 1] = above
    return weights, biases


@runtime_checkable
class Invertible(Protocol):
    """What `LayerStep` wraps: a layer on rows."""

    def forward(self, u: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Noise to data."""

    def inverse(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Data to noise."""

    def log_density(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The log density of rows whose noise is standard Gaussian."""


class AffineStep(Step):
    """An elementwise affine map; its constant log-determinant is counted by `Pending`."""

    def __init__(self, pending: Pending) -> None:
        self.scale = pending.cast(pending.scale[:, None])
        self.shift = pending.cast(pending.shift[:, None])

    def inverse(
        self,
        x: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], None]:
        """Data to noise."""
        return torch.addcmul(self.shift, self.scale, x), None

    def forward(
        self,
        u: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], None]:
        """Noise to data."""
        return (u - self.shift) / self.scale, None

    def tensors(self) -> list[Tensor]:
        """Everything that takes memory."""
        return [self.scale, self.shift]


class PermuteStep(Step):
    """Features in another order: u = x[order]."""

    def __init__(self, order: Tensor, inverse_order: Tensor) -> None:
        self.order = order
        self.inverse_order = inverse_order

    def inverse(
        self,
        x: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], None]:
        """Data to noise."""
        return x.index_select(0, self.order), None

    def forward(
        self,
        u: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], None]:
        """Noise to data."""
        return u.index_select(0, self.inverse_order), None

    def tensors(self) -> list[Tensor]:
        """Everything that takes memory."""
        return [self.order, self.inverse_order]


class LayerStep(Step):
    """A layer as it is, for families without a compiled form of their own."""

    def __init__(
        self, layer: Invertible, tensors: list[Tensor], *, own_density: bool = False
    ) -> None:
        self._layer = layer
        self._tensors = tensors
        self.own_density = own_density

    def inverse(
        self,
        x: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "terms batch"]]:
        """Data to noise."""
        u, log_det = self._layer.inverse(x.t(), _rows(context))
        return u.t(), log_det[None, :]

    def forward(
        self,
        u: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "terms batch"]]:
        """Noise to data."""
        x, log_det = self._layer.forward(u.t(), _rows(context))
        return x.t(), log_det[None, :]

    def log_density(
        self,
        x: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> Float[Tensor, "terms batch"]:
        """The log density of data whose noise is standard Gaussian."""
        return self._layer.log_density(x.t(), _rows(context))[None, :]

    def tensors(self) -> list[Tensor]:
        """Everything that takes memory."""
        return self._tensors


class InvertedStep(Step):
    """A step with its directions swapped."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def inverse(
        self,
        x: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "terms batch"] | None]:
        """Data to noise."""
        return self._step.forward(x, context)

    def forward(
        self,
        u: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "terms batch"] | None]:
        """Noise to data."""
        return self._step.inverse(u, context)

    def tensors(self) -> list[Tensor]:
        """Everything that takes memory."""
        return self._step.tensors()


class SliceStep(Step):
    """A step on some of the features."""

    def __init__(self, step: Step, features: slice) -> None:
        self._step = step
        self._features = features

    def inverse(
        self,
        x: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "terms batch"] | None]:
        """Data to noise."""
        u = x.clone()
        u[self._features], log_det = self._step.inverse(x[self._features].contiguous(), context)
        return u, log_det

    def forward(
        self,
        u: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "terms batch"] | None]:
        """Noise to data."""
        x = u.clone()
        x[self._features], log_det = self._step.forward(u[self._features].contiguous(), context)
        return x, log_det

    def tensors(self) -> list[Tensor]:
        """Everything that takes memory."""
        return self._step.tensors()


def _rows(context: Tensor | None) -> Tensor | None:
    return None if context is None else context.t()
