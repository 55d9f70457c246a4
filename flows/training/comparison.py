"""Comparison of a trained flow with simple densities, and of its samples with rows."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flows.compiled.compiled_flow import CompiledFlow
from flows.flow import Flow
from flows.mixed.encoding import TableEncoding
from flows.training.evaluate import default_chunk_rows
from flows.training.expectation import (
    GAIN,
    ROWS_A_COMPONENT,
    Mixture,
    best_start,
    em_step,
    information_criterion,
    start,
)
from flows.training.robust import robust_mean, robust_standard_error
from flows.training.rows import ModelRows, generator_of

# Numbers of components of the mixture, its most iterations, and the widest rows that it is fitted to.
COUNTS, ITERATIONS, MOST_WIDTH = (1, 2, 4, 8), 100, 64
_CHUNK_ROWS = 8192
# Part of a column's variance that is added to it, as that of the family `gaussian_mixture`.
_REGULARISATION = 1e-4
# Bound of the robust means that are compared, as in the training of a job.
_BOUND = 30.0
# Samples that are drawn, and the widest rows that they are drawn of.
SAMPLES, MOST_COLUMNS = 1000, 200
# Distance from which on two samples of a distribution differ with a probability below 0.001, times
# the root of the rows; and the least one that is worth a word.
_UNLIKELY, _LEAST = 1.95, 0.05

# Known values of a kernel density, and the share and width, in standard deviations, of values far from all.
_KERNEL_ROWS, _STRAY, _FAR = 500, 0.01, 3.0

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """Robust mean log density of rows above that of a simple density, in nats per row."""

    mean: float
    standard_error: float

    @property
    def is_sure(self) -> bool:
        """True if the difference exceeds two standard errors."""
        return abs(self.mean) > 2 * self.standard_error


@dataclass(frozen=True)
class Gains:
    """Gains of a flow over simple densities.

    Attributes:
        gaussian: Gain over one Gaussian with a full covariance; None of rows with categories or gaps.
        mixture: Gain over a mixture of some Gaussians; None where rows are too wide or too few, too.
        independent: Gain over columns that have nothing to do with each other; None of too many columns.
    """

    gaussian: Gain | None
    mixture: Gain | None
    independent: Gain | None


def gains_of(flow: Flow, train: Tensor, other: Tensor, *, seed: int) -> Gains:
    """Return the gains of a flow over densities that are fitted in a moment.

    The mixture has the number of Gaussians that the Bayesian information criterion chooses, as one of the
    family `gaussian_mixture` does.

    Args:
        flow: Trained flow in evaluation mode, which may be an ensemble.
        train: Training rows, some thousands, in the data's units.
        other: Rows that the flow was not trained on, likewise.
        seed: Seed of the noise on discrete columns and of the mixture.

    """
    known, other = (
        torch.cat(list(ModelRows(flow, rows, seed=seed + place, name="compared").chunks(4096)))
        for place, rows in enumerate((train, other))
    )
    with torch.no_grad():
        chunks = torch.split(other.to(flow.device), default_chunk_rows(flow))
        scores = torch.cat([flow.log_prob_of_table(rows, space="model") for rows in chunks])
    scores = scores.double().cpu()
    known, other = known.double().cpu(), other.double().cpu()

    def over(simple: Tensor) -> Gain:
        known = ~(scores.isnan() | simple.isnan())
        one, two = scores[known], simple[known]
        difference = robust_mean(one, _BOUND) - robust_mean(two, _BOUND)
        return Gain(difference, robust_standard_error(one, two, _BOUND))

    independent = None
    if flow.dim <= MOST_COLUMNS:
        independent = over(_independent_log_density(flow, known, other))
    if isinstance(flow.preprocessing, TableEncoding):
        return Gains(None, None, independent)
    variance = known.var(dim=0, unbiased=False)
    added = _REGULARISATION * torch.where(variance > 0, variance, 1.0)
    gaussian = start(known, 1, added, generator_of(seed, 1))
    of_one = over(_log_density(gaussian, other, flow.model_dim))
    if known.shape[1] > MOST_WIDTH or len(known) < COUNTS[1] * ROWS_A_COMPONENT:
        return Gains(of_one, None, independent)
    mixture = _log_density(_chosen(known, added, seed), other, flow.model_dim)
    return Gains(of_one, over(mixture), independent)


def _independent_log_density(flow: Flow, known: Tensor, other: Tensor) -> Tensor:
    """Return the log density of rows of the model whose columns have nothing to do with each other.

    Levels and states have their shares among the known rows, values a kernel density.
    """
    total = torch.zeros(len(other), dtype=torch.float64)
    variables, states = [], {}
    if isinstance(flow.preprocessing, TableEncoding):
        layout = flow.preprocessing.layout
        variables = layout.variables
        states = {one.column: place for place, one in enumerate(variables) if one.is_state}
        continuous = [states.get(column) for column in layout.continuous]
    else:
        continuous = [None] * flow.model_dim
    for place, variable in enumerate(variables):
        codes = known[:, place].nan_to_num(nan=-1).long().clamp(min=-1) + 1
        counts = torch.bincount(codes, minlength=variable.size + 1).double() + 0.5
        seen = other[:, place].nan_to_num(nan=-1).long().clamp(min=-1) + 1
        total += (counts / counts.sum()).log()[seen]
    for at, state in enumerate(continuous, start=len(variables)):
        values = known[:, at] if state is None else known[known[:, state] == 0, at]
        present = (
            torch.ones(len(other), dtype=torch.bool) if state is None else other[:, state] == 0
        )
        if len(values) > 1:
            total[present] += _kernel_log_density(values, other[present, at])
    return total


def _kernel_log_density(known: Tensor, values: Tensor) -> Tensor:
    """Return the log density of values by a kernel density of known ones, of the best of some widths.

    The width of Silverman (1986, eq. 3.31) smooths several modes into one: narrower ones are tried, too, by the
    likelihood of each value given the others.
    """
    known = known[:: -(-len(known) // _KERNEL_ROWS)]
    std = float(known.std()) or 1.0
    low, high = known.quantile(0.25), known.quantile(0.75)
    usual = 0.9 * len(known) ** -0.2 * (min(std, float(high - low) / 1.34) or std)
    squares = (known[:, None] - known).square().fill_diagonal_(torch.inf)
    widths = [usual, usual / 4, usual / 16]
    width = max(widths, key=lambda one: float(_kernel(squares, one, len(known) - 1).mean()))
    inner = torch.cat(
        [
            _kernel((some[:, None] - known).square(), width, len(known))
            for some in torch.split(values, _CHUNK_ROWS // 8)
        ]
    )
    centre = (values - known.mean()) / (_FAR * std)
    far = -0.5 * centre.square() - math.log(_FAR * std) - 0.5 * math.log(2 * math.pi)
    return torch.logaddexp(inner + math.log(1 - _STRAY), far + math.log(_STRAY))


def _kernel(squares: Tensor, width: float, count: int) -> Tensor:
    """Return the log of the mean of Gaussian kernels at some squared distances."""
    scaled = torch.logsumexp(-0.5 * squares / width**2, dim=1).clamp(min=-1e4)
    return scaled - math.log(count * width) - 0.5 * math.log(2 * math.pi)


def _chosen(known: Tensor, added: Tensor, seed: int) -> Mixture:
    """Return the mixture of the least information criterion."""
    found: list[tuple[float, int, Mixture]] = []
    for count in COUNTS:
        if count * ROWS_A_COMPONENT > len(known):
            break
        mixture = best_start(known, count, added, seed=seed, chunk_rows=_CHUNK_ROWS)
        reached, before = -math.inf, -math.inf
        for _ in range(ITERATIONS if count > 1 else 1):
            mixture, reached = em_step(mixture, torch.split(known, _CHUNK_ROWS), added)
            if reached - before < GAIN:
                break
            before = reached
        found.append((information_criterion(mixture, reached, len(known)), count, mixture))
    return min(found, key=lambda one: one[:2])[2]


def _log_density(mixture: Mixture, rows: Tensor, dim: int) -> Tensor:
    """Return the log density of the features of rows given the context behind them."""
    scores = torch.logsumexp(mixture.log_terms(rows), dim=1)
    if dim < rows.shape[1]:
        given = Mixture(mixture.weights, mixture.means[:, dim:], mixture.covariances[:, dim:, dim:])
        scores = scores - torch.logsumexp(given.log_terms(rows[:, dim:]), dim=1)
    return scores


def column_distances(flow: CompiledFlow, other: Doubles, *, seed: int) -> dict[int, float]:
    """Return the columns whose samples differ from other rows, the most different first.

    The distance is that of Kolmogorov and Smirnov, the largest difference of the distribution
    functions; only those are returned that chance makes less than once in 1,000 columns.

    Args:
        other: Rows that the flow was not trained on: features, then context.
    """
    rows = other[:SAMPLES]
    if flow.dim > MOST_COLUMNS or len(rows) < 2:
        return {}
    context = rows[:, flow.dim :] if flow.context_dim else None
    samples = flow.sample(len(rows), seed=seed, context=context)
    found = {}
    for column in range(flow.dim):
        distance, unlikely = ks_distance(samples[:, column], rows[:, column])
        if distance > max(unlikely, _LEAST):
            found[column] = distance
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def ks_distance(one: Doubles, other: Doubles) -> tuple[float, float]:
    """Return the distance of two samples, and the one that is unlikely for equal distributions."""
    one, other = (np.sort(values[~np.isnan(values)]) for values in (one, other))
    if len(one) == 0 or len(other) == 0:
        return 0.0, 1.0
    values = np.concatenate([one, other])
    below = [np.searchsorted(part, values, side="right") / len(part) for part in (one, other)]
    unlikely = _UNLIKELY * math.sqrt(1 / len(one) + 1 / len(other))
    return float(np.abs(below[0] - below[1]).max()), unlikely
