"""Sinh-arcsinh flows: columns with a skewness and tails of their own (Jones and Pewsey 2009)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from flows.bijections.base import Batch, Bijection, Given, Mapped, Terms
from flows.bijections.compose import Chain
from flows.bijections.observed import Observed, refuse_mask
from flows.cost import FLOAT_BYTES, Cost, Way
from flows.errors import SpecError
from flows.families.gaussian import Gaussian
from flows.specs.costs import gaussian_cost
from flows.specs.spec import Spec


@dataclass(frozen=True)
class SinhArcsinhSpec(Spec):
    """Gaussian whose columns are bent one by one.

    Attributes:
        covariance: `full`, or `diagonal` for independent columns.
    """

    family: Literal["sinh_arcsinh"] = "sinh_arcsinh"
    covariance: Literal["diagonal", "full"] = "full"

    def check_context(self, context_dim: int) -> None:
        if context_dim > 0:
            raise SpecError("flow-unsuitable", "sinh_arcsinh has no densities given a context")

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        way = Way(kept_row=16 * FLOAT_BYTES * dim, used_row=12 * FLOAT_BYTES * dim, operations=40)
        bent = Cost.both(way, parameters=2 * dim, layers=1)
        return bent + gaussian_cost(dim, full=self.covariance == "full")

    def build(self, dim: int, generator: torch.Generator, context_dim: int = 0) -> Bijection:
        full = self.covariance == "full"
        return Chain([SinhArcsinh(dim), Gaussian(dim, full=full, generator=generator)])


class SinhArcsinh(Bijection):
    """x = sinh((asinh(u) + skew) / tail), column by column (Jones and Pewsey 2009, section 2).

    log|du/dx| = log(tail) + log cosh(tail asinh(x) - skew) - log(1 + x^2) / 2.
    """

    triangular = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.skew = nn.Parameter(torch.zeros(dim))
        self.log_tail = nn.Parameter(torch.zeros(dim))

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        x = torch.sinh((torch.asinh(u) + self.skew) * torch.exp(-self.log_tail))
        return x, -self.inverse_terms(x)[1].sum(dim=1)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        u, log_slopes = self.inverse_terms(x, context, observed)
        return u, log_slopes.sum(dim=1)

    def inverse_terms(self, x: Batch, context: Given = None, observed: Observed = None) -> Terms:
        refuse_mask(observed)
        bent = torch.exp(self.log_tail) * torch.asinh(x) - self.skew
        # log cosh, without overflow.
        log_cosh = bent.abs() + torch.log1p(torch.exp(-2 * bent.abs())) - math.log(2)
        return torch.sinh(bent), self.log_tail + log_cosh - 0.5 * torch.log1p(x.square())
