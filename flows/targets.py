"""Targets of variational inference: unnormalised log densities, and five known ones."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A box, one interval a coordinate: where densities are normalised and compared.

    Attributes:
        lower: the least value of each coordinate.
        upper: the greatest value of each coordinate.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]


class Target(ABC):
    """An unnormalised density p over rows z.

    Attributes:
        dim: coordinates of a row.
        names: of the coordinates.
        window: where a KL divergence is computed by quadrature; None if there is no such place.
    """

    dim: int
    names: tuple[str, ...]
    window: Window | None

    @abstractmethod
    def log_density(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Log p of each row up to a constant, in nats, differentiable in z.

        A row's value depends on that row alone. Where p is 0 it is -inf.
        """

    def estimate(
        self,
        z: Float[Tensor, "batch dim"],
        *,
        generator: torch.Generator,  # noqa: ARG002  of those that draw
    ) -> Float[Tensor, " batch"]:
        """What training maximises: `log_density`, or an unbiased estimate of it.

        Args:
            z: rows.
            generator: of everything that is drawn, on the CPU.
        """
        return self.log_density(z)


POTENTIALS = ("U1", "U2", "U3", "U4", "U5")


class Potential(Target):
    """One of `POTENTIALS`: log p(z) = -U(z) in two dimensions."""

    def __init__(self, name: str) -> None:
        """Chooses one.

        Raises:
            FitError: there is none of that name.
        """
        raise NotImplementedError
