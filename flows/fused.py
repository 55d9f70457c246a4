"""Hand-written gradients of the two layers in which training spends its time.

Ordinary autograd costs a graph node and several temporaries for each of a dozen small operations
a layer; here a layer is one node. Where a graph of the gradient itself is asked for, the layer is
computed again from ordinary operations, so derivatives of any order are right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

ActivationName = Literal["relu", "tanh", "elu", "gelu"]


@dataclass(frozen=True)
class Activation:
    """A nonlinearity and its derivative.

    Attributes:
        apply: the function.
        apply_: the function, in place.
        gradient_: from the gradient of the output, and what was kept, that of the input; in place.
        keeps_input: whether `gradient_` reads the function's input, not its output.
    """

    apply: Callable[[Tensor], Tensor]
    apply_: Callable[[Tensor], Tensor]
    gradient_: Callable[[Tensor, Tensor], Tensor]
    keeps_input: bool = False


aten = torch.ops.aten

ACTIVATIONS: dict[ActivationName, Activation] = {
    "relu": Activation(
        F.relu,
        torch.relu_,
        lambda g, h: aten.threshold_backward.grad_input(g, h, 0, grad_input=g),
    ),
    "tanh": Activation(
        torch.tanh, torch.tanh_, lambda g, h: aten.tanh_backward.grad_input(g, h, grad_input=g)
    ),
    "elu": Activation(
        F.elu,
        F.elu_,
        lambda g, h: aten.elu_backward.grad_input(
            g, 1, 1, 1, is_result=True, self_or_result=h, grad_input=g
        ),
    ),
    "gelu": Activation(
        F.gelu,
        aten.gelu_,
        lambda g, z: aten.gelu_backward.grad_input(g, z, grad_input=g),
        keeps_input=True,
    ),
}


def masked_affine(
    x: Float[Tensor, "batch dim"],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    masks: Sequence[Tensor],
    *,
    activation: Activation,
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
    """Gives u = (x - shift) exp(-log_scale), shift and log_scale from a masked network of x.

    Args:
        x: data.
        weights: of the network's layers, 0 where their mask is 0.
        biases: of the network's layers.
        masks: of the weights; only the gradients pass through them.
        activation: between the layers.

    Returns:
        The noise, and the log-determinant `-log_scale.sum(1)`.
    """
    u, log_det = _MaskedAffine.apply(x, activation, tuple(masks), *weights, *biases)  # type: ignore[no-untyped-call]  # torch\'s own
    return u, log_det


def plain_masked_affine(
    x: Float[Tensor, "batch dim"],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    masks: Sequence[Tensor],
    *,
    activation: Activation,
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
    """The same from ordinary operations, whatever the weights hold where their mask is 0."""
    shift, log_scale = conditioner(x, weights, biases, masks, activation=activation)
    return (x - shift) * torch.exp(-log_scale), -log_scale.sum(dim=1)


def conditioner(
    x: Float[Tensor, "batch dim"],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    masks: Sequence[Tensor],
    *,
    activation: Activation,
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
    """The masked network: shift and log_scale of each feature."""
    h = x
    for weight, bias, mask in zip(weights[:-1], biases[:-1], masks[:-1], strict=True):
        h = activation.apply(F.linear(h, weight * mask, bias))
    shift, log_scale = F.linear(h, weights[-1] * masks[-1], biases[-1]).chunk(2, dim=1)
    return shift, log_scale


def batch_normalise(
    x: Float[Tensor, "batch dim"],
    log_gain: Float[Tensor, " dim"],
    offset: Float[Tensor, " dim"],
    *,
    eps: float,
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, ""], Tensor, Tensor]:
    """Batch norm by the statistics of the batch itself.

    Returns:
        The normalised batch, the log-determinant (the same for every row), and the batch's mean
        and population variance, which carry no gradient.
    """
    u, log_det, mean, var = _BatchNormalise.apply(x, log_gain, offset, eps)  # type: ignore[no-untyped-call]  # torch\'s own
    return u, log_det, mean, var


def plain_batch_normalise(
    x: Float[Tensor, "batch dim"],
    log_gain: Float[Tensor, " dim"],
    offset: Float[Tensor, " dim"],
    *,
    eps: float,
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, ""]]:
    """The same from ordinary operations."""
    var, mean = torch.var_mean(x, dim=0, correction=0)
    u = (x - mean) * torch.rsqrt(var + eps) * torch.exp(log_gain) + offset
    return u, (log_gain - 0.5 * torch.log(var + eps)).sum()


class _MaskedAffine(torch.autograd.Function):
    """See `masked_affine`.

    Narrow matrices, `dim` or `2 dim` wide, are kept with their features first, wide ones with
    their rows first: matrix products on a processor write these layouts up to twice as fast.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  torch gives it no public type
        x: Tensor,
        activation: Activation,
        masks: tuple[Tensor, ...],
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        weights, biases = parameters[: len(masks)], parameters[len(masks) :]
        inputs, kept, h = [x], [], x
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            z = torch.addmm(bias, h, weight.t())
            h = activation.apply(z) if activation.keeps_input else activation.apply_(z)
            inputs.append(h)
            kept.append(z if activation.keeps_input else h)
        shift, log_scale = torch.addmm(biases[-1][:, None], weights[-1], h.t()).chunk(2)
        inv_scale = torch.exp(-log_scale)
        u = torch.sub(x.t(), shift, out=torch.empty_like(shift)).mul_(inv_scale)
        ctx.activation, ctx.depth = activation, len(masks)
        extra = kept if activation.keeps_input else []
        ctx.save_for_backward(u, inv_scale, *masks, *parameters, *inputs, *extra)
        return u.t(), log_scale.sum(dim=0).neg_()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  as above
        u, inv_scale, *rest = ctx.saved_tensors
        n, activation = ctx.depth, ctx.activation
        masks, weights, biases, inputs = (rest[i * n : (i + 1) * n] for i in range(4))
        kept = rest[4 * n :] or inputs[1:]
        if torch.is_grad_enabled():
            again = plain_masked_affine(inputs[0], weights, biases, masks, activation=activation)
            found = _gradients(again, [inputs[0], *weights, *biases], grads)
            return found[0], None, None, *found[1:]
        grad_u, grad_log_det = grads[0].t(), grads[1]
        direct = grad_u * inv_scale
        grad = torch.cat([-direct, torch.addcmul(grad_log_det, grad_u, u).neg_()]).t()
        grad_weights: list[Tensor] = [u] * n
        grad_biases: list[Tensor] = [u] * n
        for layer in range(n - 1, -1, -1):
            grad_weights[layer] = _masked_product(grad, inputs[layer], masks[layer])
            grad_biases[layer] = grad.sum(dim=0)
            if layer > 0:
                grad = activation.gradient_(torch.mm(grad, weights[layer]), kept[layer - 1])
        grad_x = torch.addmm(direct, weights[0].t(), grad.t()) if ctx.needs_input_grad[0] else None
        return None if grad_x is None else grad_x.t(), None, None, *grad_weights, *grad_biases


