"""Elementwise maps whose parameters come from a conditioner: affine, Gaussian mixture, Bernoulli.

In the terms of autoregressive and coupling flows, x_i = T(u_i; p_i): a transformer is T, strictly
increasing in u_i.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import LOG_TWO_PI
from flows.bijections.network_layers import MapSpec, affine_map, mixture_map
from flows.bijections.observed import masked
from flows.bijections.roots import invert
from flows.errors import FlowError
from flows.specs.costs import AFFINE_SIZE, BERNOULLI_SIZE, mixture_size

# Numbers that are mapped one by one, and the parameters of the map of each.
Values = Float[Tensor, "*shape"]
Parameters = Float[Tensor, "outputs ..."]


class Transformer(ABC):
    """Increasing map of single numbers.

    Attributes:
        outputs: Number of parameters of each map.
        has_noise: True if it has an inverse; otherwise it has only `log_density` and `forward`.
        own_density: True if `log_density` is not just the inverse and the Gaussian density.
        sample_rows: Least number of rows that `forward` should have, where it consists of many
            small operations.
        keeps_0: True if parameters of 0 map 0 to exactly 0, with a log-determinant of exactly 0.
        overflows: True if large parameters give results that are not finite.
    """

    outputs: int
    has_noise: bool = True
    own_density: bool = False
    keeps_0: bool = False
    overflows: bool = True

    @abstractmethod
    def inverse(self, x: Values, parameters: Parameters) -> tuple[Values, Values]:
        """Map data to noise, with log du/dx of each value."""

    @abstractmethod
    def forward(self, u: Values, parameters: Parameters) -> tuple[Values, Values]:
        """Map noise to data, with log dx/du of each value."""

    def log_density(self, x: Values, parameters: Parameters) -> Values:
        """Return the log density of each value whose noise is standard Gaussian."""
        u, log_det = self.inverse(x, parameters)
        return log_det - 0.5 * u.square() - 0.5 * LOG_TWO_PI

    def mean(self, parameters: Parameters) -> Tensor | None:
        """Return the mean of each value whose noise is standard Gaussian; None if it has no closed form."""
        return None

    def masked_parameters(
        self, parameters: Float[Tensor, "..."], observed: Float[Tensor, "..."] | None
    ) -> Float[Tensor, "..."]:
        """Return parameters that harm nothing where a value is not observed."""
        return masked(parameters, observed) if self.overflows else parameters

    def masked_results(
        self, values: Float[Tensor, "*shape"], observed: Float[Tensor, "*shape"] | None
    ) -> Float[Tensor, "*shape"]:
        """Return results of masked parameters, 0 where a value is not observed."""
        return values if self.keeps_0 else masked(values, observed)

    def map_spec(self) -> MapSpec | None:
        """Return the map as compiled loops know it; None if they do not."""
        return None


def bounded(log_scale: Tensor, bound: float | None) -> Tensor:
    """Return r / (1 + |r| / bound) of a network's output r, between -bound and bound; None: r itself.

    It keeps the sign, and its derivative is 1 / (1 + |r| / bound)^2: 1 at 0, and never 0.
    """
    return log_scale if bound is None else log_scale / (1 + log_scale.abs() / bound)


class Affine(Transformer):
    """Affine map x = shift + u exp(log_scale); the parameters are shift and log_scale.

    With a bound, the second parameter r stands for log_scale = r / (1 + |r| / bound).
    """

    outputs = AFFINE_SIZE.outputs
    keeps_0 = True

    def __init__(self, log_scale_bound: float | None = None) -> None:
        self.log_scale_bound = log_scale_bound

    def inverse(self, x: Values, parameters: Parameters) -> tuple[Values, Values]:
        shift, log_scale = self._split(parameters)
        return (x - shift) * torch.exp(-log_scale), -log_scale

    def forward(self, u: Values, parameters: Parameters) -> tuple[Values, Values]:
        shift, log_scale = self._split(parameters)
        return shift + u * torch.exp(log_scale), log_scale

    def mean(self, parameters: Parameters) -> Tensor:
        return parameters[0]

    def map_spec(self) -> MapSpec:
        return affine_map(self.log_scale_bound)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = parameters.unbind(0)
        return shift, bounded(log_scale, self.log_scale_bound)


# Number of Newton steps on the concave log Phi; they converge quadratically from the tail's
# expansion.
_NEWTON_STEPS = 8


class GaussianMixture(Transformer):
    """Mixture of C Gaussians (Papamakarios et al. 2017, section 3.2: MADE MoG).

    The density is p(x) = sum_k w_k N(x; mean_k, scale_k^2). As a map from noise it is
    x = F^-1(Phi(u)), with F the mixture's distribution function and Phi the Gaussian's. The
    parameters are C logits, C means and C log scales.

    The inverse is computed by the logarithms of the smaller tail, so that it holds far outside
    the data. The forward direction is a root search.
    """

    own_density = True

    def __init__(self, components: int, log_scale_bound: float | None = None) -> None:
        self.components = components
        self.log_scale_bound = log_scale_bound
        self.outputs = mixture_size(components).outputs

    def log_density(self, x: Values, parameters: Parameters) -> Values:
        log_weight, mean, log_scale = self._split(parameters)
        z = (x - mean) * torch.exp(-log_scale)
        terms = log_weight - log_scale - 0.5 * z.square() - 0.5 * LOG_TWO_PI
        return torch.logsumexp(terms, dim=0)

    def inverse(self, x: Values, parameters: Parameters) -> tuple[Values, Values]:
        log_weight, mean, log_scale = self._split(parameters)
        z = (x - mean) * torch.exp(-log_scale)
        below = torch.logsumexp(log_weight + log_phi(z), dim=0)
        above = torch.logsumexp(log_weight + log_phi(-z), dim=0)
        tail = normal_quantile(torch.minimum(below, above))
        u = torch.where(below < above, tail, -tail)
        log_det = self.log_density(x, parameters) + 0.5 * u.square() + 0.5 * LOG_TWO_PI
        return u, log_det

    def forward(self, u: Values, parameters: Parameters) -> tuple[Values, Values]:
        return invert(self.inverse, u, parameters)

    def mean(self, parameters: Parameters) -> Tensor:
        log_weight, mean, _ = self._split(parameters)
        return (log_weight.exp() * mean).sum(dim=0)

    def map_spec(self) -> MapSpec:
        return mixture_map(self.components, self.log_scale_bound)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, mean, log_scale = parameters.chunk(3)
        return torch.log_softmax(logits, dim=0), mean, bounded(log_scale, self.log_scale_bound)


class Bernoulli(Transformer):
    """Bernoulli map P(x = 1) = sigmoid(logit) (Germain et al. 2015, equation 2) of the logit.

    Numbers other than 0 and 1 have probability 0. The forward direction gives 1 where the
    uniform number behind the noise is below the probability; it has no inverse.
    """

    outputs = BERNOULLI_SIZE.outputs
    has_noise = False
    own_density = True

    def log_density(self, x: Values, parameters: Parameters) -> Values:
        logit = parameters[0]
        score = F.logsigmoid(torch.where(x > 0.5, logit, -logit))
        outside = torch.full_like(score, -torch.inf)
        return torch.where((x == 0) | (x == 1), score, torch.where(x.isnan(), x, outside))

    def inverse(self, x: Values, parameters: Parameters) -> tuple[Values, Values]:
        raise FlowError("a density of 0 and 1 has no noise that its rows could be mapped to")

    def forward(self, u: Values, parameters: Parameters) -> tuple[Values, Values]:
        x = (torch.special.ndtr(u) < torch.sigmoid(parameters[0])).to(u.dtype)
        return x, torch.zeros_like(x)

    def mean(self, parameters: Parameters) -> Tensor:
        return torch.sigmoid(parameters[0])

    def map_spec(self) -> MapSpec:
        return MapSpec("bernoulli", 1, own_density=True)


class _LogPhi(torch.autograd.Function):
    """Function log Phi(z), with a derivative that holds in the far tail too."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:  # noqa: ANN401  torch gives it no public type
        ctx.save_for_backward(z)
        result: Tensor = torch.special.log_ndtr(z)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ANN401  as above
        (z,) = ctx.saved_tensors
        return grads[0] * torch.exp(-0.5 * z.square() - 0.5 * LOG_TWO_PI - log_phi(z))


