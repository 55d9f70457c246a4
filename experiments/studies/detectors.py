"""Anomaly detectors: families of flows by a job's defaults, and scikit-learn's."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.local_job import run_job
from flows import Flow

Rows = NDArray[np.float32]
Scores = NDArray[np.float64]

_CHUNK_ROWS = 4096
_MOST_COMPONENTS = 10


@dataclass(frozen=True)
class Ranked:
    """Result of a detector: scores, larger for odder rows, and its cost."""

    scores: Scores
    seconds: float
    epochs: int | None = None


Detector = Callable[[Rows, Rows, int], Ranked]

# Field `flow` of the requests; None leaves the choice to the service.
FLOWS: dict[str, dict[str, Any] | None] = {
    "defaults": None,
    "gaussian": {"family": "gaussian"},
    "made": {"family": "made"},
    "made-mixture": {"family": "made", "conditional": "mixture"},
    "maf": {"family": "maf"},
    "maf-mixture": {"family": "maf", "base": "made_mixture"},
    "realnvp": {"family": "realnvp"},
    "nice": {"family": "nice"},
    "haf": {"family": "haf"},
    "nsf": {"family": "nsf"},
    "nsf-coupling": {"family": "nsf", "coupling": True},
    "naf": {"family": "naf"},
    "planar": {"family": "planar"},
    "radial": {"family": "radial"},
    "sylvester": {"family": "sylvester"},
    "iaf": {"family": "iaf"},
}


def log_prob(flow: Flow, rows: Rows) -> Scores:
    """Return log densities in chunks; a density of 0 becomes the lowest float."""
    with torch.no_grad():
        chunks = torch.split(torch.from_numpy(rows), _CHUNK_ROWS)
        scores = torch.cat([flow.log_prob(chunk) for chunk in chunks])
    found: Scores = scores.double().numpy()
    return np.nan_to_num(found, nan=-np.finfo(np.float64).max)


def by_flow(flow: dict[str, Any] | None) -> Detector:
    """Rank by -log_prob of a flow that a job trained with the defaults for all other fields."""

    def rank(train: Rows, test: Rows, seed: int) -> Ranked:
        job = run_job(train, {"flow": flow, "optimisation": {"seed": seed}})
        return Ranked(-log_prob(job.flow, test), job.seconds, job.epochs)

    return rank


def by_isolation_forest(train: Rows, test: Rows, seed: int) -> Ranked:
    """Rank by scikit-learn's isolation forest with its defaults."""
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415  seconds to import

    return _timed(lambda: -IsolationForest(random_state=seed).fit(train).score_samples(test))


def by_neighbours(train: Rows, test: Rows, _seed: int) -> Ranked:
    """Rank by the distance to the fifth nearest training row, after standardisation."""
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415  seconds to import

    def rank() -> Scores:
        known, new = _standardised(train, test)
        distances, _ = NearestNeighbors(n_neighbors=5).fit(known).kneighbors(new)
        last: Scores = distances[:, -1]
        return last

    return _timed(rank)


def by_mixture(train: Rows, test: Rows, seed: int) -> Ranked:
    """Rank by a mixture of Gaussians with full covariances, their number chosen by the BIC."""
    from sklearn.mixture import GaussianMixture  # noqa: PLC0415  seconds to import

    def rank() -> Scores:
        known, new = _standardised(train, test)
        fits = [
            GaussianMixture(count, reg_covar=1e-4, random_state=seed).fit(known)
            for count in range(1, _MOST_COMPONENTS + 1)
        ]
        best = min(fits, key=lambda mixture: mixture.bic(known))
        scores: Scores = -best.score_samples(new)
        return scores

    return _timed(rank)


def _standardised(train: Rows, test: Rows) -> tuple[Scores, Scores]:
    mean, std = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    std[std == 0] = 1.0
    return (train - mean) / std, (test - mean) / std


def _timed(rank: Callable[[], Scores]) -> Ranked:
    began = time.perf_counter()
    scores = rank()
    return Ranked(scores, time.perf_counter() - began)


DETECTORS: dict[str, Detector] = {
    "isolation-forest": by_isolation_forest,
    "neighbours": by_neighbours,
    "mixture": by_mixture,
    **{name: by_flow(flow) for name, flow in FLOWS.items()},
}
