"""Flows: densities over the rows of a table."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.base import Bijection
from flows.compose import Standardise

Space = Literal["data", "model"]

LOG_TWO_PI = math.log(2 * math.pi)

# Noise is drawn in whole blocks of this many rows, so that the rows of a seed do not depend on
# how many of them are asked for at a time.
NOISE_BLOCK_ROWS = 64


class Flow(nn.Module):
    """A density: a bijection over a standard Gaussian, in the units of the data.

    Standardisation is the layer next to the data, with its log-determinant. It is computed in
    float64, whatever the precision of the rest, so that data far from 0 keep their digits.
    """

    def __init__(self, transform: Bijection, standardise: Standardise | None = None) -> None:
        super().__init__()
        self.dim = transform.dim
        self.transform = transform
        self.standardise = standardise

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(
        self, u: Float[Tensor, "batch dim"], *, space: Space = "data"
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Noise to data, with log|det dx/du|.

        Args:
            u: noise.
            space: `model` leaves the standardisation out.
        """
        x, log_det = self.transform.forward(u.to(self.dtype))
        if self.standardise is None or space == "model":
            return x, log_det
        x, outer = self.standardise.forward(x)
        return x, log_det + outer.to(log_det.dtype)

    def inverse(
        self, x: Float[Tensor, "batch dim"], *, space: Space = "data"
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Data to noise, with log|det du/dx|.

        Args:
            x: data.
            space: `model` leaves the standardisation out.
        """
        if self.standardise is None or space == "model":
            return self.transform.inverse(x.to(self.dtype))
        x, outer = self.standardise.inverse(x)
        u, log_det = self.transform.inverse(x.to(self.dtype))
        return u, log_det + outer.to(log_det.dtype)

    def log_prob(
        self, x: Float[Tensor, "batch dim"], *, space: Space = "data"
    ) -> Float[Tensor, " batch"]:
        """The log density of each row, in nats.

        Args:
            x: data.
            space: `model` gives the density of the standardised rows.
        """
        u, log_det = self.inverse(x, space=space)
        return log_det - 0.5 * u.square().sum(dim=1) - 0.5 * self.dim * LOG_TWO_PI

    @torch.no_grad()
    def sample(
        self, n: int, *, generator: torch.Generator, space: Space = "data"
    ) -> Float[Tensor, "batch dim"]:
        """Draws rows; the same generator state gives the same rows on every device.

        Args:
            n: how many rows.
            generator: on the CPU.
            space: `model` gives standardised rows.
        """
        u = base_noise(n, self.dim, generator=generator)
        x, _ = self.forward(u.to(self.device), space=space)
        return x


def base_noise(n: int, dim: int, *, generator: torch.Generator) -> Float[Tensor, "batch dim"]:
    """Standard Gaussian rows in float32, drawn on the CPU in blocks of `NOISE_BLOCK_ROWS`."""
    blocks = -(-n // NOISE_BLOCK_ROWS)
    u = torch.empty(blocks * NOISE_BLOCK_ROWS, dim)
    for block in torch.split(u, NOISE_BLOCK_ROWS):
        torch.randn(block.shape, generator=generator, out=block)
    return u[:n]
