"""Bijections composed of others, and those that reorder features."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from flows.bijections.base import Batch, BatchContext, Bijection, PerRow
from flows.bijections.folding import Pending, Step
from flows.bijections.gradients import Gradients, Pullback, Wanted, add_gradients
from flows.bijections.observed import Observed, only_observed
from flows.bijections.steps import InvertedStep, PermuteStep, SliceStep
from flows.cost import FLOAT_BYTES, INDEX_BYTES, OBJECT_BYTES, Cost, Way


class Chain(Bijection):
    """Composition of layers, listed from the data to the noise."""

    def __init__(self, layers: Sequence[Bijection]) -> None:
        super().__init__()
        self.dim = layers[0].dim
        self.context_dim = max(layer.context_dim for layer in layers)
        self.has_noise = layers[-1].has_noise
        self.own_density = layers[-1].own_density
        self.layers = nn.ModuleList(layers)

    def forward(
        self, u: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map noise to data, through the layers from last to first."""
        masks = [observed]
        for layer in self._bijections():
            masks.append(layer.noise_mask(masks[-1]))
        x, total = only_observed(u, masks.pop()), u.new_zeros(len(u))
        for layer in reversed(self._bijections()):
            x, log_det = layer.forward(x, context, masks.pop())
            total = total + log_det
        return x, total

    def inverse(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map data to noise, through the layers from first to last."""
        return self._inverse(self.parts(), x, context, observed)

    def log_density(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> PerRow:
        """Return the log density of each row; the last layer may have a density of its own."""
        *outer, last = self.parts()
        if not last.own_density:
            return super().log_density(x, context, observed)
        u, total = self._inverse(outer, x, context, observed)
        for part in outer:
            observed = part.noise_mask(observed)
        return total + last.log_density(u, context, observed)

    def _inverse(
        self,
        parts: list[Bijection],
        x: Tensor,
        context: Tensor | None,
        observed: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        x = only_observed(x, observed)
        is_plain = context is None and observed is None
        if parts and _takes_pullbacks(x) and (is_plain or _has_pullbacks(parts)):
            parameters = [tensor for part in parts for tensor in part.parameter_list()]
            u, total = _PartsInverse.apply(parts, observed, x, context, *parameters)  # type: ignore[no-untyped-call]  # torch's own
            return u, total
        return plain_inverse(parts, x, context, observed)

    def noise_mask(self, observed: Observed) -> Observed:
        """Return the mask of the noise, through the layers."""
        for layer in self._bijections():
            observed = layer.noise_mask(observed)
        return observed

    def parts(self) -> list[Bijection]:
        """Return the layers, nested chains flattened."""
        return [part for layer in self._bijections() for part in layer.parts()]

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return the steps of all layers."""
        steps: list[Step] = []
        for layer in self._bijections():
            folded, pending = layer.fold(pending)
            steps += folded
        return steps, pending

    def _bijections(self) -> list[Bijection]:
        return [layer for layer in self.layers if isinstance(layer, Bijection)]


def _takes_pullbacks(x: Tensor) -> bool:
    """Return True if the layers' pullbacks can be used; compilers and autocast need plain code."""
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled(x.device.type)
    )


def _has_pullbacks(parts: list[Bijection]) -> bool:
    """Return True if a layer with parameters has a pullback of its own, faster than autograd's."""
    return any(
        type(part).inverse_vjp is not Bijection.inverse_vjp and bool(part.parameter_list())
        for part in parts
    )


