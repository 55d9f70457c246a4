"""Diagnostics of how close a variational approximation is to its target."""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import standard_normal
from flows.errors import FitError
from flows.flow import Flow, base_noise
from flows.training.evaluate import default_chunk_rows
from flows.variational.targets import ConditionalTarget, Target, Window

# Fewest weights that a tail is fitted to, and how strongly the fit is drawn towards 0.5.
LEAST_TAIL, PRIOR_SIZE = 5, 10

# Logarithms of weights that differ by less are equal up to rounding.
EQUAL_WITHIN = 1e-9

# Thresholds of k below which the verdicts are `good` and `ok`.
GOOD_BELOW, OK_BELOW = 0.5, 0.7

# Number of grid points of each axis, by dimension.
POINTS = {1: 4000, 2: 400}

Verdict = Literal["good", "ok", "unreliable"]


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics from the importance weights w = p(z) / q(z) of samples of q. All are finite.

    Attributes:
        samples: Number of samples.
        non_finite: Number of samples whose log density is not finite. Their weight counts as 0 in
            the evidence; the ELBO is then that of q restricted to the rest, which is still a bound.
        elbo: Mean of log w, in nats.
        elbo_standard_error: Standard error of that mean, in nats.
        log_evidence: Log of the mean of w, an estimate of the log normaliser of the target.
        log_evidence_standard_error: Standard error by the delta method.
        effective_sample_size: Effective sample size (sum w)^2 / sum w^2, between 1 and `samples`.
        pareto_k: Shape of the tail of w; None if there are too few samples.
        verdict: Verdict by `pareto_k`: `good` below 0.5, `ok` below 0.7, else `unreliable`.
        explanation: Verdict in a sentence.
    """

    samples: int
    non_finite: int
    elbo: float
    elbo_standard_error: float
    log_evidence: float
    log_evidence_standard_error: float
    effective_sample_size: float
    pareto_k: float | None
    verdict: Verdict
    explanation: str


@dataclass(frozen=True)
class QuadratureKl:
    """Divergence KL(q || p) with both densities normalised on a window.

    Attributes:
        kl: KL divergence, in nats.
        mass_inside: Share of q inside the window.
        log_evidence: Log of the target's integral over the window.
        window: Window of the grid.
        points: Number of grid points of each axis.
    """

    kl: float
    mass_inside: float
    log_evidence: float
    window: Window
    points: int


def diagnose(
    flow: Flow,
    target: Target | ConditionalTarget,
    *,
    samples: int,
    seed: int,
    context: Float[Tensor, " context_dim"] | None = None,
) -> Diagnostics:
    """Return diagnostics from fresh samples of the flow.

    Everything is computed in float64, in evaluation mode.

    Args:
        context: Context at which a conditional target is diagnosed.

    Raises:
        FitError: Fewer than 2 samples, none with a finite log density, no context for a
            conditional target, or a density that does not map noise to rows.
    """
    if not flow.has_noise:
        raise FitError("diagnostics need a flow that maps noise to rows")
    exact = _exact(flow)
    generator = torch.Generator().manual_seed(seed)
    u = base_noise(samples, flow.dim, generator=generator).to(flow.device)
    chunks = []
    with torch.no_grad():
        for rows in torch.split(u.double(), default_chunk_rows(flow)):
            given = None if context is None else context.to(rows).expand(len(rows), -1)
            z, log_det = exact.forward(rows, given)
            log_q = standard_normal(rows) - log_det
            chunks.append(_log_density(target, z, given).to(log_q) - log_q)
    return importance_diagnostics(torch.cat(chunks))


def importance_diagnostics(log_weights: Float[Tensor, " samples"]) -> Diagnostics:
    """Return the diagnostics from log w of each sample.

    Raises:
        FitError: Fewer than 2 samples, or none that is finite.
    """
    samples = len(log_weights)
    log_weights = log_weights.double().cpu()
    finite = log_weights[log_weights.isfinite()]
    if samples < 2 or len(finite) == 0:
        raise FitError("diagnostics need at least 2 samples, one of them with a finite log density")
    peak = finite.max()
    weights = torch.zeros(samples, dtype=torch.float64)
    weights[: len(finite)] = (finite - peak).exp()
    mean = weights.mean()
    shape = pareto_k(log_weights)
    verdict, explanation = _judge(shape)
    return Diagnostics(
        samples=samples,
        non_finite=samples - len(finite),
        elbo=float(finite.mean()) + math.log(len(finite) / samples),
        elbo_standard_error=float(finite.std(correction=0)) / math.sqrt(len(finite)),
        log_evidence=float(peak + mean.log()),
        log_evidence_standard_error=float(weights.std() / mean) / math.sqrt(samples),
        effective_sample_size=float(weights.sum().square() / weights.square().sum()),
        pareto_k=shape,
        verdict=verdict,
        explanation=explanation,
    )


def pareto_k(log_weights: Float[Tensor, " samples"]) -> float | None:
    """Return the shape k of a generalised Pareto distribution fitted to the largest weights.

    Vehtari et al. 2024 (Pareto smoothed importance sampling): the tail are the min(S / 5, 3 sqrt S)
    largest of S weights, beyond the next smaller one. The fit is that of Zhang and Stephens 2009,
    drawn towards 0.5 by as much as 10 more observations would. Moments of the weights of order
    1 / k and above are infinite.

    Returns:
        k; 0 if the largest weights are equal up to rounding; None if fewer than `LEAST_TAIL` are
        larger than the rest in float64.
    """
    samples = len(log_weights)
    tail = math.ceil(min(samples / 5, 3 * math.sqrt(samples)))
    logs = log_weights.double().cpu().nan_to_num(nan=-math.inf, posinf=-math.inf).sort().values
    if tail < LEAST_TAIL or samples <= tail or bool(logs[-1] == -math.inf):
        return None
    if float(logs[-1] - logs[-tail - 1]) < EQUAL_WITHIN:
        return 0.0
    largest = (logs[-tail - 1 :] - logs[-1]).exp()
    excess = largest[1:] - largest[0]
    excess = excess[excess > 0]
    return None if len(excess) < LEAST_TAIL else _pareto_shape(excess)


def quadrature_kl(
    flow: Flow, target: Target, *, window: Window | None = None, points: int | None = None
) -> QuadratureKl:
    """Compute KL(q || p) by the midpoint rule in 1 or 2 dimensions.

    Computed in float64, in evaluation mode. Grid points at which the flow's density is NaN
    count as density 0. Where q has mass and p has none, the KL divergence is infinite.

    Args:
        flow: Approximation q with a density on a grid; left as it is.
        window: Window to integrate over; the target's own by default.
        points: Number of grid points of each axis; `POINTS` by default.

    Raises:
        FitError: More than 2 dimensions, no window or one of other dimensions, no points, or a
            density that vanishes or is NaN on the window.
    """
    window = window or target.window
    if window is None or target.dim not in POINTS or target.dim != flow.dim:
        raise FitError("quadrature needs a window, and a flow and a target of 1 or 2 dimensions")
    points = POINTS[target.dim] if points is None else points
    if len(window.lower) != target.dim or points < 1:
        raise FitError("quadrature needs a window of the target's dimensions, and points")
    cells, log_volume = _midpoints(window, points)
    log_q, log_p = _log_densities(_exact(flow), target, cells.to(flow.device))
    log_mass, log_evidence = (float(log.logsumexp(dim=0)) for log in (log_q, log_p))
    if not (math.isfinite(log_mass) and math.isfinite(log_evidence)):
        raise FitError("a density vanishes on the window or is not a number there")
    share = (log_q - log_mass).exp()
    terms = share * (log_q - log_mass - log_p + log_evidence)
    return QuadratureKl(
        kl=float(terms[share > 0].sum()),
        mass_inside=math.exp(log_mass + log_volume),
        log_evidence=log_evidence + log_volume,
        window=window,
        points=points,
    )


def _log_density(target: Target | ConditionalTarget, z: Tensor, context: Tensor | None) -> Tensor:
    if isinstance(target, Target):
        return target.log_density(z)
    if context is None:
        raise FitError("diagnostics of a conditional target need a context")
    return target.log_density(z, context)


def _log_densities(flow: Flow, target: Target, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return log q and log p of every row."""
    found = []
    with torch.no_grad():
        for rows in torch.split(z, default_chunk_rows(flow)):
            log_q = flow.log_prob(rows).nan_to_num(nan=-math.inf)
            found.append(torch.stack([log_q, target.log_density(rows).to(log_q)]))
    log_q, log_p = torch.cat(found, dim=1)
    return log_q, log_p


