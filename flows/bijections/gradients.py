"""Hand-written gradients of the layers in which training spends its time.

Ordinary autograd costs a node, a graph and temporaries for each of a dozen small operations a
layer. Here a layer gives its result together with its pullback: the function from gradients of
its results to those of its input and parameters.

Narrow matrices, `dim` or `2 dim` wide, are kept with their features first, wide ones with their
rows first: matrix products on a processor write these layouts up to twice as fast.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

ActivationName = Literal["relu", "tanh", "elu", "gelu"]


@dataclass(frozen=True)
class Activation:
    """Nonlinearity and its derivative.

    Attributes:
        apply: Function of a tensor.
        apply_: Same function, in place.
        gradient_: In-place function from the output's gradient and the kept tensor to the input's
            gradient.
        keeps_input: True if `gradient_` reads the function's input, not its output.
    """

    apply: Callable[[Tensor], Tensor]
    apply_: Callable[[Tensor], Tensor]
    gradient_: Callable[[Tensor, Tensor], Tensor]
    keeps_input: bool = False


aten = torch.ops.aten

# Rows per column of a layer's input from which that input counts as narrow.
_MANY_ROWS = 8

# Size from which on four passes of fast operations beat one of `torch.tanh_`.
LARGE_TANH = 4096


def _tanh_(z: Tensor) -> Tensor:
    """Compute tanh z = 2 sigmoid(2 z) - 1, to the rounding error of numbers around 1."""
    return z.tanh_() if z.numel() < LARGE_TANH else z.mul_(2).sigmoid_().mul_(2).sub_(1)


ACTIVATIONS: dict[ActivationName, Activation] = {
    "relu": Activation(
        F.relu,
        torch.relu_,
        lambda g, h: aten.threshold_backward.grad_input(g, h, 0, grad_input=g),
    ),
    "tanh": Activation(
        torch.tanh, _tanh_, lambda g, h: aten.tanh_backward.grad_input(g, h, grad_input=g)
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

# Pullback: from the gradients of u and of the log-determinants, and whether that of x is wanted, to
# the gradients of x and of the parameters.
Pullback = Callable[[Tensor, Tensor, bool], tuple[Tensor | None, list[Tensor | None]]]

# Pullback of a network: from the gradient of its outputs, rows first, and a tensor, features first,
# that the gradient of its input is added to (None: not wanted), to that sum and the gradients of
# the parameters.
_NetworkPullback = Callable[[Tensor, Tensor | None], tuple[Tensor | None, list[Tensor | None]]]

# Weights and biases, layer by layer.
Network = tuple[Sequence[Tensor], Sequence[Tensor]]


def masked_affine_vjp(
    x: Float[Tensor, "batch dim"],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    masks: Sequence[Tensor],
    *,
    activation: Activation,
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"], Pullback]:
    """Compute u = (x - shift) exp(-log_scale), shift and log_scale from a masked network.

    Args:
        x: Rows of data.
        weights: Weights of the network's layers, 0 where masked: only gradients are masked. The
            last ones may have columns for x itself after those for the hidden units.
        biases: Biases of the network's layers.
        masks: Masks of the weights.
        activation: Activation between the layers.

    Returns:
        The noise, log|det du/dx|, and the pullback; parameters are all weights, then all biases.
    """
    out, network_pullback = _network_vjp(x, weights, biases, masks, activation=activation)
    shift, log_scale = out.chunk(2)
    inv_scale = torch.exp(-log_scale)
    u = torch.sub(x.t(), shift, out=torch.empty_like(shift)).mul_(inv_scale)

    def pullback(
        grad_u: Tensor,
        grad_log_det: Tensor,
        wants_x: bool,  # noqa: FBT001  always given
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        direct = grad_u.t() * inv_scale
        grad_log_scale = torch.addcmul(grad_log_det, grad_u.t(), u).neg_()
        grad_out = torch.cat([-direct, grad_log_scale]).t()
        grad_x, grads = network_pullback(grad_out, direct if wants_x else None)
        return None if grad_x is None else grad_x.t(), grads

    return u.t(), log_scale.sum(dim=0).neg_(), pullback


def coupling_vjp(
    x: Float[Tensor, "batch dim"],
    halves: tuple[slice, slice],
    scale_network: Network | None,
    shift_network: Network,
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " #batch"], Pullback]:
    """Compute u_a = x_a, u_b = (x_b - t(x_a)) exp(-s(x_a)).

    Args:
        x: Rows of data.
        halves: Slices of the features a, which are copied, and b.
        scale_network: Weights and biases of s, with tanh between the layers; without it s is 0.
        shift_network: Weights and biases of t, with ReLU between the layers.

    Returns:
        The noise, log|det du/dx|, and the pullback; parameters are the weights, then the biases, of
        s, then those of t.
    """
    copied, moved = halves
    columns = x.t()
    read = columns[copied].t()
    shift, shift_pullback = _network_vjp(read, *shift_network, activation=ACTIVATIONS["relu"])
    u = x.new_empty(columns.shape)
    u[copied] = columns[copied]
    noise = torch.sub(columns[moved], shift, out=u[moved])
    if scale_network is None:
        log_det = x.new_zeros(1)
    else:
        scale, scale_pullback = _network_vjp(read, *scale_network, activation=ACTIVATIONS["tanh"])
        inv_scale = torch.exp(-scale)
        noise.mul_(inv_scale)
        log_det = scale.sum(dim=0).neg_()

    def pullback(
        grad_u: Tensor,
        grad_log_det: Tensor,
        wants_x: bool,  # noqa: FBT001  always given
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        grads = grad_u.t()
        grad_copied, grad_moved = grads[copied] if wants_x else None, grads[moved]
        grad_scales: list[Tensor | None] = []
        if scale_network is not None:
            grad_scale = torch.addcmul(grad_log_det, grad_moved, noise).neg_()
            grad_moved = grad_moved * inv_scale
            grad_copied, grad_scales = scale_pullback(grad_scale.t(), grad_copied)
        grad_copied, grad_shifts = shift_pullback(-grad_moved.t(), grad_copied)
        if grad_copied is None:
            return None, grad_scales + grad_shifts
        grad_x = torch.empty_like(u)
        grad_x[copied], grad_x[moved] = grad_copied, grad_moved
        return grad_x.t(), grad_scales + grad_shifts

    return u.t(), log_det, pullback


def _network_vjp(
    x: Float[Tensor, "batch width"],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    masks: Sequence[Tensor] | None = None,
    *,
    activation: Activation,
) -> tuple[Float[Tensor, "outputs batch"], _NetworkPullback]:
    """Return a network's outputs, and the pullback to its weights, then its biases."""
    inputs, kept = [x], []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        z = torch.addmm(bias, inputs[-1], weight.t())
        inputs.append(activation.apply(z) if activation.keeps_input else activation.apply_(z))
        kept.append(z)
    out_weight, out_width = weights[-1], inputs[-1].shape[1]
    is_direct = out_weight.shape[1] > out_width
    if is_direct:
        inputs[-1] = torch.cat([inputs[-1], x], dim=1)
    out = torch.addmm(biases[-1][:, None], out_weight, inputs[-1].t())

    def pullback(grad: Tensor, grad_x: Tensor | None) -> tuple[Tensor | None, list[Tensor | None]]:
        count = len(weights)
        if is_direct and grad_x is not None:
            grad_x = torch.addmm(grad_x, out_weight[:, out_width:].t(), grad.t())
        grad_weights: list[Tensor | None] = [None] * count
        grad_biases: list[Tensor | None] = [None] * count
        for layer in range(count - 1, -1, -1):
            mask = None if masks is None else masks[layer]
            grad_weights[layer] = _weight_gradient(grad, inputs[layer], mask)
            grad_biases[layer] = grad.sum(dim=0)
            if layer > 0:
                weight = weights[layer][:, : kept[layer - 1].shape[1]]
                grad = activation.gradient_(torch.mm(grad, weight), kept[layer - 1])
        if grad_x is not None:
            grad_x = torch.addmm(grad_x, weights[0].t(), grad.t())
        return grad_x, grad_weights + grad_biases

    return out, pullback


