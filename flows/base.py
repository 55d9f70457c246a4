"""Bijections: direction and sign conventions live here.

`u` is noise, `x` is data. `forward` goes from noise to data, `inverse` from data to noise, and
each returns the log-determinant of the direction that it was called in, one value a row:
log p(x) = log p_u(u) + log|det du/dx|, with a standard Gaussian p_u.
"""

import copy
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flows.folding import AffineStep, LayerStep, Pending, Step
from flows.fused import Pullback


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

    def parameter_list(self) -> list[Tensor]:
        """The parameters, in the order that `inverse_vjp` has."""
        return list(self.parameters())

    def inverse_vjp(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " #batch"], Pullback]:
        """The inverse with its pullback: how a chain computes gradients.

        A family overrides this if it has a faster form than autograd's. Called without gradients.

        Args:
            x: data.

        Returns:
            Noise, log|det du/dx| (a single value stands for all rows), and the pullback.
        """
        inputs = [x.detach().requires_grad_(), *self.parameter_list()]
        with torch.enable_grad():
            results = self.inverse(inputs[0])

        def pullback(
            grad_u: Tensor,
            grad_log_det: Tensor,
            wants_x: bool,  # noqa: ARG001, FBT001  it comes with the rest
        ) -> tuple[Tensor | None, list[Tensor | None]]:
            pairs = zip(results, (grad_u, grad_log_det), strict=True)
            outputs, given = zip(*(pair for pair in pairs if pair[0].requires_grad), strict=True)
            wanted = [tensor for tensor in inputs if tensor.requires_grad]
            grads = iter(
                torch.autograd.grad(outputs, wanted, given, retain_graph=True, allow_unused=True)
            )
            grad_x, *rest = [next(grads) if i.requires_grad else None for i in inputs]
            return grad_x, rest

        return results[0].detach(), results[1].detach(), pullback

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
