"""Searches over many trainings: the request for a sweep, and searches as they are accepted."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, ValidationInfo, field_validator

from flows import BatchNormSpec, EncoderSpec, MixedSpec
from models_store.requests.training import (
    MAX_MEMBERS,
    Accepted,
    AcceptedTable,
    Flow,
    Hidden,
    OptimisationRequest,
    RequestedFlow,
    Seed,
    SingleFlow,
    Strict,
    TrainingRequest,
    Trial,
)
from models_store.schema_of import SchemaOf

MAX_TRIALS = 64
"""Most trials of one search."""

MAX_RANGES = 32
"""Most fields that a sweep varies."""

_MOST_VALUES = 256
"""Most values that all ranges list."""

_SHOWN = 80
_PATH = r"^(flow|(flow|optimisation)\.[a-z_]{1,64})$"
Path = Annotated[str, Field(pattern=_PATH)]
Number = Annotated[int, Field(ge=-(2**53), le=2**53)] | Annotated[float, Field(ge=-1e37, le=1e37)]


RangeValue = Annotated[
    Any,
    SchemaOf(bool | Number | str | Hidden | SingleFlow | BatchNormSpec | EncoderSpec | None),
]
"""Value of a field of a flow or of the optimisation, which is checked against the field."""


class Choices(Strict):
    """Values to choose from, all with the same probability."""

    values: Annotated[list[RangeValue], Field(min_length=1, max_length=64)] = Field(
        description="Values of the field; of `flow`, whole specs."
    )

    @property
    def extremes(self) -> list[Any]:
        """Values that stand for the whole range when it is checked."""
        return list(self.values)


class Interval(Strict):
    """Numbers from `low` to `high`: whole numbers if both bounds are written as such (`2`, not `2.0`)."""

    low: Number = Field(description="Lower bound, inclusive.")
    high: Number = Field(description="Upper bound, inclusive.")
    scale: Literal["linear", "log"] = Field(
        default="linear", description="`log` draws as many values from 1 to 10 as from 10 to 100."
    )

    @field_validator("high")
    @classmethod
    def _above_low(cls, high: int | float, info: ValidationInfo) -> int | float:
        low = info.data.get("low")
        if low is not None and high <= low:
            raise ValueError("high must be above low")
        return high

    @field_validator("scale")
    @classmethod
    def _positive(cls, scale: str, info: ValidationInfo) -> str:
        if scale == "log" and info.data.get("low", 1) <= 0:
            raise ValueError("a range of scale log must have a low above 0")
        return scale

    @property
    def is_whole(self) -> bool:
        """True if the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def extremes(self) -> list[Any]:
        """Values that stand for the whole range when it is checked."""
        return [self.low, self.high]


def _kind_of_range(one: object) -> str:
    listed = "values" in one if isinstance(one, dict) else isinstance(one, Choices)
    return "choices" if listed else "interval"


Range = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Interval, Tag("interval")],
    Discriminator(_kind_of_range),
]
Ranges = Annotated[dict[Path, Range], Field(min_length=1, max_length=MAX_RANGES)]


class SweepRequest(TrainingRequest):
    """Body of ``POST /v1/jobs/sweep``; `model_name`, `dataset_id` and `ranges` are required.

    All fields of a training are those of every trial, where no range gives others.
    """

    flow: RequestedFlow = Field(
        default=None,
        description="Spec of the flow, whose other fields the ranges give; null for the default of"
        " the data.",
    )
    ranges: Ranges = Field(
        description="Ranges by the path of their field, such as `flow.layers` or"
        " `optimisation.learning_rate`: an interval, or a list of values; `flow` lists whole specs.",
    )
    method: Literal["sobol", "random"] = Field(
        default="sobol",
        description="Points of a scrambled Sobol sequence, which fill the ranges evenly, or random ones.",
    )
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = Field(
        default=16, description="Number of points; equal ones are tried once."
    )
    reduction: Annotated[int, Field(ge=1, le=16)] = Field(
        default=3,
        description="Successive halving: each stage divides the number of trials by this factor,"
        " keeps the best, and multiplies their epochs by it. 1 trains all trials for all epochs.",
    )
    ensemble: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] = Field(
        default=1,
        description="Maximum number of flows whose probabilities are averaged; 1 for the best flow"
        " alone.",
    )
    seed: Seed | None = Field(
        default=None,
        description="Seed of the points; null lets the server choose one.",
    )

    @field_validator("ranges")
    @classmethod
    def _fit_their_fields(cls, ranges: Ranges, info: ValidationInfo) -> Ranges:
        if sum(len(one.extremes) for one in ranges.values()) > _MOST_VALUES:
            raise ValueError(f"all ranges together list more than {_MOST_VALUES} values")
        if "flow" in ranges and any(path.startswith("flow.") for path in ranges):
            raise ValueError("either `flow` or fields of it may have ranges, not both")
        flow = info.data.get("flow")
        optimisation = info.data.get("optimisation") or OptimisationRequest()
        if flow is None and any(path.startswith("flow.") for path in ranges):
            raise ValueError("fields of the flow need its `family` in `flow`")
        least = _Varied.model_construct(flow=flow, optimisation=optimisation)
        for path, value in _checked(ranges):
            try:
                _Varied.model_validate(with_values(least.fields, {path: value}))
            except ValidationError as error:
                raise ValueError(f"`{path}` cannot be {_shown(value)}: {_reason(error)}") from None
        return ranges

    def with_point(self, point: Mapping[str, Any]) -> TrainingRequest:
        """Return the training of a point.

        Args:
            point: Values by the path of their field.

        Raises:
            ValueError: The values do not fit together.
        """
        varied = _Varied.model_construct(flow=self.flow, optimisation=self.optimisation)
        try:
            found = _Varied.model_validate(with_values(varied.fields, point))
        except ValidationError as error:
            raise ValueError(_reason(error)) from None
        own = {name: getattr(self, name) for name in TrainingRequest.model_fields}
        return TrainingRequest.model_construct(
            **own | {"flow": found.flow, "optimisation": found.optimisation}
        )


