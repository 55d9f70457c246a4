"""Neural autoregressive flows: monotone networks as transformers (Huang et al. 2018)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flows.bijections.autoregressive.layers import Autoregressive
from flows.bijections.base import Bijection
from flows.bijections.compose import Chain, Inverted, Reverse
from flows.bijections.linear import uniform
from flows.bijections.network_layers import MapSpec
from flows.bijections.roots import invert
from flows.bijections.transformers import Parameters, Transformer, Values
from flows.specs.costs import (
    DENSE_SIGMOID_OUTPUTS,
    MOST_COMPILED_UNITS,
    SIGMOID_OUTPUTS,
    dense_sigmoids_size,
    sigmoids_size,
)
from flows.specs.naf import NafSpec


def build_naf(
    spec: NafSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    parts: list[Bijection] = []
    for layer in range(spec.layers):
        if layer > 0:
            parts.append(Reverse(dim))
        transformer = _transformer(spec, generator)
        part = Autoregressive(dim, spec.conditioner(context_dim), transformer, generator)
        parts.append(part if spec.closed == "density" else Inverted(part))
    return Chain(parts)


def _transformer(spec: NafSpec, generator: torch.Generator) -> Transformer:
    if spec.transformer == "dsf":
        return DeepSigmoidal(spec.units)
    return DeepDenseSigmoidal(spec.units, generator)


# Of the slope `a` inside a sigmoid, and what softplus is shifted by so that parameters of 0 give 1.
LEAST_SLOPE = 1e-3
SLOPE_OFFSET = math.log(math.expm1(1 - LEAST_SLOPE))


class DeepSigmoidal(Transformer):
    """u = logit(sum_j w_j sigmoid(a_j x + b_j)) (Huang et al. 2018, equation 8: DSF).

    w is a softmax, a = softplus. The parameters are a, b and the logits of w; with parameters of
    0 the map is the identity. The forward direction is a root search.

    Both sigmoid and 1 - sigmoid are kept as logarithms: the map holds for any finite number, and
    nothing leaks from the density, as it does where the sum is squeezed into (0, 1) before the
    logit. We depart from the paper in a, which is at least 0.001.
    """

    overflows = False

    def __init__(self, units: int) -> None:
        self.outputs = sigmoids_size(units).outputs

    def inverse(self, x: Values, parameters: Parameters) -> tuple[Values, Values]:
        raw_slope, shift, logits = parameters.chunk(SIGMOID_OUTPUTS)
        slope = _slope(raw_slope)
        u, log_det = _squash(torch.addcmul(shift, slope, x), slope.log(), logits)
        return u[0], log_det[0]

    def forward(self, u: Values, parameters: Parameters) -> tuple[Values, Values]:
        return invert(self.inverse, u, parameters)

    def map_spec(self) -> MapSpec:
        return MapSpec("sigmoids", self.outputs, (float(self.outputs // SIGMOID_OUTPUTS),))


class DeepDenseSigmoidal(nn.Module, Transformer):
    """Two dense layers of sigmoids (Huang et al. 2018, equations 9 to 13: DDSF).

    h = logit(W1 sigmoid(a1 x + b1)), u = logit(w2 . sigmoid(a2 V2 h + b2)). The rows of W1 and V2
    and w2 are softmaxes. Row i of W1 has the logits `mix`[i] + w1, of V2 `read`[i] + v2: the two
    matrices are shared by all features, the parameters a1, b1, w1, a2, b2, v2 and w2 are those of
    one. The forward direction is a root search. Otherwise as `DeepSigmoidal`.
    """

    overflows = False

    def __init__(self, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.outputs = dense_sigmoids_size(units).outputs
        shape = (units, units)
        self.mix = nn.Parameter(uniform(shape, fan_in=units, generator=generator))
        self.read = nn.Parameter(uniform(shape, fan_in=units, generator=generator))

    def inverse(self, x: Values, parameters: Parameters) -> tuple[Values, Values]:
        return _dense(x, parameters, self.mix, self.read)

    def forward(self, u: Values, parameters: Parameters) -> tuple[Values, Values]:
        return invert(_dense, u, parameters, self.mix, self.read)

    def map_spec(self) -> MapSpec | None:
        units = self.outputs // DENSE_SIGMOID_OUTPUTS
        if units > MOST_COMPILED_UNITS:
            return None
        weights = torch.stack([_positive(self.mix), _positive(self.read)]).flatten()
        numbers = (float(units), *weights.tolist())
        return MapSpec("dense-sigmoids", self.outputs, numbers, scratch=6 * units)


def _dense(x: Tensor, parameters: Tensor, mix: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    raw_slope1, shift1, mix_logits, raw_slope2, shift2, read_logits, logits = parameters.chunk(
        DENSE_SIGMOID_OUTPUTS
    )
    slope1, slope2 = _slope(raw_slope1), _slope(raw_slope2)
    h, log_slope = _squash(torch.addcmul(shift1, slope1, x), slope1.log(), mix_logits, mix)
    share = torch.exp(read_logits - read_logits.detach().amax(dim=0))
    matrix = _positive(read)
    mean = _product(matrix, share * h) / _product(matrix, share)
    log_slope = _log_product(read, read_logits + log_slope) - _log_product(read, read_logits)
    z = torch.addcmul(shift2, slope2, mean)
    u, log_det = _squash(z, log_slope + slope2.log(), logits)
    return u[0], log_det[0]


def _slope(raw: Tensor) -> Tensor:
    return F.softplus(raw + SLOPE_OFFSET) + LEAST_SLOPE


def _squash(
    z: Tensor, log_slope: Tensor, logits: Tensor, matrix: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return logit(sum_j w_ij sigmoid(z_j)) and the logarithm of its slope, given those of z_j.

    The rows of w have the logits matrix_ij + logits_j, without a matrix one row the logits. Tails
    cancel before anything is summed: z of any size leave the log slope its digits.
    """
    low = F.logsigmoid(z)
    high = low - z  # log(1 - sigmoid(z))
    most_low, most_high = low.detach().amax(dim=0), high.detach().amax(dim=0)
    low, high = low - most_low, high - most_high
    below = _log_product(matrix, logits + low)
    above = _log_product(matrix, logits + high)
    value = below - above + (most_low - most_high)
    both = _log_product(matrix, logits + low + high + log_slope)
    return value, both + _log_product(matrix, logits) - below - above


def _log_product(matrix: Tensor | None, terms: Tensor) -> Tensor:
    """Return the logarithm of sum_j exp(matrix_ij + terms_j); without a matrix, one row of 0."""
    if matrix is None:
        return torch.logsumexp(terms, dim=0, keepdim=True)
    most = terms.detach().amax(dim=0)
    return most + torch.log(_product(_positive(matrix), torch.exp(terms - most)))


def _positive(matrix: Tensor) -> Tensor:
    """Return exp(matrix), each row up to a factor that cancels."""
    return torch.exp(matrix - matrix.detach().amax(dim=1, keepdim=True))


def _product(matrix: Tensor, terms: Tensor) -> Tensor:
    result: Tensor = torch.tensordot(matrix, terms, dims=1)
    return result