def batch_normalise_vjp(
    x: Float[Tensor, "batch dim"],
    log_gain: Float[Tensor, " dim"],
    offset: Float[Tensor, " dim"],
    *,
    eps: float,
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " 1"], Pullback, tuple[Tensor, Tensor]]:
    """Normalise a batch by its own statistics.

    Returns:
        The normalised batch, the log-determinant that all rows share, the pullback (parameters:
        log_gain, offset), and mean and population variance of the batch.
    """
    columns, gain = x.t().contiguous()[None], torch.exp(log_gain)
    u, mean, inv_std = torch.native_batch_norm(
        columns, gain, offset, None, None, training=True, momentum=0.0, eps=eps
    )

    def pullback(
        grad_u: Tensor,
        grad_log_det: Tensor,
        wants_x: bool,  # noqa: ARG001, FBT001  it comes with the rest
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        grad_x, grad_gain, grad_offset = aten.native_batch_norm_backward(
            grad_u.t().contiguous()[None],
            columns,
            gain,
            None,
            None,
            mean,
            inv_std,
            train=True,
            eps=eps,
            output_mask=[True, True, True],
        )
        total = grad_log_det.sum()
        # Gradient of the log-determinant: d log inv_std / dx = -(x - mean) inv_std^2 / rows.
        pull = inv_std.square().mul_(total / len(x))
        grad_x[0].addcmul_(columns[0] - mean[:, None], pull[:, None], value=-1)
        return grad_x[0].t(), [grad_gain.mul_(gain).add_(total), grad_offset]

    log_det = (log_gain + inv_std.log()).sum(dim=0, keepdim=True)
    var = inv_std.pow(-2).sub_(eps).clamp_min_(0)
    return u[0].t(), log_det, pullback, (mean, var)


def _weight_gradient(grad: Tensor, h: Tensor, mask: Tensor | None) -> Tensor:
    """Return the gradient of a weight: grad^T h where the mask is 1.

    Products over many rows are faster with a narrow input first, even though the mask then meets
    a transposed matrix; wide ones lose several times more by that than they gain.
    """
    if _MANY_ROWS * h.shape[1] < len(h):
        product = torch.mm(h.t(), grad).t()
        return product if mask is None else torch.mul(mask, product)
    product = torch.mm(grad.t(), h)
    return product if mask is None else product.mul_(mask)
