"""Base of the specifications of all families."""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from flows.cost import Cost
from flows.errors import SpecError

if TYPE_CHECKING:
    import torch

    import flows.bijections.base

# Numbers above these fit in no machine; below, `Spec.cost` decides.
MAX_NUMBER, MAX_HIDDEN_LAYERS = 2**31, 1024

Own = TypeVar("Own", bound="Spec")
BATCH_NORM_EPS = 1e-5
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
ActivationName = Literal["relu", "tanh", "elu", "gelu"]


@dataclass(frozen=True)
class BatchNormSpec:
    """Statistics that a trained batch norm uses.

    Attributes:
        statistics: `dataset` for the statistics of the entire training set at that layer, or `running`
            for averages over the training batches.
        momentum: Weight of the past in a running average.
    """

    statistics: Literal["dataset", "running"] = "dataset"
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if self.statistics not in ("dataset", "running"):
            raise ValueError("statistics must be dataset or running")
        if not 0 <= self.momentum < 1:
            raise ValueError("momentum must be at least 0 and below 1")


@dataclass(frozen=True)
class EncoderSpec:
    """Specification of a network that encodes the context for all layers.

    Attributes:
        hidden: Units of each hidden layer.
        features: Number of features of the encoded context.
        activation: Activation between the layers.
    """

    hidden: list[int] = field(default_factory=lambda: [64])
    features: int = 16
    activation: ActivationName = "tanh"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Spec(ABC):
    """Specification of one family's flow: a frozen dataclass of its hyper-parameters.

    Its field `family`, of a `Literal` type, tells the families apart. Fields are checked by their types
    (`check_fields`).

    Attributes:
        encoder: Encoder of the context; None gives it to the layers as it is.
    """

    family: str
    encoder: EncoderSpec | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def is_binary(self) -> bool:
        """Return whether the rows of the flow are 0 and 1, with probabilities for densities."""
        return False

    @property
    def masks_columns(self) -> bool:
        """Return whether rows of the flow may lack features (`flows.bijections.observed`)."""
        return False

    @property
    def exact_marginals(self) -> bool:
        """Return whether the density of a row that lacks features is the marginal of that of whole rows.

        So it is of the context, too: its conditional densities are those of one joint density.
        """
        return False

    def check_dim(self, dim: int) -> None:
        """Check that the family has a flow of `dim` features.

        Raises:
            SpecError: The family has none.
        """
        if dim < 1:
            raise SpecError("dimension-unsupported", "a flow needs at least 1 feature")

    def check_context(self, context_dim: int) -> None:
        """Check that the family has a flow with this number of context columns.

        Raises:
            SpecError: It has none.
        """
        if self.encoder is not None and context_dim == 0:
            raise SpecError("encoder-without-context", "an encoder needs a context that it encodes")

    def for_targets(self: Own) -> Own:
        """Return the specification with noise to data in closed form, as fitting to a target needs.

        Raises:
            SpecError: The family's map from noise to data has no gradients.
        """
        return self

    @abstractmethod
    def cost(self, dim: int, context_dim: int = 0) -> Cost:
        """Return an upper bound of the flow's cost, by arithmetic alone.

        Every field counts that changes memory: a flow is refused by this before it is built.

        Args:
            context_dim: Numbers per row that the layers are conditioned on, after any encoder.
        """

    @abstractmethod
    def build(
        self, dim: int, generator: "torch.Generator", context_dim: int = 0
    ) -> "flows.bijections.base.Bijection":
        """Return the untrained bijection between the model space and the noise.

        It imports the layers, and PyTorch with them, which a specification does without.

        Args:
            dim: Number of features, already checked.
            generator: Generator of the initial weights and of random orders.
            context_dim: Numbers per row that the layers are conditioned on, after any encoder.
        """


def check_fields(spec: Any) -> None:  # noqa: ANN401  any dataclass
    """Check that the fields of a dataclass have their defaults, or values that fit their annotations.

    Those of a `Literal` and of `bool` are its choices, of `int` whole numbers from 1 to `MAX_NUMBER`, of
    `float` finite numbers above 0, and of `list[int]` the units of at least one layer.

    Raises:
        ValueError: One of them does not fit.
    """
    kinds = _kinds(type(spec))  # type: ignore[arg-type]  # any class is hashable
    for name, (kind, optional, default) in kinds.items():
        value = getattr(spec, name)
        if (value == default and type(value) is type(default)) or (value is None and optional):
            continue
        if kind is int:
            _check_positive(name, value)
        elif kind is float:
            _check_above_0(name, value, or_null=", or null" if optional else "")
        elif kind == list[int]:
            _check_hidden(name, value)
        elif get_origin(kind) is Literal or kind is bool:
            choices = (False, True) if kind is bool else get_args(kind)
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}")


@functools.cache
def _kinds(cls: Any) -> dict[str, tuple[object, bool, object]]:  # noqa: ANN401  as above
    """Return the type of each field without None, whether None is one of its values, and its default."""
    hints, found = get_type_hints(cls), {}
    for one in fields(cls):
        choices = get_args(hints[one.name]) if isinstance(hints[one.name], UnionType) else ()
        rest = [kind for kind in choices if kind is not NoneType]
        kind = rest[0] if len(rest) == 1 else hints[one.name]
        default = one.default if one.default_factory is MISSING else one.default_factory()
        found[one.name] = kind, len(rest) < len(choices), default
    return found


def _check_positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1")
    if value > MAX_NUMBER:
        raise ValueError(f"{name} must be at most {MAX_NUMBER:,}")


def _check_above_0(name: str, value: object, *, or_null: str) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < float(value) < math.inf:  # type: ignore[arg-type]  # a number
        raise ValueError(f"{name} must be a number above 0{or_null}")


def _check_hidden(name: str, hidden: object) -> None:
    if not isinstance(hidden, list) or not hidden:
        raise ValueError(f"{name} must list the units of at least one layer")
    if len(hidden) > MAX_HIDDEN_LAYERS:
        raise ValueError(f"{name} may list {MAX_HIDDEN_LAYERS} layers at most")
    for width in hidden:
        _check_positive(f"each entry of {name}", width)
