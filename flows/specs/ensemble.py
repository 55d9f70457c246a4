"""Specification of mixtures of flows that were trained on the same rows."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from flows.cost import FLOAT_BYTES, Cost, Way, total_cost
from flows.errors import SpecError
from flows.specs.family import FamilySpec
from flows.specs.mixed import MixedSpec
from flows.specs.spec import Spec

if TYPE_CHECKING:
    import torch

    import flows.bijections.base


MAX_MEMBERS = 64
"""Most members of an ensemble."""


_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class EnsembleSpec(Spec):
    """Mixture of flows: p(x) = sum_k w_k p_k(x).

    All members model the same columns and share their preprocessing.

    Attributes:
        members: Specifications of the flows, without encoders.
        weights: Weight of each member; they sum to 1.
    """

    family: Literal["ensemble"] = "ensemble"
    members: list[FamilySpec | MixedSpec] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.members) <= MAX_MEMBERS:
            raise ValueError(f"members must list 1 to {MAX_MEMBERS} flows")
        for member in self.members:
            if not isinstance(member, (*get_args(FamilySpec), MixedSpec)):
                raise ValueError("members must be specifications of other families")  # noqa: TRY004  as all faults of a spec
            if member.encoder is not None or member.is_binary:
                raise ValueError("members must be flows of values, without encoders")
        mixed = [member for member in self.members if isinstance(member, MixedSpec)]
        if len(mixed) not in (0, len(self.members)) or any(
            (one.columns, one.context) != (mixed[0].columns, mixed[0].context) for one in mixed
        ):
            raise ValueError("members must describe the same columns")
        if self.encoder is not None:
            raise ValueError("an ensemble has no encoder")
        _check_weights(self.weights, len(self.members))

    @property
    def mixed(self) -> MixedSpec | None:
        """Return the first member if the members are densities of mixed rows; else None."""
        first = self.members[0]
        return first if isinstance(first, MixedSpec) else None

    def check_dim(self, dim: int) -> None:
        for member in self.members:
            member.check_dim(dim)

    def check_context(self, context_dim: int) -> None:
        for member in self.members:
            member.check_context(context_dim)

    def for_targets(self) -> "EnsembleSpec":
        raise SpecError("flow-unsuitable", "an ensemble does not map noise to rows")

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        members = total_cost([member.cost(dim, context_dim) for member in self.members])
        row = FLOAT_BYTES * (4 * len(self.members) + 4 * dim)
        return members + Cost(density=Way(used_row=row), sampling=Way(used_row=row))

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.ensemble import build_ensemble

        return build_ensemble(self, dim, generator, context_dim)


def _check_weights(weights: object, count: int) -> None:
    numbers = isinstance(weights, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and 0 < one <= 1
        for one in weights
    )
    if not numbers or not isinstance(weights, list) or len(weights) != count:
        raise ValueError("weights must list a number above 0 for each member")
    if abs(math.fsum(weights) - 1) > _SUM_TOLERANCE:
        raise ValueError("weights must sum to 1")
