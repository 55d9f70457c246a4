"""Mixture of Gaussians with full covariances, as a density and as a map from noise."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from flows.bijections.base import (
    LOG_TWO_PI,
    Batch,
    Bijection,
    Conditionals,
    Given,
    Mapped,
    PerRow,
    known_means,
)
from flows.bijections.observed import Observed, of_features, only_observed
from flows.bijections.transformers import GaussianMixture
from flows.errors import FlowError
from flows.specs.gaussian_mixture import MOST_COMPONENTS, GaussianMixtureSpec


def build_gaussian_mixture(
    spec: GaussianMixtureSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    return MixtureOfGaussians(dim, spec, generator, context_dim)


_NO_WEIGHT = -1e4
_USED = -5e3


class MixtureOfGaussians(Bijection):
    """Mixture of Gaussians N(m_k, C_k) of the context and the features, C_k^-1 = P_k^T P_k.

    P_k is lower triangular with a positive diagonal. Of z = P_k (x - m_k) the first i numbers give
    log N(x_<=i) of a component, so that the mixture of x_i given those before it has the weights
    w_k N(x_<i; m_k, C_k), and u_i = Phi^-1(F(x_i | x_<i)) maps data to standard Gaussian noise.
    The density takes `components dim^2` operations, the noise the same and the forward direction
    a root search for each feature. Features that are not observed are left out of every covariance.
    """

    own_density = True
    triangular = True
    exact_marginals = True
    rows: Tensor
    columns: Tensor

    def __init__(
        self, dim: int, spec: GaussianMixtureSpec, generator: torch.Generator, context_dim: int = 0
    ) -> None:
        super().__init__()
        self.dim, self.context_dim, self.spec = dim, context_dim, spec
        width, count = dim + context_dim, spec.components or MOST_COMPONENTS
        self.width, self.count = width, count
        rows, columns = torch.tril_indices(width, width, offset=-1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.logits = _initial((count,), 0.01, generator)
        self.means = _initial((count, width), 0.5, generator)
        self.log_diagonal = _initial((count, width), 0.01, generator)
        self.lower = _initial((count, len(rows)), 0.01, generator) if width > 1 else None

    @torch.no_grad()
    def set_components(
        self,
        weights: Float[Tensor, " k"],
        means: Float[Tensor, "k width"],
        covariances: Float[Tensor, "k width width"],
    ) -> None:
        """Set the first components; the others weigh nothing."""
        factors = inverse_of(torch.linalg.cholesky(covariances.double()))
        used = len(weights)
        self.logits.fill_(_NO_WEIGHT)
        self.logits[:used] = weights.log().clamp(min=_USED + 1)
        self.means.zero_()
        self.means[:used] = means.to(self.means.dtype)
        self.log_diagonal.zero_()
        self.log_diagonal[:used] = factors.diagonal(dim1=1, dim2=2).log().to(self.means.dtype)
        if self.lower is not None:
            self.lower.zero_()
            self.lower[:used] = factors[:, self.rows, self.columns].to(self.means.dtype)

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        found = self._by_mask(self._sampled, u, context, observed, exact=True)
        return found[:, :-1], found[:, -1]

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        found = self._by_mask(self._noise, x, context, observed, exact=True)
        return found[:, :-1], found[:, -1]

    def log_density(self, x: Batch, context: Given = None, observed: Observed = None) -> PerRow:
        return self._by_mask(self._density, x, context, observed)[:, 0]

    def conditionals(
        self, x: Batch, context: Given = None, observed: Observed = None
    ) -> Conditionals:
        found = self._by_mask(self._given_earlier, x, context, observed, exact=True)
        log_probs, means = found.chunk(2, dim=1)
        return Conditionals(log_probs, known_means(means, of_features(observed, self.dim)))

    def _by_mask(
        self,
        compute: Callable[[Tensor, "_Components"], Tensor],
        rows: Tensor,
        context: Tensor | None,
        observed: Tensor | None,
        *,
        exact: bool = False,
    ) -> Tensor:
        """Return the results of rows with the context before their features, a mask at a time.

        A mask of the features alone has the whole context observed.
        The map between noise and data is steep between components: it is computed in float64.
        """
        if context is None and self.context_dim > 0:
            raise FlowError("this density is conditional: it needs a context")
        if observed is not None and observed.shape[1] < self.width:
            observed = F.pad(observed, (self.context_dim, 0), value=1.0)
        rows = only_observed(rows, of_features(observed, self.dim))
        joint = rows if context is None else torch.cat([context, rows], dim=1)
        components = self.components()
        if exact:
            joint, components = joint.double(), components.double()
        if observed is None or len(rows) == 0:
            return compute(joint, components).to(rows.dtype)
        masks, places = torch.unique(observed, dim=0, return_inverse=True)
        pieces = [
            compute(
                joint[places == number],
                components.marginal(mask),
            )
            for number, mask in enumerate(masks)
        ]
        return torch.cat(pieces)[places.argsort(stable=True).argsort()].to(rows.dtype)

    def _density(self, joint: Tensor, components: "_Components") -> Tensor:
        terms = components.terms(joint)[1]
        score = torch.logsumexp(components.log_weights + terms.sum(dim=2), dim=1)
        if self.context_dim > 0:
            given = components.log_weights + terms[:, :, : self.context_dim].sum(dim=2)
            score = score - torch.logsumexp(given, dim=1)
        return score[:, None]

    def _given_earlier(self, joint: Tensor, components: "_Components") -> Tensor:
        """Return log densities of the features given those before them, then their means."""
        z, terms = components.terms(joint)
        diagonal = components.factors.diagonal(dim1=1, dim2=2)
        shares = torch.log_softmax(
            components.log_weights[:, None] + terms.cumsum(dim=2) - terms, dim=1
        )
        log_probs = torch.logsumexp(shares + terms, dim=1)
        means = (shares.exp() * (joint[:, None] - z / diagonal)).sum(dim=1)
        return torch.cat([part[:, self.context_dim :] for part in (log_probs, means)], dim=1)

    def _noise(self, joint: Tensor, components: "_Components") -> Tensor:
        z, terms = components.terms(joint)
        diagonal = components.factors.diagonal(dim1=1, dim2=2)
        weights = components.log_weights[:, None] + terms.cumsum(dim=2) - terms
        parts = weights, joint[:, None] - z / diagonal, -diagonal.log().expand_as(z)
        first = self.context_dim
        parameters = torch.cat([part[:, :, first:].movedim(1, 0) for part in parts])
        seen = components.seen[first:]
        u, log_det = _MAP.inverse(joint[:, first:], parameters)
        return torch.cat([u * seen, (log_det * seen).sum(dim=1, keepdim=True)], dim=1)

    def _sampled(self, joint: Tensor, components: "_Components") -> Tensor:
        """Return data and log-determinant from noise, which stands behind the context."""
        noise, log_det = joint, joint.new_zeros(len(joint))
        weights = components.log_weights.expand(len(joint), -1)
        known: list[Tensor] = []
        columns: list[Tensor] = []
        for i in range(self.width):
            row, mean = components.factors[:, i], components.means[:, i]
            earlier = torch.stack(known, dim=2) if known else joint.new_zeros(*weights.shape, 0)
            shift = (earlier * row[:, :i]).sum(dim=2)
            scale, seen = row[:, i], components.seen[i]
            value = joint[:, i]
            if i >= self.context_dim:
                parts = weights, mean - shift / scale, -scale.log().expand_as(weights)
                parameters = torch.cat([part.t() for part in parts])
                value, slope = _MAP.forward(noise[:, i], parameters)
                value, log_det = value * seen, log_det + slope * seen
                columns.append(value)
            known.append((value[:, None] - mean) * seen)
            z = known[-1] * scale + shift
            weights = weights + seen * (scale.log() - 0.5 * z.square() - 0.5 * LOG_TWO_PI)
        return torch.stack([*columns, log_det], dim=1)

    def components(self) -> "_Components":
        """Return weights, means and factors; without gradients only of components that weigh something."""
        chosen = slice(None)
        if not torch.is_grad_enabled():
            chosen = slice(int((self.logits > _USED).sum()))
        diagonal = self.log_diagonal[chosen].exp()
        factors = torch.diag_embed(diagonal)
        if self.lower is not None:
            lower = torch.zeros_like(factors)
            index = (slice(None), self.rows, self.columns)
            lower[index] = self.lower[chosen]
            factors = factors + lower
        weights = torch.log_softmax(self.logits[chosen], dim=0)
        return _Components(weights, self.means[chosen], factors, torch.ones_like(diagonal[0]))


# The map from a mixture of Gaussians of one feature to noise; the number of components is that of
# its parameters.
_MAP = GaussianMixture(1)


class _Components(NamedTuple):
    """Weights, means and inverse factors of components, and 1 for each number that is observed."""

    log_weights: Tensor
    means: Tensor
    factors: Tensor
    seen: Tensor

    def terms(self, joint: Tensor) -> tuple[Tensor, Tensor]:
        """Return z of each component, and log N(x_i | x_<i) of each number: (rows, k, width)."""
        centred = (joint[:, None] - self.means) * self.seen
        z = torch.einsum("bkj,kij->bki", centred, self.factors)
        diagonal = self.factors.diagonal(dim1=1, dim2=2)
        return z, self.seen * (diagonal.log() - 0.5 * z.square() - 0.5 * LOG_TWO_PI)

    def double(self) -> "_Components":
        """Return the components in float64."""
        return _Components(*(part.double() for part in self))

    def marginal(self, seen: Tensor) -> "_Components":
        """Return the components of some of the numbers, computed in float64."""
        if bool((seen == 1).all()):
            return self
        inverse = inverse_of(self.factors.double())
        covariances = inverse @ inverse.mT
        both = seen[:, None] * seen
        covariances = covariances * both + torch.diag(1 - seen)
        factors = inverse_of(torch.linalg.cholesky_ex(covariances).L)
        return self._replace(factors=factors.to(self.factors.dtype), seen=seen)


def inverse_of(factors: Float[Tensor, "k width width"]) -> Float[Tensor, "k width width"]:
    """Return the inverses of lower triangular matrices."""
    identity = torch.eye(factors.shape[1], dtype=factors.dtype, device=factors.device)
    result: Tensor = torch.linalg.solve_triangular(
        factors, identity.expand_as(factors), upper=False
    )
    return result


def _initial(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> nn.Parameter:
    value = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return nn.Parameter(value)
