"""What the descriptions of all families have in common."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import get_args

import torch

from flows.bijections.base import Bijection
from flows.bijections.gradients import ActivationName
from flows.cost import Cost
from flows.errors import SpecError

# Numbers above these fit in no machine; below, `Spec.cost` decides.
MAX_NUMBER, MAX_HIDDEN_LAYERS = 2**31, 1024


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
    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        """Return what the flow takes, by arithmetic alone: at least as much as it will.

        Every field counts that changes memory: a flow is refused by this before it is built.

        Args:
            dim: features.
            context_dim: numbers a row that the layers are conditioned on, after any encoder.
        """

    def count_parameters(self, dim: int, context_dim: int = 0) -> int:
        """Return the trainable numbers, masked ones included, of the flow that `cost` describes."""
        return self.cost(dim, context_dim).parameters

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
    """Raises `ValueError` unless the value is a whole number from 1 to `MAX_NUMBER`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1")
    if value > MAX_NUMBER:
        raise ValueError(f"{name} must be at most {MAX_NUMBER:,}")


def check_hidden(hidden: object) -> None:
    """Raises `ValueError` unless the value lists the widths of at least one hidden layer."""
    if not isinstance(hidden, list) or not hidden:
        raise ValueError("hidden must list the units of at least one layer")
    if len(hidden) > MAX_HIDDEN_LAYERS:
        raise ValueError(f"hidden may list {MAX_HIDDEN_LAYERS} layers at most")
    for width in hidden:
        check_positive("each entry of hidden", width)
