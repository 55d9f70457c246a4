"""A training request: what a caller may say, and what was accepted once every gap is filled."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_validator,
)

from flows import FitOptions, FlowSpec, StepSchedule as FitStepSchedule
from flows.training.options import Optimiser

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
DatasetId = Annotated[str, Field(pattern=r"^ds_[0-9a-f]{32}$")]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(ge=1e-8, le=100)]
WeightDecay = Annotated[float, Field(ge=0, le=10)]
GradientNorm = Annotated[float, Field(gt=0, le=1e12)] | Literal["none"]
WeightAverage = Annotated[float, Field(gt=0, lt=1)]
BatchSize = Annotated[int, Field(ge=2, le=1_000_000)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]


class Strict(BaseModel):
    """A value that names no unknown fields and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StepFactor(Strict):
    """Multiply the learning rate by `factor` after every `epochs` epochs."""

    epochs: Epochs
    factor: Annotated[float, Field(gt=0, lt=1)]


class StepSchedule(Strict):
    """The learning rate falls in steps."""

    step: StepFactor


Schedule = Literal["constant", "cosine"] | StepSchedule


class Levels(Strict):
    """Whole numbers from 0 to `levels` - 1, such as the 256 of a grey picture."""

    levels: Annotated[int, Field(ge=1, le=2**31)]


class Logit(Strict):
    """The margin of the logit, which keeps 0 and 1 finite."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    margin: Annotated[float, Field(gt=0, lt=0.5)] = Field(default=1e-6, alias="lambda")


class Preprocessing(Strict):
    """Layers between the data and the flow, fitted to the training rows."""

    standardise: bool = Field(
        default=True, description="Subtract the training mean, divide by the standard deviation."
    )
    dequantise: Levels | Literal["auto"] | None = Field(
        default="auto",
        description="Uniform noise on discrete columns, so that they have a density. `auto`: on"
        " those that look discrete, and on values that many rows share. With levels: on all, which"
        " hold whole numbers from 0 on; then they are divided by the levels. Null: none.",
    )
    logit: Logit | None = Field(
        default=None,
        description="x becomes logit(lambda + (1 - 2 lambda) x), for values from 0 to 1.",
    )


class SplitRequest(Strict):
    """How rows become training, validation and test rows.

    Either fractions of the one dataset, or datasets of their own: a named validation dataset
    leaves all rows that the test fraction does not take to training.
    """

    train: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Left out: whatever validation and test leave over."
    )
    validation: Fraction | None = Field(default=None, description="Left out: 0.1.")
    test: Fraction | None = Field(default=None, description="Left out: 0.1.")
    shuffle: bool = Field(default=True, description="False: the split follows the file's order.")
    seed: Seed = 0
    validation_dataset_id: DatasetId | None = None
    test_dataset_id: DatasetId | None = None

    @model_validator(mode="after")
    def _one_source_each(self) -> "SplitRequest":
        for part in ("validation", "test"):
            if getattr(self, part) and getattr(self, f"{part}_dataset_id"):
                raise ValueError(f"name either split.{part} or split.{part}_dataset_id, not both")
        total = (self.train or 0.0) + (self.validation or 0.0) + (self.test or 0.0)
        if total > 1 + 1e-9:
            raise ValueError("split.train, split.validation and split.test sum to more than 1")
        return self


class OptimisationRequest(Strict):
    """How the flow is fitted; what is left out or null is chosen from the data."""

    optimiser: Optimiser = "adam"
    learning_rate: LearningRate | None = None
    weight_decay: WeightDecay = Field(default=1e-6, description="As an L2 term (AdamW: decoupled).")
    max_gradient_norm: GradientNorm | None = Field(
        default=None,
        description="A longer gradient is shortened to this norm; `none` leaves gradients as they"
        " are.",
    )
    batch_size: BatchSize | None = None
    max_epochs: Epochs | None = None
    patience: Epochs | None = Field(
        default=None, description="Epochs without a better validation likelihood before it stops."
    )
    max_seconds: Seconds | None = Field(
        default=None, description="Training time over all attempts; the best model so far is kept."
    )
    schedule: Schedule = "cosine"
    robust: bool = Field(
        default=True,
        description="Bound the losses of single rows, evaluate and keep a moving average of the"
        " weights, draw noise anew each epoch, and restart once with smaller steps when training"
        " diverges. False: plain maximum likelihood, as the papers train.",
    )
    weight_average: WeightAverage | None = Field(
        default=None,
        description="Decay of a moving average of the weights, which is evaluated and kept. Null:"
        " 0.99 if `robust`, else none.",
    )
    mixed_precision: bool = Field(
        default=False,
        description="Round the factors of matrix products of training steps where that is faster:"
        " on GPUs to TF32, on processors with AMX to bfloat16. Scores stay in full precision.",
    )
    seed: Seed | None = Field(default=None, description="Null: the server picks one and shows it.")


def _family_left_open(flow: object) -> object:
    return None if flow in ({}, {"family": None}) else flow


Flow = Annotated[FlowSpec, Field(discriminator="family")]
RequestedFlow = Annotated[Flow | None, BeforeValidator(_family_left_open)]


class TrainingRequest(Strict):
    """The body of ``POST /v1/jobs/training``; only `model_name` and `dataset_id` are required."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: Name = Field(description="The registered model that gets a new version.")
    dataset_id: DatasetId
    columns: Annotated[list[str], Field(min_length=1, max_length=10_000)] | None = Field(
        default=None,
        description="The columns to model, in this order. Null: all but those of the context.",
    )
    context_columns: Annotated[list[str], Field(max_length=10_000)] = Field(
        default_factory=list,
        description="Columns that the density is conditioned on: p(columns | context columns).",
    )
    split: SplitRequest = SplitRequest()
    preprocessing: Preprocessing = Preprocessing()
    flow: RequestedFlow = Field(default=None, description="Null: chosen from the data.")
    optimisation: OptimisationRequest = OptimisationRequest()


class AcceptedSplit(Strict):
    """The split as it is carried out; a part that has a dataset of its own has fraction 0."""

    train: float
    validation: float
    test: float
    shuffle: bool
    seed: int
    validation_dataset_id: str | None
    test_dataset_id: str | None


class AcceptedTraining(Strict):
    """A training request with every choice made: what the job row keeps and the trainer reads."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    dataset_id: str
    columns: list[str]
    context_columns: list[str] = []
    split: AcceptedSplit
    preprocessing: Preprocessing
    flow: Flow
    optimisation: FitOptions

    @field_validator("optimisation", mode="before")
    @classmethod
    def _read_schedule(cls, value: Any) -> Any:  # noqa: ANN401  what was stored, or the options
        if isinstance(value, dict) and isinstance(schedule := value.get("schedule"), dict):
            return {**value, "schedule": schedule.get("step", schedule)}
        return value

    @field_serializer("optimisation", mode="wrap")
    def _write_schedule(
        self, options: FitOptions, write: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """Return the options in the shape of a request; none compiles."""
        written: dict[str, Any] = write(options)
        del written["compile"]
        if isinstance(options.schedule, FitStepSchedule):
            written["schedule"] = {"step": written["schedule"]}
        return written
