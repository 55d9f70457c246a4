"""Comparison of a trained flow with simple densities and with its held-out rows."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flows.compiled.compiled_flow import CompiledFlow
from flows.flow import Flow
from flows.mixed.encoding import TableEncoding
from flows.training.evaluate import evaluate
from flows.training.expectation import Mixture, em_step, start
from flows.training.robust import robust_mean
from flows.training.rows import ModelRows, generator_of

# Components and iterations of the mixture, and the widest rows that it is fitted to.
COMPONENTS, ITERATIONS, MOST_WIDTH = 8, 20, 64
_ROWS_A_COMPONENT = 50
# Part of a column's variance that is added to it, as that of the family `gaussian_mixture`.
_REGULARISATION = 1e-4
# Bound of the robust means that are compared, as in the training of a job.
_BOUND = 30.0
# Samples that are drawn, and the widest rows that they are drawn of.
SAMPLES, MOST_COLUMNS = 1000, 200
# Distance from which on two samples of a distribution differ with a probability below 0.001, times
# the root of the rows; and the least one that is worth a word.
_UNLIKELY, _LEAST = 1.95, 0.05

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gains:
    """Robust mean log density of held-out rows above that of simple densities, in nats per row.

    Attributes:
        gaussian: Gain over one Gaussian with a full covariance.
        mixture: Gain over a mixture of some Gaussians; None where rows are too wide or too few.
    """

    gaussian: float
    mixture: float | None


def gains_of(flow: Flow, train: Tensor, held_out: Tensor, *, seed: int) -> Gains | None:
    """Return the gains of a flow over densities that are fitted in a moment.

    Args:
        flow: Trained flow of values, which may be an ensemble.
        train: Training rows, some thousands, in the data's units.
        held_out: Rows that the flow was not trained on, likewise.
        seed: Seed of the noise on discrete columns and of the mixture.

    Returns:
        The gains; None for a flow whose rows have categories or gaps.
    """
    if isinstance(flow.preprocessing, TableEncoding):
        return None
    known, other = (
        torch.cat(list(ModelRows(flow, rows, seed=seed + place, name="compared").chunks(4096)))
        for place, rows in enumerate((train, held_out))
    )
    reached = evaluate(flow, other, space="model", row_loss_bound=_BOUND).robust_mean
    known, other = known.double().cpu(), other.double().cpu()
    count, width = min(COMPONENTS, len(known) // _ROWS_A_COMPONENT), known.shape[1]
    mixture = None
    if count > 1 and width <= MOST_WIDTH:
        mixture = reached - _reached_by(known, other, count, flow.model_dim, seed)
    return Gains(reached - _reached_by(known, other, 1, flow.model_dim, seed), mixture)


def _reached_by(known: Tensor, other: Tensor, count: int, dim: int, seed: int) -> float:
    """Return the robust mean log density of the features given the context behind them."""
    variance = known.var(dim=0, unbiased=False)
    added = _REGULARISATION * torch.where(variance > 0, variance, 1.0)
    mixture = start(known, count, added, generator_of(seed, count))
    for _ in range(ITERATIONS if count > 1 else 0):
        mixture, _ = em_step(mixture, [known], added)
    scores = torch.logsumexp(mixture.log_terms(other), dim=1)
    if dim < known.shape[1]:
        given = Mixture(mixture.weights, mixture.means[:, dim:], mixture.covariances[:, dim:, dim:])
        scores = scores - torch.logsumexp(given.log_terms(other[:, dim:]), dim=1)
    return robust_mean(scores, _BOUND)


def column_distances(flow: CompiledFlow, held_out: Doubles, *, seed: int) -> dict[int, float]:
    """Return the columns whose samples differ from held-out rows, the most different first.

    The distance is that of Kolmogorov and Smirnov, the largest difference of the distribution
    functions; only those are returned that chance makes less than once in 1,000 columns.

    Args:
        flow: Compiled flow.
        held_out: Rows that the flow was not trained on: features, then context.
        seed: Seed of the samples.
    """
    rows = held_out[:SAMPLES]
    if flow.dim > MOST_COLUMNS or len(rows) < 2:
        return {}
    context = rows[:, flow.dim :] if flow.context_dim else None
    samples = flow.sample(len(rows), seed=seed, context=context)
    found = {}
    for column in range(flow.dim):
        distance, unlikely = _distance(samples[:, column], rows[:, column])
        if distance > max(unlikely, _LEAST):
            found[column] = distance
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def _distance(one: Doubles, other: Doubles) -> tuple[float, float]:
    """Return the distance of two samples, and the one that is unlikely for equal distributions."""
    one, other = (np.sort(values[~np.isnan(values)]) for values in (one, other))
    if len(one) == 0 or len(other) == 0:
        return 0.0, 1.0
    values = np.concatenate([one, other])
    below = [np.searchsorted(part, values, side="right") / len(part) for part in (one, other)]
    unlikely = _UNLIKELY * math.sqrt(1 / len(one) + 1 / len(other))
    return float(np.abs(below[0] - below[1]).max()), unlikely
