"""Specification of generative models with latent variables."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from flows.cost import FLOAT_BYTES, Cost, Way
from flows.errors import SpecError
from flows.specs.costs import network_cost
from flows.specs.family import FamilySpec
from flows.specs.gaussian import GaussianSpec
from flows.specs.spec import ActivationName, Spec

if TYPE_CHECKING:
    import torch

    import flows.bijections.base


Likelihood = Literal["bernoulli", "gaussian"]
"""Distribution of a column given the latent variables."""


@dataclass(frozen=True)
class LatentSpec(Spec):
    """Approximate posterior q(z | x), and the generative model p(x | z) p(z) that it was fitted to.

    The flow models the latent variables z; the data x are its context. z has a standard Gaussian
    prior, and each column of x its own distribution given z (Kingma and Welling 2014).

    Attributes:
        flow: Specification of q(z | x), with its encoder of x if it has one.
        likelihood: Distribution of a column given z: `bernoulli` of 0 and 1, or `gaussian`.
        hidden: Units of each hidden layer of the decoder; none for a linear one.
        activation: Activation between the decoder's layers.
    """

    family: Literal["latent"] = "latent"
    flow: FamilySpec = field(default_factory=GaussianSpec)
    likelihood: Likelihood = "gaussian"
    hidden: list[int] = field(default_factory=list)
    activation: ActivationName = "tanh"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.flow, get_args(FamilySpec)) or self.flow.is_binary:
            raise ValueError("flow must be the specification of a flow of numbers")
        if self.encoder is not None:
            raise ValueError("the encoder is that of the flow")

    def check_dim(self, dim: int) -> None:
        self.flow.check_dim(dim)

    def check_context(self, context_dim: int) -> None:
        if context_dim < 1:
            raise SpecError("spec-invalid", "latent variables need columns that they explain")

    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        return self.flow.cost(dim, context_dim) + self.decoder_cost(dim, context_dim)

    def decoder_cost(self, dim: int, columns: int) -> Cost:
        """Return what the decoder takes."""
        found = network_cost([dim, *self.hidden, columns])
        # Numbers of the columns, the terms of their likelihoods, and a copy in float64.
        terms = Way(kept_row=16 * FLOAT_BYTES * columns, used_row=8 * FLOAT_BYTES * columns)
        exact = Way(used_row=2 * found.density.used_row)
        own = Cost(
            parameters=columns if self.likelihood == "gaussian" else 0,
            buffers=2 * FLOAT_BYTES * columns,
            density=exact,
            sampling=terms + exact,
        )
        return found + own

    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        return self.flow.build(dim, generator, context_dim)


def latent_names(dim: int) -> tuple[str, ...]:
    """Return the names of latent variables."""
    return tuple(f"z{number + 1}" for number in range(dim))
