"""Shared parts of planar, radial and Sylvester flows: many thin layers as one bijection."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from flows.bijections.base import Bijection, Given
from flows.bijections.compose import Inverted
from flows.bijections.roots import Increasing, invert
from flows.specs.costs import Closed

# Number whose softplus is 1.
_ORIGIN = math.log(math.e - 1)

# Standard deviation of the context weights at initialisation.
CONTEXT_STD = 0.01

# Steps towards the root of a bend. Slow searches start within 1 of it, and this number of steps
# brings them within 1e-17.
MAX_BEND_STEPS = 100


def oriented(noise_to_data: Bijection, closed: Closed) -> Bijection:
    """Return the bijection itself, closed for sampling, or inverted, closed for the density."""
    return Inverted(noise_to_data) if closed == "density" else noise_to_data


class LayerParameters(nn.Module):
    """Raw parameters, before any constraint, of layers of the same kind: base + W context."""

    def __init__(
        self,
        base: Float[Tensor, "layers width"],
        *,
        context_dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.base = nn.Parameter(base)
        self.weight: nn.Parameter | None = None
        if context_dim > 0:
            weight = torch.randn(len(base), context_dim, base.shape[1], generator=generator)
            self.weight = nn.Parameter(weight * CONTEXT_STD)

    def forward(self, context: Given) -> Float[Tensor, "layers rows width"]:
        """Return the parameters of each context row, or of a single row that stands for all."""
        if self.weight is None or context is None:
            return self.base[:, None]
        return self.base[:, None] + context @ self.weight


def positive(raw: Tensor) -> Tensor:
    """Return a softplus that is 1 at 0, where all layers are the identity."""
    return F.softplus(raw + _ORIGIN)


def bend(a: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return an increasing function, a + (gain - 1) tanh a, and the logarithm of its derivative.

    Args:
        gain: Derivative at 0, positive.
    """
    t = torch.tanh(a)
    return a + (gain - 1) * t, bend_log_slope(t, gain)


def bend_log_slope(t: Tensor, gain: Tensor) -> Tensor:
    """Return the same log-derivative, log(1 + (gain - 1) (1 - t^2)), from t = tanh a."""
    square = t.square()
    return torch.log(square + (1 - square) * gain)


def unbend(y: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the a with bend(a) = y, and log da/dy, with gradients."""
    return invert(bend, y, gain, search=_search_bend)


def _search_bend(_: Increasing, y: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Search the root by Newton's method alone, which is safe here.

    A bend is odd. At positive a and gain > 1 it is concave: it lies below its tangents and below
    the lines gain a and a + gain - 1. If gain < 1 it is convex and lies above all of them. So the
    nearer of the points where the lines are y is before the root or on it, and steps never pass
    the root: they end where rounding turns one back. Where it is nearly flat, at gains and y near
    0, a step still takes away about a third of the distance.
    """
    (gain,) = parameters
    size, excess = y.abs(), gain - 1
    starts = size / gain, size - excess
    a = torch.where(excess > 0, torch.maximum(*starts), torch.minimum(*starts))
    for _step in range(MAX_BEND_STEPS):
        t = torch.tanh(a)
        square = t.square()
        further = a + (size - a - excess * t) / (square + (1 - square) * gain)
        onward = (further - a) * excess > 0
        if not bool(onward.any()):
            break
        a = torch.where(onward, further, a)
    return torch.copysign(a, y)
