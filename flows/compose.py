"""Bijections made of others, and the two that rearrange and rescale features."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from flows.base import Bijection
from flows.folding import Pending, PermuteStep, Step
from flows.fused import Pullback


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
        if torch.is_grad_enabled():
            parts = self.parts()
            parameters = [tensor for part in parts for tensor in part.parameter_list()]
            u, total = _ChainInverse.apply(self, parts, x, *parameters)  # type: ignore[no-untyped-call]  # torch's own
            return u, total
        return self.plain_inverse(x)

    def plain_inverse(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """The same, left to autograd operation by operation."""
        u, total = x, x.new_zeros(len(x))
        for part in self.parts():
            u, log_det = part.inverse(u)
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


class _ChainInverse(torch.autograd.Function):
    """A chain as one node of the graph, by the pullbacks of its layers.

    Where a graph of the gradient itself is asked for, the chain is computed again the plain way,
    so derivatives of any order are right.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  torch gives it no public type
        chain: Chain,
        parts: list[Bijection],
        x: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        u, total, pullbacks = x, x.new_zeros(len(x)), []
        for part in parts:
            u, log_det, pullback = part.inverse_vjp(u)
            total += log_det
            pullbacks.append(pullback)
        ctx.chain, ctx.pullbacks = chain, pullbacks
        ctx.save_for_backward(x, *parameters)
        return u, total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  as above
        inputs = ctx.saved_tensors  # refuses parameters that were changed since
        if torch.is_grad_enabled():
            return None, None, *_differentiable_gradients(ctx.chain, inputs, grads)
        grad_u, grad_log_det = grads
        grad: Tensor | None = grad_u
        found: list[list[Tensor | None]] = []
        for index in range(len(ctx.pullbacks) - 1, -1, -1):
            wants_x = index > 0 or ctx.needs_input_grad[2]
            grad, grad_parameters = ctx.pullbacks[index](grad, grad_log_det, wants_x)
            found.append(grad_parameters)
        flat = [tensor for grad_parameters in reversed(found) for tensor in grad_parameters]
        return None, None, grad, *flat


def _differentiable_gradients(
    chain: Chain, inputs: Sequence[Tensor], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """Gradients with a graph of their own; running averages are left as they were."""
    buffers = [(buffer, buffer.clone()) for buffer in chain.buffers()]
    results = chain.plain_inverse(inputs[0])
    for buffer, kept in buffers:
        if not torch.equal(buffer, kept):
            buffer.copy_(kept)
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(results, wanted, grads, create_graph=True, allow_unused=True))
    return [next(found) if tensor.requires_grad else None for tensor in inputs]


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

    def parameter_list(self) -> list[Tensor]:
        """There are none."""
        return []

    def inverse_vjp(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " #batch"], Pullback]:
        """The inverse with its pullback, the permutation back."""
        back = self.inverse_order
        u = x.index_select(1, self.order)
        return u, x.new_zeros(1), lambda grad, _log_det, _wants_x: (grad.index_select(1, back), [])

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

    def parameter_list(self) -> list[Tensor]:
        """There are none."""
        return []

    def inverse_vjp(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " #batch"], Pullback]:
        """The inverse with its pullback, another reversal."""
        return x.flip(1), x.new_zeros(1), lambda grad, _log_det, _wants_x: (grad.flip(1), [])

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
