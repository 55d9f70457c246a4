"""Bijections: direction and sign conventions live here.

`u` is noise, `x` is data. `forward` goes from noise to data, `inverse` from data to noise, and
each returns the log-determinant of the direction that it was called in, one value a row:
log p(x) = log p_u(u) + log|det du/dx|, with a standard Gaussian p_u.
"""

import copy
from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from flows.folding import AffineStep, LayerStep, Pending, Step


class Bijection(nn.Module, ABC):
    """An invertible map of rows.

    Attributes:
        dim: features of a row.
    """

    dim: int

    @abstractmethod
    def forward(
        self, u: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Noise to data, with log|det dx/du|."""

    @abstractmethod
    def inverse(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Data to noise, with log|det du/dx|."""

    def parts(self) -> list["Bijection"]:
        """The layers that this one is made of, from the data to the noise."""
        return [self]

    def fold(self, pending: Pending) -> tuple[list[Step], Pending]:
        """Compiles the layer, in evaluation mode and float64, for inference.

        A family overrides this if it can take the pending map into its weights, or has a faster
        form of its own.

        Args:
            pending: the elementwise map between the previous step and this layer.

        Returns:
            The steps, from the data to the noise, and what is still to be done after them.
        """
        layer = copy.deepcopy(self).to(pending.device, pending.dtype)
        tensors = [*layer.parameters(), *layer.buffers()]
        return [AffineStep(pending), LayerStep(layer, tensors)], pending.applied()
