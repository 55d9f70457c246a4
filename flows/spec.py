"""What the descriptions of all families have in common."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import get_args

import torch

from flows.base import Bijection
from flows.errors import SpecError
from flows.fused import ActivationName


@dataclass(frozen=True)
class EncoderSpec:
    """A network that all layers see the context through.

    Attributes:
        hidden: units of each hidden layer.
        features: numbers a row that it makes of the context.
        activation: between the layers.
    """

    hidden: list[int] = field(default_factory=lambda: [64])
    features: int = 16
    activation: ActivationName = "tanh"

    def __post_init__(self) -> None:
        check_hidden(self.hidden)
        check_positive("features", self.features)
        check_choice("activation", self.activation, get_args(ActivationName))


@dataclass(frozen=True)
class Spec(ABC):
    """The description of one family's flow: a frozen dataclass of its hyper-parameters.

    Its field `family`, of a `Literal` type, tells the families apart.

    Attributes:
        encoder: of the context; None gives it to the layers as it is.
    """

    family: str
    encoder: EncoderSpec | None = field(default=None, kw_only=True)

    def check_dim(self, dim: int) -> None:
        """Checks that the family has a flow of so many features.

        Raises:
            SpecError: it has none.
        """
        if dim < 1:
            raise SpecError("dimension-unsupported", "a flow needs at least 1 feature")

    @abstractmethod
    def count_parameters(self, dim: int, context_dim: int = 0) -> int:
        """Trainable numbers, masked ones included, by arithmetic alone.

        Args:
            dim: features.
            context_dim: numbers a row that the layers are conditioned on, after any encoder.
        """

    @abstractmethod
    def build(self, dim: int, generator: torch.Generator, context_dim: int = 0) -> Bijection:
        """The untrained bijection between the model space and the noise.

        Args:
            dim: features, already checked.
            generator: of everything that is drawn.
            context_dim: numbers a row that the layers are conditioned on, after any encoder.
        """


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises `ValueError` unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}")


def check_positive(name: str, value: object) -> None:
    """Raises `ValueError` unless the value is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1")


def check_hidden(hidden: object) -> None:
    """Raises `ValueError` unless the value lists the widths of at least one hidden layer."""
    if not isinstance(hidden, list) or not hidden:
        raise ValueError("hidden must list the units of at least one layer")
    for width in hidden:
        check_positive("each entry of hidden", width)
