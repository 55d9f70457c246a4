"""Hand-written gradients of the layers in which training spends its time.

Ordinary autograd costs a node, a graph and temporaries for each of a dozen small operations a
layer. Here a layer gives its result together with its pullback: the function from gradients of
its results to those of its input and parameters.

Narrow matrices, `dim` or `2 dim` wide, are kept with their features first, wide ones with their
rows first: matrix products on a processor write these layouts up to twice as fast.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

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


class Wanted(NamedTuple):
    """Inputs whose gradients are wanted, beside those of the parameters."""

    x: bool
    context: bool = False


class Gradients(NamedTuple):
    """Gradients of the inputs and the parameters of a layer; None where they are not wanted."""

    x: Tensor | None
    parameters: list[Tensor | None]
    context: Tensor | None = None


# Pullback: from the gradients of u and of the log-determinants to those of the inputs.
Pullback = Callable[[Tensor, Tensor, Wanted], Gradients]

# Pullback of a network: from the gradient of its outputs, rows first, a tensor, features first,
# that the gradient of its input is added to (None: not wanted), and whether that of the context is
# wanted, to the gradients, with that sum as the input's.
_NetworkPullback = Callable[[Tensor, Tensor | None, bool], Gradients]

# Context of the rows, and its weights in the first layer of a network.
WeightedContext = tuple[Tensor, Tensor]

# Weights and biases, layer by layer.
Network = tuple[Sequence[Tensor], Sequence[Tensor]]


def masked_affine_vjp(  # noqa: PLR0913  rows, network, and what bounds and masks them
    x: Float[Tensor, "batch dim"],
    network: Network,
    masks: Sequence[Tensor],
    *,
    activation: Activation,
    context: WeightedContext | None = None,
    observed: Float[Tensor, "batch dim"] | None = None,
    log_scale_bound: float | None = None,
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"], Pullback]:
    """Compute u = (x - shift) exp(-log_scale), shift and log_scale from a masked network.

    Args:
        x: Rows of data, 0 where they are not observed.
        network: Network, its weights 0 where masked: only gradients are masked. The last weights
            may have columns for x itself after those for the hidden units.
        masks: Masks of the weights.
        activation: Activation between the layers.
        context: Context that the first layer reads too, with its weights.
        observed: Mask of the rows.
        log_scale_bound: Bound of the log scale (`flows.bijections.transformers.bounded`).

    Returns:
        The noise, log|det du/dx|, and the pullback; parameters are all weights, then all biases,
        then the weights of the context.
    """
    out, network_pullback = _network_vjp(x, network, masks, activation=activation, context=context)
    mask = None if observed is None else observed.t().contiguous()
    _mask_(out, mask)
    shift, log_scale = out.chunk(2)
    log_scale, slope = _bounded(log_scale, log_scale_bound)
    inv_scale = torch.exp(-log_scale)
    u = torch.sub(x.t(), shift, out=torch.empty_like(shift)).mul_(inv_scale)

    def pullback(grad_u: Tensor, grad_log_det: Tensor, wanted: Wanted) -> Gradients:
        direct = grad_u.t() * inv_scale
        grad_log_scale = _times_(torch.addcmul(grad_log_det, grad_u.t(), u).neg_(), slope)
        grad_out = _mask_(torch.cat([-direct, grad_log_scale]), mask)
        found = network_pullback(grad_out.t(), direct if wanted.x else None, wanted.context)
        return found._replace(x=None if found.x is None else found.x.t())

    return u.t(), log_scale.sum(dim=0).neg_(), pullback


def coupling_vjp(  # noqa: PLR0913  rows, networks, and what bounds and masks them
    x: Float[Tensor, "batch dim"],
    halves: tuple[slice, slice],
    scale_network: Network | None,
    shift_network: Network,
    *,
    context: Float[Tensor, "batch context_dim"] | None = None,
    observed: Float[Tensor, "batch dim"] | None = None,
    log_scale_bound: float | None = None,
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " #batch"], Pullback]:
    """Compute u_a = x_a, u_b = (x_b - t(x_a)) exp(-s(x_a)).

    Args:
        x: Rows of data, 0 where they are not observed.
        halves: Slices of the features a, which are copied, and b.
        scale_network: Weights and biases of s, with tanh between the layers; without it s is 0.
        shift_network: Weights and biases of t, with ReLU between the layers.
        context: Context, which the networks read after x_a.
        observed: Mask of the rows.
        log_scale_bound: Bound of s, as in `masked_affine_vjp`.

    Returns:
        The noise, log|det du/dx|, and the pullback; parameters are the weights, then the biases, of
        s, then those of t.
    """
    copied, moved = halves
    columns, mask = x.t(), None if observed is None else observed.t()[moved]
    read = columns[copied].t()
    shift, shift_pullback = _reader_vjp(read, context, shift_network, ACTIVATIONS["relu"])
    _mask_(shift, mask)
    u = x.new_empty(columns.shape)
    u[copied] = columns[copied]
    noise = torch.sub(columns[moved], shift, out=u[moved])
    if scale_network is None:
        log_det = x.new_zeros(1)
    else:
        scale, scale_pullback = _reader_vjp(read, context, scale_network, ACTIVATIONS["tanh"])
        scale, slope = _bounded(_mask_(scale, mask), log_scale_bound)
        inv_scale = torch.exp(-scale)
        noise.mul_(inv_scale)
        log_det = scale.sum(dim=0).neg_()

    def pullback(grad_u: Tensor, grad_log_det: Tensor, wanted: Wanted) -> Gradients:
        grads = grad_u.t()
        grad_copied, grad_moved = grads[copied] if wanted.x else None, grads[moved]
        scaled = Gradients(grad_copied, [])
        if scale_network is not None:
            grad_scale = _mask_(torch.addcmul(grad_log_det, grad_moved, noise).neg_(), mask)
            grad_scale = _times_(grad_scale, slope)
            grad_moved = grad_moved * inv_scale
            scaled = scale_pullback(grad_scale.t(), grad_copied, wanted.context)
        grad_shift = _mask_(-grad_moved, mask)
        shifted = shift_pullback(grad_shift.t(), scaled.x, wanted.context)
        grad_x, grad_context = None, add_gradients(scaled.context, shifted.context)
        if shifted.x is not None:
            grad_x = torch.empty_like(u)
            grad_x[copied], grad_x[moved] = shifted.x, grad_moved
            grad_x = grad_x.t()
        return Gradients(grad_x, scaled.parameters + shifted.parameters, grad_context)

    return u.t(), log_det, pullback


def add_gradients(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Return the sum of two gradients, of which either may be None."""
    return other if one is None else one if other is None else one + other


