"""Mixture of Gaussians with full covariances."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flows.cost import FLOAT_BYTES, INDEX_BYTES, Cost, Way
from flows.specs.spec import Spec

if TYPE_CHECKING:
    import torch

    import flows.bijections.base


# Rows by which the starts of a number of components are compared.
START_ROWS = 10_000
_SAMPLE_COPIES = 4  # in float64, while k-means centres them
# Components of a mixture whose number the fit chooses; those that it leaves out weigh nothing.
MOST_COMPONENTS = 16


@dataclass(frozen=True)
class GaussianMixtureSpec(Spec):
    """Mixture of Gaussians, fitted by expectation maximisation instead of gradients.

    p(x) = sum_k w_k N(x; m_k, C_k). The density of some features is the exact marginal, and with a
    context the density is the exact conditional of a mixture of both.

    Attributes:
        components: Number of Gaussians; None chooses it by the Bayesian information criterion.
        regularisation: Part of a column's variance that is added to each of its variances.
    """

    family: Literal["gaussian_mixture"] = "gaussian_mixture"
    components: int | None = None
    regularisation: float = 1e-4
    masks_columns = True
    exact_marginals = True

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        width, count = dim + context_dim, self.components or MOST_COMPONENTS
        square = count * width**2
        parameters = count * (1 + 2 * width + width * (width - 1) // 2)
        indices = 2 * INDEX_BYTES * (width * (width - 1) // 2)
        row = FLOAT_BYTES * count * (12 * width + 40) + FLOAT_BYTES * 3 * count * dim
        way = Way(
            kept=4 * FLOAT_BYTES * square,
            kept_row=row,
            used=8 * INDEX_BYTES * square,
            used_row=row,
            operations=1600 * dim,
        )
        return Cost.both(way, parameters=parameters, layers=1, buffers=indices)

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.gaussian_mixture import build_gaussian_mixture

        return build_gaussian_mixture(self, dim, generator, context_dim)


def sample_bytes(rows: int, width: int) -> int:
    """Return the bytes of the rows from which a mixture starts, and of what is computed of them.

    Args:
        width: Numbers of a row, those of its context included.
    """
    return _SAMPLE_COPIES * 2 * FLOAT_BYTES * min(rows, START_ROWS) * width
