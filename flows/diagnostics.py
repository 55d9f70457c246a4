"""How close a variational approximation is to its target."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from flows.flow import Flow
from flows.targets import Target, Window

Verdict = Literal["good", "ok", "unreliable"]


@dataclass(frozen=True)
class Diagnostics:
    """What importance weights w = p(z) / q(z) of samples of q say. Every number is finite.

    Attributes:
        samples: how many.
        non_finite: samples whose log density is not finite. Their weight counts as 0 in the
            evidence; the ELBO leaves them out and is then no bound.
        elbo: the mean of log w, in nats.
        elbo_standard_error: of that mean.
        log_evidence: log of the mean of w: the log of the target's normaliser.
        log_evidence_standard_error: by the delta method.
        effective_sample_size: (sum w)^2 / sum w^2, between 1 and `samples`.
        pareto_k: the shape of the tail of w; None if there are too few samples to tell.
        verdict: `good` below 0.5, `ok` below 0.7, else `unreliable`.
        explanation: the verdict in a sentence.
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
    """KL(q || p) with both densities normalised on a window.

    Attributes:
        kl: in nats.
        mass_inside: the share of q inside the window.
        log_evidence: log of the target's integral over the window.
        window: that window.
        points: grid points of each axis.
    """

    kl: float
    mass_inside: float
    log_evidence: float
    window: Window
    points: int


def diagnose(flow: Flow, target: Target, *, samples: int, seed: int) -> Diagnostics:
    """Diagnostics from fresh samples of the flow; log q of a sample comes with the sample.

    Raises:
        FitError: fewer than 2 samples, or none with a finite log density.
    """
    raise NotImplementedError


def importance_diagnostics(log_weights: Float[Tensor, " samples"]) -> Diagnostics:
    """The same from log w of each sample.

    Raises:
        FitError: fewer than 2 samples, or none that is finite.
    """
    raise NotImplementedError


def pareto_k(log_weights: Float[Tensor, " samples"]) -> float | None:
    """The Pareto shape of the largest weights (Vehtari et al. 2024, Zhang and Stephens 2009)."""
    raise NotImplementedError


def quadrature_kl(
    flow: Flow, target: Target, *, window: Window | None = None, points: int | None = None
) -> QuadratureKl:
    """KL(q || p) by the midpoint rule in 1 or 2 dimensions; needs the flow's density of a grid.

    Args:
        flow: q.
        target: p.
        window: where; the target's own by default.
        points: of each axis; 4000 in one dimension, 400 in two by default.

    Raises:
        FitError: more than 2 dimensions, or no window.
    """
    raise NotImplementedError
