"""Targets of variational inference: unnormalised log densities, and five known potentials."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from flows.errors import FitError
from flows.flow import Flow
from flows.specs.latent import latent_names

# Scale of the fall-off outside the window of a potential that does not decay.
WALL_SCALE = 0.1


@dataclass(frozen=True)
class Window:
    """Box, one interval per coordinate, on which densities are normalised and compared.

    Attributes:
        lower: Least value of each coordinate.
        upper: Greatest value of each coordinate.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.lower) != len(self.upper) or not self.lower:
            raise ValueError("lower and upper must have one value each for every coordinate")
        if not all(math.isfinite(value) for value in (*self.lower, *self.upper)):
            raise ValueError("lower and upper must be finite")
        if not all(low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError("lower must be below upper in every coordinate")

    @staticmethod
    def square(reach: float) -> "Window":
        """Return the window [-reach, reach] in two dimensions."""
        return Window((-reach, -reach), (reach, reach))


class Target(ABC):
    """Unnormalised density p over rows z.

    Attributes:
        dim: Number of coordinates of a row.
        names: Names of the coordinates.
        window: Window on which a KL divergence is computed by quadrature; None if there is none.
    """

    dim: int
    names: tuple[str, ...]
    window: Window | None

    @abstractmethod
    def log_density(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return log p of each row up to a constant, in nats, differentiable in z.

        The value of a row depends on that row alone. Where p is 0 it is -inf.
        """

    def estimate(
        self,
        z: Float[Tensor, "batch dim"],
        *,
        generator: torch.Generator,
    ) -> Float[Tensor, " batch"]:
        """Return the training objective: `log_density`, or an unbiased estimate of it."""
        return self.log_density(z)


class ConditionalTarget(ABC):
    """Unnormalised density over rows z for every context c: amortised inference.

    A flow with a context learns q(z | c) for all contexts at once, on average over those that are
    drawn. For a model of data c with latent variables z, the density is the joint one, and its
    normaliser the evidence of c.

    Attributes:
        dim: Number of coordinates of a row.
        context_dim: Number of values of a context.
        names: Names of the coordinates.
    """

    dim: int
    context_dim: int
    names: tuple[str, ...]

    @abstractmethod
    def log_density(
        self, z: Float[Tensor, "batch dim"], context: Float[Tensor, "batch context_dim"]
    ) -> Float[Tensor, " batch"]:
        """Return log p of each row given its context up to a constant, in nats."""

    @abstractmethod
    def sample_context(
        self, n: int, *, generator: torch.Generator
    ) -> Float[Tensor, "batch context_dim"]:
        """Draw contexts to train on; the generator is on the CPU."""


class LatentTarget(ConditionalTarget):
    """Joint density p(x, z) of a flow's own decoder, for rows of data x and latent variables z.

    The contexts are the rows. `fit_variational` of the flow then maximises the mean ELBO of the
    rows, in the flow and in the decoder's weights, as far as those are not fixed (Kingma and
    Welling 2014, with a flow for the posterior: Rezende and Mohamed 2015).
    """

    def __init__(self, flow: Flow, rows: Float[Tensor, "rows columns"]) -> None:
        """Choose the model and the rows.

        Raises:
            FitError: The flow has no decoder, or there are no rows of its context.
        """
        if flow.decoder is None:
            raise FitError("the flow has no decoder")
        if len(rows) == 0 or rows.shape[1] != flow.context_dim:
            raise FitError(f"there must be rows of {flow.context_dim} columns")
        self.dim, self.context_dim = flow.dim, flow.context_dim
        self.names = latent_names(flow.dim)
        self._decoder = flow.decoder
        self._rows = rows

    def log_density(
        self, z: Float[Tensor, "batch dim"], context: Float[Tensor, "batch context_dim"]
    ) -> Float[Tensor, " batch"]:
        return self._decoder.log_joint(z, context)

    def sample_context(
        self, n: int, *, generator: torch.Generator
    ) -> Float[Tensor, "batch context_dim"]:
        drawn = torch.randint(len(self._rows), (n,), generator=generator)
        return self._rows[drawn.to(self._rows.device)]


class Potential(Target):
    """Named potential of `POTENTIALS`: log p(z) = -U(z) in two dimensions.

    U1 to U4 are those of Rezende and Mohamed 2015, table 1 (with the square that the printed w2
    lacks), U5 is a wider ring. U2 to U4 do not decay along z1, so that they have no density on the
    plane: a Gaussian wall of scale `WALL_SCALE` stands outside the window, and U is unchanged
    inside. The window is [-4, 4]^2, for U5 [-6, 6]^2.
    """

    dim = 2
    names = ("z1", "z2")

    def __init__(self, name: str) -> None:
        """Choose a potential by its name.

        Raises:
            FitError: There is none of that name.
        """
        if name not in POTENTIALS:
            raise FitError(f"the potential must be one of {', '.join(POTENTIALS)}")
        self._negative, reach, self._walled = _POTENTIALS[name]
        self.window = Window.square(reach)
        self._reach = reach

    def log_density(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        value = self._negative(*z.unbind(dim=1))
        if not self._walled:
            return value
        excess = F.relu(z.abs() - self._reach) / WALL_SCALE
        return value - 0.5 * excess.square().sum(dim=1)


def _ring(radius: float, offset_scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return minus U1 or U5: a ring, brighter around (2, 0) and (-2, 0)."""

    def negative(z1: Tensor, z2: Tensor) -> Tensor:
        around = torch.logaddexp(_bell((z1 - 2) / offset_scale), _bell((z1 + 2) / offset_scale))
        return _bell((torch.hypot(z1, z2) - radius) / 0.4) + around

    return negative


def _wave(z1: Tensor, z2: Tensor) -> Tensor:
    """Return minus U2."""
    return _bell((z2 - _w1(z1)) / 0.4)


def _split_wave(z1: Tensor, z2: Tensor) -> Tensor:
    """Return minus U3."""
    from_wave = z2 - _w1(z1)
    w2 = 3 * torch.exp(_bell((z1 - 1) / 0.6))
    return torch.logaddexp(_bell(from_wave / 0.35), _bell((from_wave + w2) / 0.35))


def _forked_wave(z1: Tensor, z2: Tensor) -> Tensor:
    """Return minus U4."""
    from_wave = z2 - _w1(z1)
    w3 = 3 * torch.sigmoid((z1 - 1) / 0.3)
    return torch.logaddexp(_bell(from_wave / 0.4), _bell((from_wave + w3) / 0.35))


def _w1(z1: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * z1 / 4)


def _bell(value: Tensor) -> Tensor:
    return -0.5 * value.square()


# Minus U, the window's reach, and whether a wall stands around it.
_POTENTIALS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float, bool]] = {
    "U1": (_ring(2.0, 0.6), 4.0, False),
    "U2": (_wave, 4.0, True),
    "U3": (_split_wave, 4.0, True),
    "U4": (_forked_wave, 4.0, True),
    "U5": (_ring(4.0, 0.8), 6.0, False),
}

POTENTIALS = tuple(_POTENTIALS)
