"""Expectation maximisation of a mixture of Gaussians with full covariances, in float64."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import LOG_TWO_PI
from flows.families.gaussian_mixture import inverse_of
from flows.training.rows import generator_of

# Iterations of Lloyd's algorithm from the centres of k-means++.
_LLOYD = 10
# Least number of rows that a component stands for: it never has a share of 0.
_LEAST = 1e-6
# Starts of a number of components, and iterations by which they are compared.
STARTS, START_ITERATIONS = 3, 5
# Rows of a component at least, where their number is chosen.
ROWS_A_COMPONENT = 10
# A number of components is fitted once an iteration gains less than this, in nats per row.
GAIN = 1e-4


@dataclass(frozen=True, eq=False)
class Mixture:
    """Mixture of Gaussians.

    Attributes:
        covariances: Covariance of each component, positive definite.
    """

    weights: Float[Tensor, " k"]
    means: Float[Tensor, "k width"]
    covariances: Float[Tensor, "k width width"]

    @property
    def parameters(self) -> int:
        """Number of free parameters."""
        count, width = self.means.shape
        return count * (1 + width + width * (width + 1) // 2) - 1

    def log_terms(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows k"]:
        """Return log w_k N(x; m_k, C_k) of each row and component."""
        factors = inverse_of(torch.linalg.cholesky(self.covariances))
        # One component at a time: z of all of them would take `k` times as much memory as the rows.
        squares = [
            ((rows - mean) @ factor.t()).square().sum(dim=1)
            for mean, factor in zip(self.means, factors, strict=True)
        ]
        scales = factors.diagonal(dim1=1, dim2=2).log().sum(dim=1) + self.weights.log()
        return scales - 0.5 * (torch.stack(squares, dim=1) + rows.shape[1] * LOG_TWO_PI)


def em_step(
    mixture: Mixture, chunks: Iterable[Tensor], added: Float[Tensor, " width"]
) -> tuple[Mixture, float]:
    """Return the mixture after one iteration, and the mean log density of the rows before it.

    Args:
        chunks: Rows of the whole table, some at a time, which lack no value.
    """
    shares, sums = torch.zeros_like(mixture.weights), torch.zeros_like(mixture.means)
    squares, total, count = torch.zeros_like(mixture.covariances), 0.0, 0
    for rows in chunks:
        # Moments around the component's present mean keep their digits.
        terms = mixture.log_terms(rows)
        log_density = torch.logsumexp(terms, dim=1)
        parts = (terms - log_density[:, None]).exp()
        shares += parts.sum(dim=0)
        for k, mean in enumerate(mixture.means):
            centred = rows - mean
            weighted = centred * parts[:, k : k + 1]
            sums[k] += weighted.sum(dim=0)
            squares[k] += weighted.t() @ centred
        total, count = total + float(log_density.sum()), count + len(rows)
    shares = shares.clamp(min=_LEAST)
    moved = sums / shares[:, None]
    covariances = squares / shares[:, None, None] - moved[:, :, None] * moved[:, None]
    covariances = 0.5 * (covariances + covariances.mT) + torch.diag(added)
    return Mixture(shares / shares.sum(), mixture.means + moved, covariances), total / count


def start(
    rows: Float[Tensor, "rows width"],
    count: int,
    added: Float[Tensor, " width"],
    generator: torch.Generator,
) -> Mixture:
    """Return a mixture around the centres of k-means, whose components share one covariance."""
    centres = _plus_plus(rows, count, generator)
    nearest = torch.cdist(rows, centres).argmin(dim=1)
    for _ in range(_LLOYD):
        sizes = torch.bincount(nearest, minlength=count).to(rows.dtype)
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres)
        nearest = torch.cdist(rows, centres).argmin(dim=1)
    sizes = torch.bincount(nearest, minlength=count).to(rows.dtype).clamp(min=_LEAST)
    centred = rows - centres[nearest]
    within = centred.t() @ centred / len(rows) + torch.diag(added)
    return Mixture(sizes / sizes.sum(), centres, within.expand(count, -1, -1).clone())


def best_start(
    rows: Float[Tensor, "rows width"],
    count: int,
    added: Float[Tensor, " width"],
    *,
    seed: int,
    chunk_rows: int,
) -> Mixture:
    """Return the best of several starts after a few iterations."""
    found: list[tuple[float, int, Mixture]] = []
    chunks = torch.split(rows, chunk_rows)
    for number in range(STARTS if count > 1 else 1):
        mixture, reached = start(rows, count, added, generator_of(seed, count, number)), 0.0
        for _ in range(START_ITERATIONS):
            mixture, reached = em_step(mixture, chunks, added)
        found.append((reached, -number, mixture))
    return max(found, key=lambda one: one[:2])[2]


def _plus_plus(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return rows far from each other (Arthur and Vassilvitskii 2007)."""
    first = int(torch.randint(len(rows), (), generator=generator))
    centres, nearest = [rows[first]], (rows - rows[first]).square().sum(dim=1)
    while len(centres) < count:
        uniform = float(torch.rand((), generator=generator, dtype=torch.float64))
        heights = nearest.cumsum(dim=0)
        place = int(torch.searchsorted(heights, uniform * heights[-1]).clamp(max=len(rows) - 1))
        centres.append(rows[place])
        nearest = torch.minimum(nearest, (rows - rows[place]).square().sum(dim=1))
    return torch.stack(centres)


def information_criterion(mixture: Mixture, log_density: float, rows: int) -> float:
    """Return the Bayesian information criterion, lower for a better mixture.

    Args:
        log_density: Mean log density of the rows that it was fitted to.
    """
    return mixture.parameters * math.log(rows) - 2 * rows * log_density
