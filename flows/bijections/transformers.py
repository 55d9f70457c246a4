"""Elementwise maps whose parameters a conditioner gives: the affine one and their interface.

In the terms of autoregressive and coupling flows, x_i = T(u_i; p_i): a transformer is T, strictly
increasing in u_i.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flows.bijections.base import LOG_TWO_PI
from flows.bijections.folding import Pending
from flows.cost import FLOAT_BYTES, Cost, Way


@dataclass(frozen=True)
class MapSize:
    """Numbers of a transformer.

    Attributes:
        outputs: parameters of each map.
        kept: numbers that a gradient keeps of each map, its parameters apart.
        used: most numbers that each map takes while it is computed, in either direction, its
            parameters apart.
        own: trainable numbers that all maps share.
        operations: small operations one after another of the direction that takes more of them.
    """

    outputs: int
    kept: int = 4
    used: int = 8
    own: int = 0
    operations: int = 8


def map_cost(maps: int, size: MapSize) -> Cost:
    """Return what so many maps take beside the network that gives their parameters."""
    row = FLOAT_BYTES * 8 * maps
    way = Way(
        kept_row=row + FLOAT_BYTES * size.kept * maps,
        used_row=row + FLOAT_BYTES * size.used * maps,
        operations=size.operations,
    )
    return Cost(density=way, sampling=way)


class Transformer(ABC):
    """An increasing map of single numbers.

    Attributes:
        outputs: parameters of each map.
        has_noise: whether it has an inverse; without one, it gives `log_density` and `forward`.
        own_density: whether `log_density` is not just the inverse and the Gaussian density.
        sample_rows: rows that `forward` should have at the least, where it is many small
            operations.
    """

    outputs: int
    has_noise: bool = True
    own_density: bool = False
    sample_rows: int = 1

    @abstractmethod
    def inverse(
        self, x: Float[Tensor, "*shape"], parameters: Float[Tensor, "outputs ..."]
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Data to noise, with log du/dx of each number."""

    @abstractmethod
    def forward(
        self, u: Float[Tensor, "*shape"], parameters: Float[Tensor, "outputs ..."]
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Noise to data, with log dx/du of each number."""

    def log_density(
        self, x: Float[Tensor, "*shape"], parameters: Float[Tensor, "outputs ..."]
    ) -> Float[Tensor, "*shape"]:
        """The log density of each number, if the noise is standard Gaussian."""
        u, log_det = self.inverse(x, parameters)
        return log_det - 0.5 * u.square() - 0.5 * LOG_TWO_PI

    def forward_into(
        self,
        u: Float[Tensor, "*shape"],
        parameters: Float[Tensor, "outputs ..."],
        x: Float[Tensor, "*shape"],
        log_det: Float[Tensor, "*shape"],
    ) -> None:
        """Writes the results of `forward` where they belong; without gradients."""
        result, result_log_det = self.forward(u, parameters)
        x.copy_(result)
        log_det.copy_(result_log_det)

    def folded(self, pending: Pending) -> "Transformer":
        """The map as a compiled flow keeps it; one with weights of its own casts them."""
        return self

    def tensors(self) -> list[Tensor]:
        """Weights of its own."""
        return []


class Affine(Transformer):
    """x = shift + u exp(log_scale); the parameters are shift and log_scale."""

    size = MapSize(outputs=2)
    outputs = size.outputs

    def inverse(
        self, x: Float[Tensor, "*shape"], parameters: Float[Tensor, "outputs ..."]
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Data to noise."""
        shift, log_scale = parameters.unbind(0)
        return (x - shift) * torch.exp(-log_scale), -log_scale

    def forward(
        self, u: Float[Tensor, "*shape"], parameters: Float[Tensor, "outputs ..."]
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Noise to data."""
        shift, log_scale = parameters.unbind(0)
        return shift + u * torch.exp(log_scale), log_scale

    def forward_into(
        self,
        u: Float[Tensor, "*shape"],
        parameters: Float[Tensor, "outputs ..."],
        x: Float[Tensor, "*shape"],
        log_det: Float[Tensor, "*shape"],
    ) -> None:
        """The same in one operation."""
        shift, log_scale = parameters.unbind(0)
        torch.addcmul(shift, u, log_scale.exp(), out=x)
        log_det.copy_(log_scale)
