"""The inverse of increasing functions that have no closed form, with its gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# An elementwise, strictly increasing function of its first argument, given the others: its
# values, and the logarithms of its derivatives.
Increasing = Callable[..., tuple[Tensor, Tensor]]

# Of the root, relative to max(1, |root|).
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}

# Newton's method alone is given up after so many evaluations. Bisection then halves a bracket of
# at most 2^1024 to the tolerance, so that no search reaches the limit.
NEWTON_EVALUATIONS, MAX_EVALUATIONS = 60, 1200


def invert(
    function: Increasing, y: Float[Tensor, "*shape"], *parameters: Tensor
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """The x with function(x, *parameters) = y, each element on its own, and log dx/dy.

    Newton's method inside a bracket: a step that leaves the bracket, or is not half as long as
    the one before, is replaced by a bisection, or by a longer and longer step while one side of
    the root is still open. It ends with two points, no further apart than 1e-6 max(1, |x|) in
    float32 and 1e-10 max(1, |x|) in float64, between which the computed function passes y, and
    with one Newton step between them, which usually leaves only the rounding of the function
    itself. Where the function is so flat that its rounded values are y over a wider stretch, any
    point of that stretch is returned. An element depends on no other.

    Derivatives of any order, by the implicit function theorem: dx/dy = 1 / f'(x) and
    dx/dp = -(df/dp) / f'(x). The function is differentiated by autograd.

    Args:
        function: takes x and the parameters. Of the tensors that it reads, those outside of
            `parameters` get no gradient.
        y: values, float32 or float64.
        parameters: passed on; of any shapes that the function takes.

    Returns:
        The roots, NaN where y or the function is not finite or the root is beyond the largest
        float; and log dx/dy = -log f'(x).
    """
    x: Tensor = _Root.apply(function, y, *parameters)  # type: ignore[no-untyped-call]  # torch's own
    _, log_slope = function(x, *parameters)
    return x, -log_slope


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  torch gives it no public type
        function: Increasing,
        y: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        x = _search(function, y, parameters)
        ctx.function = function
        ctx.save_for_backward(x, *parameters)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  as above
        x, *parameters = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            # The root itself is a function of the parameters. Differentiating by aliases of them
            # leaves that path out, but keeps it in the graph of the gradient.
            aliases = [tensor.view_as(tensor) for tensor in parameters]
            value, log_slope = ctx.function(x, *aliases)
        grad_y = grad * torch.exp(-log_slope if again else -log_slope.detach())
        wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need]
        found = iter(
            torch.autograd.grad(value, wanted, -grad_y, create_graph=again, allow_unused=True)
            if wanted
            else ()
        )
        return None, grad_y, *[next(found) if need else None for need in needed]


def _search(function: Increasing, y: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The roots. A finished element keeps its x, so that evaluating it again changes nothing."""
    tolerance, largest = TOLERANCE[y.dtype], torch.finfo(y.dtype).max
    x, last_step = y, torch.full_like(y, torch.inf)
    low, high, evaluation = -last_step, last_step, 0
    while True:
        value, log_slope = function(x, *parameters)
        residual = value - y
        newton = residual.abs() * torch.exp(-log_slope)
        low, high = torch.where(residual <= 0, x, low), torch.where(residual >= 0, x, high)
        size = x.abs()
        width = tolerance * size.clamp(min=1)
        lost = ~y.isfinite() | residual.isnan() | (low >= largest) | (high <= -largest)
        done = lost | (high - low <= width)
        evaluation += 1
        if bool(done.all()) or evaluation == MAX_EVALUATIONS:
            break
        # A step of at least half the tolerance crosses the root in the end, and so proves it.
        reach = (1 + size) * 2.0 ** min(evaluation, NEWTON_EVALUATIONS)
        step = newton.clamp(min=width / 2).minimum(reach)
        target = torch.where(residual > 0, x - step, x + step)
        good = (target > low) & (target < high) & (newton <= last_step / 2)
        if evaluation >= NEWTON_EVALUATIONS:
            good = torch.zeros_like(good)
        open_ended = low.isinf() | high.isinf()
        further = torch.where(residual > 0, x - reach, x + reach).clamp(-largest, largest)
        safe = torch.where(open_ended, further, low / 2 + high / 2)
        last_step = torch.where(good, newton, (safe - x).abs())
        x = torch.where(done, x, torch.where(good, target, safe))
    polished = torch.where(residual > 0, x - newton, x + newton).clamp(low, high)
    x = torch.where(polished.isnan(), x, polished)
    return x.masked_fill(lost | value.isinf(), torch.nan)