class _BatchNormalise(torch.autograd.Function):
    """See `batch_normalise`; features first, as torch's own kernels are fastest."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  torch gives it no public type
        x: Tensor,
        log_gain: Tensor,
        offset: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        columns, gain = x.t().contiguous()[None], torch.exp(log_gain)
        u, mean, inv_std = torch.native_batch_norm(
            columns, gain, offset, None, None, training=True, momentum=0.0, eps=eps
        )
        var = inv_std.pow(-2).sub_(eps).clamp_min_(0)
        ctx.eps = eps
        ctx.save_for_backward(x, log_gain, offset, columns, gain, mean, inv_std)
        ctx.mark_non_differentiable(mean, var)
        return u[0].t(), (log_gain + inv_std.log()).sum(), mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  as above
        x, log_gain, offset, columns, gain, mean, inv_std = ctx.saved_tensors
        if torch.is_grad_enabled():
            again = plain_batch_normalise(x, log_gain, offset, eps=ctx.eps)
            return *_gradients(again, [x, log_gain, offset], grads[:2]), None
        grad_u, grad_log_det = grads[0].t().contiguous()[None], grads[1]
        grad_x, grad_gain, grad_offset = torch.ops.aten.native_batch_norm_backward(
            grad_u,
            columns,
            gain,
            None,
            None,
            mean,
            inv_std,
            train=True,
            eps=ctx.eps,
            output_mask=[True, True, True],
        )
        # The log-determinant's own part: d log inv_std / dx = -(x - mean) inv_std^2 / rows.
        pull = inv_std.square().mul_(grad_log_det / len(x))
        grad_x[0].addcmul_(columns[0] - mean[:, None], pull[:, None], value=-1)
        return grad_x[0].t(), grad_gain.mul_(gain).add_(grad_log_det), grad_offset, None


def _masked_product(grad: Tensor, h: Tensor, mask: Tensor) -> Tensor:
    """The gradient of a weight: grad^T h where the mask is 1; the narrow factor goes first."""
    if grad.shape[1] <= h.shape[1]:
        return torch.mm(grad.t(), h).mul_(mask)
    return torch.mul(mask, torch.mm(h.t(), grad).t())


def _gradients(
    outputs: tuple[Tensor, Tensor], inputs: list[Tensor], grads: Sequence[Tensor]
) -> list[Tensor | None]:
    """Gradients with a graph of their own, of those inputs that want one."""
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True, allow_unused=True))
    return [next(found) if tensor.requires_grad else None for tensor in inputs]
