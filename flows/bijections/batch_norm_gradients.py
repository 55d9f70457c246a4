"""Hand-written gradients of batch normalisation, as `flows.bijections.gradients` has those of networks."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.gradients import Gradients, Pullback, Wanted


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

    def pullback(grad_u: Tensor, grad_log_det: Tensor, _wanted: Wanted) -> Gradients:
        grad_x, grad_gain, grad_offset = torch.ops.aten.native_batch_norm_backward(
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
        return Gradients(grad_x[0].t(), [grad_gain.mul_(gain).add_(total), grad_offset])

    log_det = (log_gain + inv_std.log()).sum(dim=0, keepdim=True)
    var = inv_std.pow(-2).sub_(eps).clamp_min_(0)
    return u[0].t(), log_det, pullback, (mean, var)


class ObservedStatistics(NamedTuple):
    """Mean and variance of each feature, and the share of one value in them, 0 if they are fixed."""

    mean: Float[Tensor, " dim"]
    var: Float[Tensor, " dim"]
    share: Float[Tensor, " dim"]


def observed_normalise_vjp(
    x: Float[Tensor, "batch dim"],
    observed: Float[Tensor, "batch dim"],
    log_gain: Float[Tensor, " dim"],
    offset: Float[Tensor, " dim"],
    statistics: Callable[[Tensor, Tensor], ObservedStatistics],
    *,
    eps: float,
) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"], Pullback]:
    """Normalise the observed values of a batch by their own statistics.

    Args:
        x: Rows, 0 where they are not observed.
        observed: Mask of the rows.
        log_gain: Logarithm of the scale after the normalisation.
        offset: Shift after it.
        statistics: Function of x and the mask, features first, that chooses mean and variance.
        eps: Number added to the variance.

    Returns:
        The normalised batch, log|det du/dx|, and the pullback (parameters: log_gain, offset).
    """
    mask = observed.t().contiguous()
    mean, var, share = statistics(x.t(), mask)
    centred = (x.t() - mean[:, None]) * mask
    inv_std = torch.rsqrt(var + eps)
    scale = torch.exp(log_gain) * inv_std
    u = torch.addcmul(centred * scale[:, None], mask, offset[:, None])
    log_det = (log_gain + inv_std.log()) @ mask

    def pullback(grad_u: Tensor, grad_log_det: Tensor, _wanted: Wanted) -> Gradients:
        grad = grad_u.t() * mask
        grad_offset = grad.sum(dim=1)
        grad_log_scale = torch.addmv((grad * centred).sum(dim=1) * scale, mask, grad_log_det)
        # The mean of a batch moves with each value, and so does its variance.
        pull = (share * grad_offset * scale)[:, None] * mask
        bend = (share * grad_log_scale * inv_std.square())[:, None]
        grad_x = (grad * scale[:, None]).sub_(pull).addcmul_(centred, bend, value=-1)
        return Gradients(grad_x.t(), [grad_log_scale, grad_offset])

    return u.t(), log_det, pullback
