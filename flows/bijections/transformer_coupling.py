"""Coupling layers whose elementwise map is any transformer (Durkan et al. 2019, section 3)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import Bijection
from flows.bijections.coupling import CouplingShape
from flows.bijections.folding import Pending, Step, tanh_as_sigmoid
from flows.bijections.gradients import ACTIVATIONS, ActivationName
from flows.bijections.linear import (
    FoldedNetwork,
    apply_folded,
    apply_network,
    network,
    network_parameters,
)
from flows.bijections.transformers import Transformer


class TransformerCoupling(Bijection):
    """Coupling x_a = u_a, x_b = T(u_b; p(u_a, context)), T feature by feature.

    a are the features with an even index, counted from 0, or those with an odd one; b the others.
    T is a transformer with a noise; one network gives all of its parameters. It reads and writes
    the halves by index. Both directions take 1 pass.
    """

    places: Tensor

    def __init__(
        self,
        shape: CouplingShape,
        hidden: list[int],
        activation: ActivationName,
        transformer: Transformer,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.dim = shape.dim
        self.context_dim = shape.context_dim
        self.shape = shape
        self.activation = activation
        self.transformer = transformer
        copied, moved = shape.widths()
        widths = [copied + shape.context_dim, *hidden, transformer.outputs * moved]
        self.layers = network(widths, generator)
        self.register_buffer("places", shape.places(), persistent=False)

    def forward(
        self,
        u: Float[Tensor, "batch dim"],
        context: Float[Tensor, "batch context_dim"] | None = None,
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Map noise to data."""
        copied, moved = self._split(u)
        x, log_det = self.transformer.forward(moved, self._condition(copied, context))
        return self._join(copied, x), log_det.sum(dim=1)

    def inverse(
        self,
        x: Float[Tensor, "batch dim"],
        context: Float[Tensor, "batch context_dim"] | None = None,
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Map data to noise."""
        copied, moved = self._split(x)
        u, log_det = self.transformer.inverse(moved, self._condition(copied, context))
        return self._join(copied, u), log_det.sum(dim=1)

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return one step, after the pending map."""
        weights, biases = network_parameters(self.layers)
        activation_ = ACTIVATIONS[self.activation].apply_
        if self.activation == "tanh":
            weights, biases = tanh_as_sigmoid(weights, biases)
            activation_ = torch.sigmoid_
        step = _TransformerCouplingStep(
            [
                (pending.cast(weight), pending.cast(bias[:, None]))
                for weight, bias in zip(weights, biases, strict=True)
            ],
            halves=self.shape.halves(),
            activation_=activation_,
            transformer=self.transformer.folded(pending),
        )
        return [*pending.steps(), step], pending.applied()

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        copied, moved = self.shape.halves()
        return rows[:, copied], rows[:, moved]

    def _join(self, copied: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([copied, moved], dim=1).index_select(1, self.places)

    def _condition(
        self, copied: Tensor, context: Tensor | None
    ) -> Float[Tensor, "outputs batch moved"]:
        read = copied if context is None else torch.cat([copied, context], dim=1)
        out = apply_network(self.layers, read, ACTIVATIONS[self.activation].apply)
        moved = self.shape.widths()[1]
        return out.view(len(copied), self.transformer.outputs, moved).movedim(1, 0)


class _TransformerCouplingStep(Step):
    """Compiled transformer coupling layer."""

    def __init__(
        self,
        network: FoldedNetwork,
        *,
        halves: tuple[slice, slice],
        activation_: Callable[[Tensor], Tensor],
        transformer: Transformer,
    ) -> None:
        self._copied, self._moved = halves
        self._activation_ = activation_
        self._network = network
        self._transformer = transformer

    def inverse(
        self,
        x: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "moved batch"]]:
        u = x.clone()
        parameters = self._condition(x, context)
        u[self._moved], log_det = self._transformer.inverse(x[self._moved], parameters)
        return u, log_det

    def forward(
        self,
        u: Float[Tensor, "dim batch"],
        context: Float[Tensor, "context_dim batch"] | None = None,
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "moved batch"]]:
        x = u.clone()
        parameters = self._condition(u, context)
        x[self._moved], log_det = self._transformer.forward(u[self._moved], parameters)
        return x, log_det

    def tensors(self) -> list[Tensor]:
        weights = [tensor for pair in self._network for tensor in pair]
        return [*weights, *self._transformer.tensors()]

    def _condition(
        self, rows: Tensor, context: Tensor | None
    ) -> Float[Tensor, "outputs moved batch"]:
        read = rows[self._copied]
        if context is not None:
            read = torch.cat([read, context])
        out = apply_folded(self._network, read, self._activation_)
        return out.view(self._transformer.outputs, -1, rows.shape[1])