def log_phi(z: Tensor) -> Tensor:
    """Return the logarithm of the standard Gaussian distribution function, with its derivatives."""
    if not torch.is_grad_enabled():
        plain: Tensor = torch.special.log_ndtr(z)
        return plain
    result: Tensor = _LogPhi.apply(z)  # type: ignore[no-untyped-call]  # torch's own
    return result


class _Quantile(torch.autograd.Function):
    """Quantile function: u with log Phi(u) = y."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:  # noqa: ANN401  torch gives it no public type
        u = _quantile(y)
        ctx.save_for_backward(y, u)
        return u

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ANN401  as above
        y, u = ctx.saved_tensors
        return grads[0] * torch.exp(y + 0.5 * u.square() + 0.5 * LOG_TWO_PI)


def _quantile(y: Tensor) -> Tensor:
    exact = y.double()
    # Phi(u) is about phi(u) / |u| in the tail, and ndtri is exact where it can be.
    tail = -torch.sqrt((-2 * exact - LOG_TWO_PI).clamp(min=1))
    u = torch.where(exact > -50, torch.special.ndtri(exact.exp()), tail)
    for _ in range(_NEWTON_STEPS):
        value = torch.special.log_ndtr(u)
        slope = torch.exp(-0.5 * u.square() - 0.5 * LOG_TWO_PI - value)
        u = torch.where(exact > -50, u, u - (value - exact) / slope)
    return u.to(y.dtype)


def normal_quantile(y: Tensor) -> Tensor:
    """Return the u whose distribution function has the logarithm y, with its derivatives."""
    if not torch.is_grad_enabled():
        return _quantile(y)
    result: Tensor = _Quantile.apply(y)  # type: ignore[no-untyped-call]  # torch's own
    return result