def plain_inverse(
    parts: list[Bijection],
    x: Tensor,
    context: Tensor | None = None,
    observed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Map data to noise through the layers, differentiated by autograd operation by operation."""
    u, total = x, x.new_zeros(len(x))
    for part in parts:
        u, log_det = part.inverse(u, context, observed)
        total = total + log_det
        observed = part.noise_mask(observed)
    return u, total


class _PartsInverse(torch.autograd.Function):
    """Layers as one node of the autograd graph, by their pullbacks.

    If a graph of the gradient itself is needed, the layers are recomputed by autograd, so that
    derivatives of any order are right.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  torch gives it no public type
        parts: list[Bijection],
        observed: Tensor | None,
        x: Tensor,
        context: Tensor | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        u, total, mask, pullbacks = x, x.new_zeros(len(x)), observed, []
        for part in parts:
            u, log_det, pullback = part.inverse_vjp(u, context, mask)
            mask = part.noise_mask(mask)
            total += log_det
            pullbacks.append(pullback)
        ctx.parts, ctx.pullbacks, ctx.observed = parts, pullbacks, observed
        ctx.save_for_backward(x, context, *parameters)
        return u, total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  as above
        inputs = ctx.saved_tensors  # refuses parameters that were changed since
        if torch.is_grad_enabled():
            return None, None, *_differentiable_gradients(ctx, inputs, grads)
        grad_u, grad_log_det = grads
        grad: Tensor | None = grad_u
        grad_context: Tensor | None = None
        found: list[list[Tensor | None]] = []
        _, _, wants_x, wants_context, *_ = ctx.needs_input_grad
        for index in range(len(ctx.pullbacks) - 1, -1, -1):
            wanted = Wanted(index > 0 or wants_x, wants_context)
            gradients: Gradients = ctx.pullbacks[index](grad, grad_log_det, wanted)
            grad, grad_context = gradients.x, add_gradients(grad_context, gradients.context)
            found.append(gradients.parameters)
        flat = [tensor for grad_parameters in reversed(found) for tensor in grad_parameters]
        return None, None, grad, grad_context, *flat


def _differentiable_gradients(
    ctx: Any,  # noqa: ANN401  torch gives it no public type
    inputs: Sequence[Tensor | None],
    grads: Sequence[Tensor],
) -> list[Tensor | None]:
    """Return gradients that have a graph of their own; running averages stay unchanged."""
    buffers = [(buffer, buffer.clone()) for part in ctx.parts for buffer in part.buffers()]
    x, context, *_ = inputs
    assert x is not None  # noqa: S101  the rows
    results = plain_inverse(ctx.parts, x, context, ctx.observed)
    for buffer, kept in buffers:
        if not torch.equal(buffer, kept):
            buffer.copy_(kept)
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    found = iter(torch.autograd.grad(results, wanted, grads, create_graph=True, allow_unused=True))
    return [
        next(found) if tensor is not None and tensor.requires_grad else None for tensor in inputs
    ]


class Inverted(Bijection):
    """Layer with its directions swapped."""

    def __init__(self, layer: Bijection) -> None:
        super().__init__()
        self.dim = layer.dim
        self.context_dim = layer.context_dim
        self.layer = layer

    def forward(
        self, u: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map noise to data: the layer's inverse."""
        return self.layer.inverse(u, context, observed)

    def inverse(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map data to noise: the layer's forward direction."""
        return self.layer.forward(x, context, observed)

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return the inverted steps of the layer, after the pending map."""
        nothing = pending.nothing_of(self.dim)
        steps, rest = self.layer.fold(nothing)
        constant = rest.applied().log_det
        turned = [InvertedStep(step) for step in reversed([*steps, *rest.steps()])]
        done = pending.applied()
        return [*pending.steps(), *turned], replace(done, log_det=done.log_det - constant)


class Slice(Bijection):
    """Layer that acts on some of the features; the others pass unchanged."""

    def __init__(self, dim: int, features: slice, layer: Bijection) -> None:
        super().__init__()
        self.dim = dim
        self.context_dim = layer.context_dim
        self.features = features
        self.layer = layer

    def forward(
        self, u: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map noise to data."""
        part, log_det = self.layer.forward(u[:, self.features], context, self._of(observed))
        return self._with(u, part), log_det

    def inverse(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map data to noise."""
        part, log_det = self.layer.inverse(x[:, self.features], context, self._of(observed))
        return self._with(x, part), log_det

    def noise_mask(self, observed: Observed) -> Observed:
        """Return the mask of the noise, by that of the layer."""
        part = self.layer.noise_mask(self._of(observed))
        return None if observed is None or part is None else self._with(observed, part)

    def parameter_list(self) -> list[Tensor]:
        """Return the parameters of the layer, in its order."""
        return self.layer.parameter_list()

    def inverse_vjp(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, Float[Tensor, " #batch"], Pullback]:
        """Return the inverse with its pullback, by that of the layer."""
        rows = x[:, self.features]
        part, log_det, inner = self.layer.inverse_vjp(rows, context, self._of(observed))

        def pullback(grad_u: Tensor, grad_log_det: Tensor, wanted: Wanted) -> Gradients:
            found = inner(grad_u[:, self.features], grad_log_det, wanted)
            return found._replace(x=None if found.x is None else self._with(grad_u, found.x))

        return self._with(x, part), log_det, pullback

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return the layer's steps on its features; the pending map of the other features stays."""
        inner = replace(
            pending.nothing_of(self.layer.dim),
            scale=pending.scale[self.features],
            shift=pending.shift[self.features],
        )
        steps, rest = self.layer.fold(inner)
        scale, shift = pending.scale.clone(), pending.shift.clone()
        scale[self.features], shift[self.features] = rest.scale, rest.shift
        log_det = pending.log_det + rest.log_det
        sliced: list[Step] = [SliceStep(step, self.features, self.dim) for step in steps]
        return sliced, replace(pending, scale=scale, shift=shift, log_det=log_det)

    def _of(self, observed: Tensor | None) -> Tensor | None:
        return None if observed is None else observed[:, self.features]

    def _with(self, rows: Tensor, part: Tensor) -> Tensor:
        result = rows.clone()
        result[:, self.features] = part
        return result


def permutation_cost(dim: int) -> Cost:
    """Return the cost of a permutation of the features."""
    orders = 2 * INDEX_BYTES * dim
    way = Way(kept_row=FLOAT_BYTES * dim, used_row=4 * FLOAT_BYTES * dim)
    return Cost(
        buffers=orders,
        building=orders,
        folding=orders,
        compiled=orders + 2 * OBJECT_BYTES,
        density=way,
        sampling=way,
    )


class Permutation(Bijection):
    """Permutation of the features: u = x[order]; the log-determinant is 0."""

    order: Tensor
    inverse_order: Tensor

    def __init__(self, order: Int[Tensor, " dim"]) -> None:
        super().__init__()
        self.dim = len(order)
        self.register_buffer("order", order.clone())
        self.register_buffer("inverse_order", torch.argsort(order))

    def forward(
        self, u: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map noise to data."""
        return u.index_select(1, self.inverse_order), u.new_zeros(len(u))

    def inverse(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map data to noise."""
        return x.index_select(1, self.order), x.new_zeros(len(x))

    def noise_mask(self, observed: Observed) -> Observed:
        """Return the mask in the order of the noise."""
        return None if observed is None else observed.index_select(1, self.order)

    def parameter_list(self) -> list[Tensor]:
        """Return no parameters."""
        return []

    def inverse_vjp(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, Float[Tensor, " #batch"], Pullback]:
        """Return the inverse with its pullback, the inverse permutation."""
        back = self.inverse_order
        u = x.index_select(1, self.order)
        return u, x.new_zeros(1), lambda grad, *_: Gradients(grad.index_select(1, back), [])

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return a permutation step, before the pending map."""
        order, back = self.order.to(pending.device), self.inverse_order.to(pending.device)
        return [PermuteStep(order, back)], pending.permuted(self.order)


class Reverse(Bijection):
    """Features in reversed order; the log-determinant is 0."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(
        self, u: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map noise to data."""
        return u.flip(1), u.new_zeros(len(u))

    def inverse(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, PerRow]:
        """Map data to noise."""
        return x.flip(1), x.new_zeros(len(x))

    def noise_mask(self, observed: Observed) -> Observed:
        """Return the mask in the order of the noise."""
        return None if observed is None else observed.flip(1)

    def parameter_list(self) -> list[Tensor]:
        """Return no parameters."""
        return []

    def inverse_vjp(
        self, x: Batch, context: BatchContext = None, observed: Observed = None
    ) -> tuple[Batch, Float[Tensor, " #batch"], Pullback]:
        """Return the inverse with its pullback, another reversal."""
        return x.flip(1), x.new_zeros(1), lambda grad, *_: Gradients(grad.flip(1), [])

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Return a permutation step, before the pending map."""
        order = torch.arange(self.dim - 1, -1, -1)
        placed = order.to(pending.device)
        return [PermuteStep(placed, placed)], pending.permuted(order)