def _bounded(log_scale: Tensor, bound: float | None) -> tuple[Tensor, Tensor | None]:
    """Return the bounded log scale and its derivative; without a bound itself, and None for 1."""
    if bound is None:
        return log_scale, None
    shrink = (1 + log_scale.abs() / bound).reciprocal_()
    return log_scale * shrink, shrink.square()


def _times_(grad: Tensor, slope: Tensor | None) -> Tensor:
    return grad if slope is None else grad.mul_(slope)


def _mask_(columns: Tensor, mask: Tensor | None) -> Tensor:
    """Set all parameters of the features that are not observed to 0."""
    if mask is not None:
        columns.view(len(columns) // len(mask), *mask.shape).mul_(mask)
    return columns


def _reader_vjp(
    read: Float[Tensor, "batch width"],
    context: Tensor | None,
    network: Network,
    activation: Activation,
) -> tuple[Float[Tensor, "outputs batch"], _NetworkPullback]:
    """Return the outputs of a network that reads the rows, then the context, and the pullback."""
    if context is None:
        return _network_vjp(read, network, activation=activation)
    (first, *rest), biases = network
    width = read.shape[1]
    out, inner = _network_vjp(
        read,
        ([first[:, :width], *rest], biases),
        activation=activation,
        context=(context, first[:, width:]),
    )

    def pullback(grad: Tensor, grad_x: Tensor | None, wants_context: bool) -> Gradients:  # noqa: FBT001  always given
        found = inner(grad, grad_x, wants_context)
        grad_rows, *others, grad_given = found.parameters
        assert grad_rows is not None  # noqa: S101  as the network gives them
        assert grad_given is not None  # noqa: S101
        joined = torch.cat([grad_rows, grad_given], dim=1)
        return found._replace(parameters=[joined, *others])

    return out, pullback


def _network_vjp(
    x: Float[Tensor, "batch width"],
    network: Network,
    masks: Sequence[Tensor] | None = None,
    *,
    activation: Activation,
    context: WeightedContext | None = None,
) -> tuple[Float[Tensor, "outputs batch"], _NetworkPullback]:
    """Return a network's outputs, and the pullback to its weights, biases, and context weights."""
    weights, biases = network
    inputs, kept = _hidden_layers(x, network, activation, context)
    out_weight, out_width = weights[-1], inputs[-1].shape[1]
    is_direct = out_weight.shape[1] > out_width
    if is_direct:
        inputs[-1] = torch.cat([inputs[-1], x], dim=1)
    out = torch.addmm(biases[-1][:, None], out_weight, inputs[-1].t())

    def pullback(grad: Tensor, grad_x: Tensor | None, wants_context: bool) -> Gradients:  # noqa: FBT001  always given
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
        found = Gradients(grad_x, grad_weights + grad_biases)
        return found if context is None else _with_context(found, grad, context, wants_context)

    return out, pullback


def _hidden_layers(
    x: Tensor, network: Network, activation: Activation, context: WeightedContext | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the input of each layer, and what the gradient of each activation reads."""
    weights, biases = network
    inputs, kept = [x], []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        z = torch.addmm(bias, inputs[-1], weight.t())
        if context is not None and len(inputs) == 1:
            z.addmm_(context[0], context[1].t())
        inputs.append(activation.apply(z) if activation.keeps_input else activation.apply_(z))
        kept.append(z)
    return inputs, kept


def _with_context(
    found: Gradients,
    grad: Tensor,
    context: WeightedContext,
    wants_context: bool,  # noqa: FBT001  always given
) -> Gradients:
    """Return the gradients with those of the context and its weights, from the first layer's."""
    values, weight = context
    grad_weight = _weight_gradient(grad, values, None)
    grad_values = torch.mm(grad, weight) if wants_context else None
    return Gradients(found.x, [*found.parameters, grad_weight], grad_values)


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
