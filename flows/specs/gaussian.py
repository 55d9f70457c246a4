"""Gaussian densities, with a diagonal or a full covariance."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flows.cost import Cost
from flows.specs.costs import gaussian_cost
from flows.specs.spec import Spec

if TYPE_CHECKING:
    import torch

    import flows.bijections.base


@dataclass(frozen=True)
class GaussianSpec(Spec):
    """One Gaussian: the baseline of every flow.

    Attributes:
        covariance: `full`, or `diagonal`: independent features, the mean-field approximation of
            variational inference.
    """

    family: Literal["gaussian"] = "gaussian"
    covariance: Literal["diagonal", "full"] = "full"

    @property
    def masks_columns(self) -> bool:
        return self.covariance == "diagonal"

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        return gaussian_cost(dim, full=self.covariance == "full", context_dim=context_dim)

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        from flows.families.gaussian import build_gaussian

        return build_gaussian(self, dim, generator, context_dim)
