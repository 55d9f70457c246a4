"""Ensembles: mixtures of flows that were trained on the same rows, exact to score and to sample."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from flows.bijections.base import Batch, Bijection, Given, Mapped, PerRow
from flows.bijections.observed import Observed
from flows.cost import Operations
from flows.errors import FlowError
from flows.flow import Flow
from flows.specs.ensemble import EnsembleSpec


def build_ensemble(
    spec: EnsembleSpec, dim: int, generator: torch.Generator, context_dim: int = 0
) -> Bijection:
    """Return the untrained bijection of a specification."""
    members = [member.build(dim, generator, context_dim) for member in spec.members]
    return Ensemble(members, spec.weights)


class Ensemble(Bijection):
    """Mixture p(x) = sum_k w_k p_k(x) of densities of the same rows.

    The *probabilities* are averaged, so the density is exact; data have no noise. The forward
    direction draws the member from the first number of the noise: the uniform number behind it
    falls into the interval of one member, and its place there is uniform again.
    """

    has_noise = False
    own_density = True
    weights: Tensor

    def __init__(self, members: Sequence[Bijection], weights: Sequence[float]) -> None:
        super().__init__()
        self.dim = members[0].dim
        self.context_dim = members[0].context_dim
        self.members = nn.ModuleList(members)
        exact = torch.tensor(list(weights), dtype=torch.float64)
        self.register_buffer("weights", exact, persistent=False)

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        chosen, u = choose_member(u, self.weights)
        x, log_det = torch.empty_like(u), u.new_empty(len(u))
        for number, member in enumerate(self.members):
            rows = chosen == number
            if bool(rows.any()):
                given = None if context is None else context[rows]
                mask = None if observed is None else observed[rows]
                x[rows], log_det[rows] = member.forward(u[rows], given, mask)
        return x, log_det

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        raise FlowError("an ensemble has no noise that its rows could be mapped to")

    def log_density(self, x: Batch, context: Given = None, observed: Observed = None) -> PerRow:
        scores = [own(member).log_density(x, context, observed) for member in self.members]
        return mix(torch.stack(scores), self.weights)

    def log_parts(self, x: Batch, context: Given = None) -> Float[Tensor, "batch 2"]:
        """Return log P(d) and log p(x_O | d) of each row.

        Raises:
            FlowError: The members have no such parts.
        """
        parts = torch.stack([own(member).log_parts(x, context) for member in self.members])
        return mix_parts(parts, self.weights)


def ensemble_of(flows: Sequence[Flow], weights: Sequence[float]) -> Flow:
    """Return the mixture of flows that have the same preprocessing.

    Args:
        flows: Flows of the same columns; their layers become those of the mixture.
        weights: Weight of each flow; they sum to 1.

    Raises:
        FlowError: Their preprocessing differs.
    """
    first = flows[0]
    for other in flows[1:]:
        for name in ("preprocessing", "context"):
            if not _same(getattr(first, name), getattr(other, name)):
                raise FlowError(f"the members of an ensemble need the same {name}")
    ensemble = Ensemble([flow.transform for flow in flows], weights)
    return Flow(
        ensemble,
        first.preprocessing,
        context=first.context,
        row_bytes=max(flow.row_bytes for flow in flows),
        operations=Operations(
            sum(flow.operations.density for flow in flows),
            sum(flow.operations.sampling for flow in flows),
        ),
    )


def mix(scores: Float[Tensor, "members batch"], weights: Tensor) -> PerRow:
    """Return the log densities of a mixture, from those of its members.

    A row to which one member gives NaN, as a row beyond its arithmetic, is scored by the others.
    """
    held = torch.where(scores.isnan(), -torch.inf, scores)
    mixed = torch.logsumexp(held + weights.log().to(scores.dtype)[:, None], dim=0)
    return torch.where(scores.isnan().all(dim=0), torch.nan, mixed)


def mix_parts(parts: Float[Tensor, "members batch 2"], weights: Tensor) -> Float[Tensor, "batch 2"]:
    """Return log P(d) and log p(x_O | d) of a mixture, from those of its members."""
    discrete = mix(parts[:, :, 0], weights)
    total = mix(parts.sum(dim=2), weights)
    return torch.stack([discrete, total - discrete], dim=1)


def choose_member(u: Batch, weights: Tensor) -> tuple[Int[Tensor, " batch"], Batch]:
    """Return the member of each row, and the remaining noise: standard Gaussian again."""
    ends = weights.double().cumsum(dim=0).to(u.device)
    place = torch.special.ndtr(u[:, 0].double()) * ends[-1]
    chosen = torch.searchsorted(ends, place, right=True).clamp(max=len(ends) - 1)
    width = weights.double().to(u.device)[chosen]
    inside = (place - (ends[chosen] - width)) / width
    edge = torch.finfo(torch.float64).eps
    left = torch.special.ndtri(inside.clamp(edge, 1 - edge))
    return chosen, torch.cat([left.to(u.dtype)[:, None], u[:, 1:]], dim=1)


def own(member: nn.Module) -> Bijection:
    """Return a member of a module list as what it is."""
    assert isinstance(member, Bijection)  # noqa: S101  a module list forgets the type
    return member


def _same(one: nn.Module | None, other: nn.Module | None) -> bool:
    if one is None or other is None:
        return one is other
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(
        torch.equal(mine[name].nan_to_num(), theirs[name].nan_to_num()) for name in mine
    )
