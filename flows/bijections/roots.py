"""Inverse of increasing functions that have no closed form, with its gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# Elementwise, strictly increasing function of its first argument, given the others. It returns its
# values and the logarithms of its derivatives.
Increasing = Callable[..., tuple[Tensor, Tensor]]

# Root search: takes the function, y and the parameters.
Search = Callable[[Increasing, Tensor, Sequence[Tensor]], Tensor]

# Tolerance of the root, relative to max(1, |root|).
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}

# Number of evaluations after which Newton's method alone is given up. Bisection then halves a
# bracket of at most 2^1024 to the tolerance, so that no search reaches the limit.
NEWTON_EVALUATIONS, MAX_EVALUATIONS = 60, 1200


def bracketed_search(function: Increasing, y: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return the x with function(x, *parameters) = y, elementwise.

    Newton's method inside a bracket: a step that leaves the bracket, or is not half as long as
    the one before, is replaced by a bisection, or by a longer and longer step while one side of
    the root is still open. It ends with two points, no further apart than 1e-6 max(1, |x|) in
    float32 and 1e-10 max(1, |x|) in float64, between which the computed function passes y, and
    with one Newton step between them, which usually leaves only the rounding error of the function
    itself. Where the function is so flat that its rounded values are y over a wider stretch, any
    point of that stretch is returned.

    A finished element keeps its x, so that evaluating it again changes nothing: the result does
    not depend on the elements beside it. Called without gradients.

    Returns:
        The roots, NaN where y or the function is not finite or where the root, if there is one,
        is beyond 1e36 in float32 or 1e300 in float64.
    """
    tolerance = TOLERANCE[y.dtype]
    x = y = y.masked_fill(y.isinf(), torch.nan)
    last_step = torch.full_like(y, torch.inf)
    low, high, evaluation = -last_step, last_step, 0
    while True:
        value, log_slope = function(x, *parameters)
        evaluation += 1
        residual = value - y
        low, high = torch.where(residual <= 0, x, low), torch.where(residual >= 0, x, high)
        gap = high - low
        size = x.abs().clamp_(min=1)
        newton = residual * torch.exp(-log_slope)
        # False as well where the search got as far as infinity.
        unfinished = (gap > size * tolerance) & ~residual.isnan()
        if evaluation == MAX_EVALUATIONS or not bool(unfinished.any()):
            break
        # Steps go a little too far: in the end they cross the root, which proves it.
        reach = size * 2.0 ** min(evaluation, NEWTON_EVALUATIONS)
        ahead = torch.copysign(size, residual)
        target = x - torch.clamp(newton, -reach, reach).add_(ahead, alpha=0.45 * tolerance)
        length = newton.abs()
        good = (target > low) & (target < high) & (length <= last_step / 2)
        if evaluation >= NEWTON_EVALUATIONS:
            good = torch.zeros_like(good)
        further = x - torch.copysign(reach, residual)
        safe = torch.where(gap.isinf(), further, torch.add(low, gap, alpha=0.5))
        last_step = torch.where(good, length, (safe - x).abs())
        x = torch.where(unfinished, torch.where(good, target, safe), x)
    polished = (x - newton).clamp(low, high)
    x = torch.where(polished.isnan(), x, polished)
    return x.masked_fill(x.isinf() | ~residual.isfinite(), torch.nan)


def invert(
    function: Increasing,
    y: Float[Tensor, "*shape"],
    *parameters: Tensor,
    search: Search = bracketed_search,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Return the x with function(x, *parameters) = y, elementwise, and log dx/dy.

    Derivatives of any order follow from the implicit function theorem: dx/dy = 1 / f'(x) and
    dx/dp = -(df/dp) / f'(x). The function is differentiated by autograd.

    Args:
        function: Function of x and the parameters. Tensors that it reads outside of `parameters`
            get no gradient.
        y: Values of the function, float32 or float64.
        search: Root search, where one that knows the function is faster.

    Returns:
        The roots, and log dx/dy = -log f'(x).
    """
    if torch.is_grad_enabled():
        x: Tensor = _Root.apply(function, search, y, *parameters)  # type: ignore[no-untyped-call]  # torch's own
    else:
        x = search(function, y, parameters)
    _, log_slope = function(x, *parameters)
    return x, -log_slope


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  torch gives it no public type
        function: Increasing,
        search: Search,
        y: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        x = search(function, y, parameters)
        ctx.function = function
        ctx.save_for_backward(x, *parameters)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  as above
        x, *parameters = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
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
        return None, None, grad_y, *[next(found) if need else None for need in needed]