def _midpoints(window: Window, points: int) -> tuple[Tensor, float]:
    """Return the midpoints of the cells of a regular grid, and the log of a cell's volume."""
    axes, log_volume = [], 0.0
    for low, high in zip(window.lower, window.upper, strict=True):
        step = (high - low) / points
        axes.append(low + step * (torch.arange(points, dtype=torch.float64) + 0.5))
        log_volume += math.log(step)
    return torch.cartesian_prod(*axes).reshape(-1, len(axes)), log_volume


def _pareto_shape(excess: Tensor) -> float:
    """Return a posterior mean of k over a grid of b = -k / sigma (Zhang and Stephens 2009, 4)."""
    n = len(excess)
    size = 30 + int(math.sqrt(n))
    quartile, greatest = excess[int(n / 4 + 0.5) - 1], excess[-1]
    steps = torch.arange(1, size + 1, dtype=torch.float64) - 0.5
    b = 1 / greatest + (1 - (size / steps).sqrt()) / (3 * quartile)
    shapes = torch.log1p(-b[:, None] * excess).mean(dim=1)
    log_likelihood = n * ((-b / shapes).log() - shapes - 1)
    chosen = (torch.softmax(log_likelihood, dim=0) * b).sum()
    shape = float(torch.log1p(-chosen * excess).mean())
    return (n * shape + PRIOR_SIZE * 0.5) / (n + PRIOR_SIZE)


def _judge(shape: float | None) -> tuple[Verdict, str]:
    if shape is None:
        return "unreliable", "There are too few samples, or too few that count, to judge."
    if shape < GOOD_BELOW:
        return "good", (
            "No few samples outweigh the rest: the evidence and its error can be trusted, unless "
            "the flow misses a part of its target that none of its samples has seen."
        )
    if shape < OK_BELOW:
        return "ok", (
            "The weights vary much: the evidence can be used, but its error may be too small; "
            "more samples help."
        )
    return "unreliable", (
        "A few samples outweigh the rest: the flow misses mass of its target, and neither the "
        "evidence nor its error can be trusted."
    )


def _exact(flow: Flow) -> Flow:
    """Return a copy in float64 and evaluation mode."""
    return copy.deepcopy(flow).double().eval()