class _Varied(Strict):
    """Sections of a training that ranges may vary."""

    flow: RequestedFlow = None
    optimisation: OptimisationRequest = OptimisationRequest()

    @property
    def fields(self) -> dict[str, Any]:
        """Sections as plain values."""
        dumped: dict[str, Any] = self.model_dump(mode="json")
        return dumped


def with_values(fields: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return sections with other values; their paths have one or two names."""
    changed = {name: dict(value) if value else {} for name, value in fields.items()}
    for path, value in values.items():
        section, _, name = path.partition(".")
        if name:
            changed[section][name] = value
        else:
            changed[section] = value
    return changed


def _checked(ranges: Ranges) -> Iterator[tuple[str, Any]]:
    return ((path, value) for path, one in ranges.items() for value in one.extremes)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return "there is no such field"
    text = str(first["msg"]).removeprefix("Value error, ")
    return text.replace("Input should be", "it must be")[:400]


class Stage(Accepted):
    """Stage of a search: its trials are trained for a share of their epochs, and the best continue."""

    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = Field(
        description="Number of trials, the best ones of the previous stage."
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        description="Fraction of their epochs, from 0 to 1, that they are trained for."
    )


class AcceptedSearch(AcceptedTable):
    """Accepted request for a training job that tries several flows, or for a sweep; children train them."""

    trials: Annotated[list[Trial], Field(min_length=1, max_length=MAX_TRIALS)] = Field(
        description="Flows to try, with the options of their whole trainings."
    )
    stages: Annotated[list[Stage], Field(min_length=1, max_length=8)] = Field(
        description="Stages. The first one has all trials; with `max_seconds`, a search of flows trains"
        " the default flow alone to its end first, and the second stage has all others."
    )
    ensemble: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] = Field(
        description="Maximum number of members of the ensemble; 1 for the best flow alone."
    )
    max_seconds: float | None = Field(
        default=None,
        description="Maximum training time in seconds over all children; null if unlimited.",
    )
    mixed: MixedSpec | None = Field(
        default=None,
        description="Density of rows whose continuous values the flows model; null if the table has"
        " only numbers.",
    )
    points: list[dict[str, RangeValue]] | None = Field(
        default=None,
        description="Values of each trial of a sweep by the path of their field; null for no sweep.",
    )


class Member(Accepted):
    """Trained flow that may become a member of an ensemble."""

    trial: int = Field(description="Number of the trial, counted from 0.")
    key: str = Field(description="Key of its weights in the store.")
    sha256: str = Field(description="SHA-256 of its weights.")
    flow: Annotated[dict[str, Any], SchemaOf(Flow)] = Field(
        description="Family of the flow and its fields."
    )


class AcceptedEnsemble(AcceptedTable):
    """Request of the child of a search that chooses an ensemble among flows of the same rows."""

    members: Annotated[list[Member], Field(min_length=2, max_length=MAX_MEMBERS)] = Field(
        description="Trained flows, the best one first."
    )
    seed: int = Field(description="Seed of the noise on discrete values.")
    row_loss_bound: float | None = Field(
        description="Bound of the losses of single rows, in spreads above the median loss; null for"
        " plain means."
    )
