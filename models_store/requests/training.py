"""Request for a training job, as a caller writes it and as it is accepted."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from flows import FitOptions, FlowSpec, MixedColumn, SpecError, StepSchedule, spec_from_dict
from flows.specs.family import FamilySpec
from flows.training.options import Optimiser
from models_store.job_states import Accelerator
from models_store.label_types import MAX_TAGS, Description, TagName, TagValue
from models_store.schema_of import SchemaOf
from tabular.columns import Column, TransformName

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
Bound = Annotated[float, Field(ge=-1e37, le=1e37)]
Hidden = Annotated[
    list[Annotated[int, Field(ge=1, le=2**31)]],
    Field(min_length=1, max_length=1024, fail_fast=True),
]


class Strict(BaseModel):
    """Base of immutable models that forbid unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(Strict):
    """Resources that a job needs from the worker that takes it."""

    accelerator: Accelerator = Field(
        default=Accelerator.NONE,
        description="`none`: workers without a GPU come first; `preferred`: those with one; `required`:"
        " only those with one take the job, which waits for one.",
    )


ASKED = "asked"
"""Member of the request of a training job: the body as it came, to train anew by; it is not shown."""


class Placed(Strict):
    """Request for a job with labels, a priority and resources."""

    priority: Annotated[int, Field(ge=-100, le=100)] = Field(
        default=0,
        description="Priority among waiting jobs of the project: higher ones are taken first. Projects"
        " take turns, whatever the priorities of their jobs.",
    )
    resources: Resources = Field(
        default=Resources(), description="Resources that the job needs from its worker."
    )
    description: Description | None = Field(default=None, description="Description of the job.")
    tags: dict[TagName, TagValue] = Field(
        default={},
        max_length=MAX_TAGS,
        description="Values of the job's tags by name. A version that the job makes gets them, too.",
    )


Schedule = Literal["constant", "cosine"] | StepSchedule


class Levels(Strict):
    """Number of levels of integer values, from 0 to `levels` - 1, such as 256 for grey images."""

    levels: Annotated[int, Field(ge=1, le=2**31)] = Field(description="Number of levels.")


class Logit(Strict):
    """Margin of the logit transform, which keeps 0 and 1 finite."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    margin: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=1e-6, alias="lambda", description="Margin lambda of the transform."
    )


MAX_OPTIONS = 10_000
"""Most columns that a request has options of."""


class ColumnOptions(Strict):
    """Options of one continuous column; those that are absent or null stay as the dataset has them."""

    transform: TransformName | None = Field(
        default=None, description="Monotone map of the values before they are standardised."
    )
    low: Bound | None = Field(default=None, description="Lower bound of the values.")
    high: Bound | None = Field(default=None, description="Upper bound of the values.")
    spikes: Annotated[list[Bound], Field(max_length=64, fail_fast=True)] | None = Field(
        default=None, description="Single values that get probabilities of their own."
    )


class Preprocessing(Strict):
    """Preprocessing layers between the data and the flow, fitted to the training rows."""

    standardise: bool = Field(
        default=True,
        description="Subtract the mean of the training rows and divide by their standard deviation.",
    )
    dequantise: Levels | Literal["auto"] | None = Field(
        default="auto",
        description="Uniform noise that gives discrete columns a density. `auto` adds it to columns"
        " that look discrete, and to values that many rows share. With `levels`, all columns hold"
        " integers from 0; noise is added and the sum divided by the levels. Null: no noise.",
    )
    logit: Logit | None = Field(
        default=None,
        description="Transform of values from 0 to 1 to logit(lambda + (1 - 2 lambda) x); null if"
        " there is none.",
    )
    columns: Annotated[dict[str, ColumnOptions], Field(max_length=MAX_OPTIONS)] = Field(
        default_factory=dict,
        description="Options of single columns, by name, in place of those that the dataset has.",
    )


class SplitRequest(Strict):
    """Split of the rows into training, validation and test rows.

    The parts are fractions of the dataset, or datasets of their own: with a validation dataset, all
    rows outside the test fraction are training rows.
    """

    train: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Fraction of training rows. Default: the remaining rows.",
    )
    validation: Fraction | None = Field(
        default=None, description="Fraction of validation rows. Default: 0.1."
    )
    test: Fraction | None = Field(default=None, description="Fraction of test rows. Default: 0.1.")
    shuffle: bool = Field(
        default=True,
        description="Shuffle the rows before the split; false: keep the order of the file.",
    )
    seed: Seed = Field(default=0, description="Seed of the shuffle.")
    validation_dataset_id: DatasetId | None = Field(
        default=None,
        description="Dataset with the validation rows, in place of a fraction; null if there is"
        " none.",
    )
    test_dataset_id: DatasetId | None = Field(
        default=None,
        description="Dataset with the test rows, in place of a fraction; null if there is none.",
    )

    @model_validator(mode="after")
    def _one_source_each(self) -> "SplitRequest":
        for part in ("validation", "test"):
            if getattr(self, part) and getattr(self, f"{part}_dataset_id"):
                raise ValueError(f"name either split.{part} or split.{part}_dataset_id, not both")
        total = (self.train or 0.0) + (self.validation or 0.0) + (self.test or 0.0)
        if total > 1 + 1e-9:
            raise ValueError("split.train, split.validation and split.test sum to more than 1")
        return self


class FitRequest(Strict):
    """Options of any optimisation; absent and null options get values that suit what is fitted."""

    optimiser: Optimiser = Field(
        default="adam", description="Optimiser as PyTorch names it; `sgd` is without momentum."
    )
    learning_rate: LearningRate | None = Field(
        default=None,
        description="Learning rate of the first epoch or iteration; null for one that suits the flow.",
    )
    max_gradient_norm: GradientNorm | None = Field(
        default=None,
        description="Largest norm of a gradient, to which longer ones are scaled; `none` for no limit.",
    )
    max_seconds: Seconds | None = Field(
        default=None, description="Longest time over all attempts; the best flow so far is kept."
    )
    seed: Seed | None = Field(
        default=None,
        description="Seed of the random numbers; null lets the server choose one, which the"
        " accepted request shows.",
    )


class OptimisationRequest(FitRequest):
    """Options of the training; absent and null options get values that suit the data."""

    weight_decay: WeightDecay = Field(
        default=1e-6, description="Weight decay, as an L2 term; decoupled with AdamW."
    )
    batch_size: BatchSize | None = Field(
        default=None, description="Rows of a step; null for a number that suits the rows."
    )
    max_epochs: Epochs | None = Field(
        default=None,
        description="Maximum number of epochs, which are passes over the training rows; null for a"
        " number that suits the"
        " rows.",
    )
    patience: Epochs | None = Field(
        default=None,
        description="Epochs without a better validation likelihood after which training stops.",
    )
    schedule: Schedule = Field(
        default="cosine",
        description="Change of the learning rate from epoch to epoch: `constant`, `cosine` falls towards"
        " 0, or in steps.",
    )
    robust: bool = Field(
        default=True,
        description="Bound the losses of single rows, use a moving average of the weights, draw the"
        " noise again each epoch, and restart once with smaller steps when training diverges."
        " False: plain maximum likelihood, as in the papers.",
    )
    weight_average: WeightAverage | None = Field(
        default=None,
        description="Decay of the moving average of the weights that is evaluated and kept; null"
        " for 0.99"
        " if `robust`, else no average.",
    )
    mixed_precision: bool = Field(
        default=False,
        description="Round the factors of matrix products of training steps on GPUs, where that is"
        " faster. Scores stay in full precision.",
    )


MissingCells = Literal["observed", "any"]


class DiscreteOptions(Strict):
    """Network of the discrete variables of a mixed density; absent options suit the data."""

    hidden: Hidden | None = Field(default=None, description="Units of each hidden layer.")


MAX_MEMBERS = 8
"""Most members of an ensemble that a search makes."""

Quality = Literal["fast", "balanced", "best"]


class AutoFlow(Strict):
    """Search over flows: several families and sizes are trained, and the best becomes the model.

    `"auto"` is short for this object with its defaults.
    """

    family: Literal["auto"] = Field(description="`auto`, in place of the name of a family.")
    ensemble: Annotated[int, Field(ge=1, le=MAX_MEMBERS)] | None = Field(
        default=None,
        description="Maximum number of flows whose probabilities are averaged; 1 for the best flow"
        " alone. Null: 1 if `quality` is `fast`, 3 if `balanced`, 5 if `best`.",
    )


def _family_left_open(flow: object) -> object:
    return None if flow in ({}, {"family": None}) else flow


def _as_stored(flow: object) -> object:
    if not isinstance(flow, dict):
        return flow
    try:
        return spec_from_dict(flow)
    except SpecError as error:
        raise ValueError(error.reason) from error


def _auto_in_short(flow: object) -> object:
    if isinstance(flow, str) and flow != "auto":
        raise ValueError('must be "auto", or an object such as {"family": "maf"}')
    return {"family": "auto"} if flow == "auto" else _family_left_open(flow)


# As it is stored: requests that an earlier release accepted too.
Flow = Annotated[FlowSpec, Field(discriminator="family"), BeforeValidator(_as_stored)]
SingleFlow = Annotated[FamilySpec, Field(discriminator="family")]
RequestedFlow = Annotated[SingleFlow | None, BeforeValidator(_family_left_open)]
SearchedFlow = Annotated[FamilySpec | AutoFlow, Field(discriminator="family")]
TrainedFlow = Annotated[SearchedFlow | None, BeforeValidator(_auto_in_short)]


class TrainingRequest(Placed):
    """Body of ``POST /v1/jobs/training``; only `model_name` and `dataset_id` are required."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: Name = Field(description="Name of the model that gets a new version.")
    dataset_id: DatasetId = Field(description="Dataset to train on.")
    columns: Annotated[list[str], Field(min_length=1, max_length=10_000, fail_fast=True)] | None = (
        Field(
            default=None,
            description="Columns to model, in this order; null for all except the context columns.",
        )
    )
    context_columns: Annotated[list[str], Field(max_length=10_000, fail_fast=True)] = Field(
        default_factory=list,
        description="Columns that the density is conditioned on: p(columns | context columns).",
    )
    split: SplitRequest = Field(
        default=SplitRequest(),
        description="Split of the rows into training, validation and test rows.",
    )
    preprocessing: Preprocessing = Field(
        default=Preprocessing(), description="Preprocessing layers between the data and the flow."
    )
    flow: TrainedFlow = Field(
        default=None,
        description="Family of the flow and its fields; null for one that suits the data. In a table with"
        " categories or missing values it is the flow of the continuous values, given all else. Family `auto`: the job's"
        " children try several, and the best become the model.",
    )
    quality: Quality = Field(
        default="balanced",
        description="Trade-off of time and quality: `fast` takes a quarter of the epochs, `best`"
        " four times as many; a search then also tries more flows. `optimisation.max_seconds`"
        " limits the time. Options that are given take precedence.",
    )
    discrete: DiscreteOptions = Field(
        default=DiscreteOptions(),
        description="Network of the probabilities of categories, missing values and single values.",
    )
    missing: MissingCells = Field(
        default="observed",
        description="Cells that may be missing in rows to score: `observed`, those of the columns that"
        " lacked some in training; `any`, all: cells are hidden at random in training, so that rows that"
        " lack any have densities, and `explain` says which column makes a row unlikely.",
    )
    optimisation: OptimisationRequest = Field(
        default=OptimisationRequest(),
        description="Options of the training; absent and null options suit the data.",
    )

    @property
    def chosen_flow(self) -> FamilySpec | None:
        """Spec of the flow; None if the caller chose none."""
        return None if isinstance(self.flow, AutoFlow) else self.flow


class Accepted(BaseModel):
    """Base of accepted requests: what a job keeps, shows to callers, and gives to its trainer.

    Members of requests of earlier releases that mean nothing any more are left out.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class AcceptedSplit(Accepted):
    """Split of the rows that is used."""

    train: float = Field(description="Fraction of training rows.")
    validation: float = Field(
        description="Fraction of validation rows; 0 if they are a dataset of their own."
    )
    test: float = Field(description="Fraction of test rows; 0 if they are a dataset of their own.")
    shuffle: bool = Field(description="True if the rows are shuffled before the split.")
    seed: int = Field(description="Seed of the shuffle.")
    validation_dataset_id: str | None = Field(
        description="Dataset with the validation rows; null to use the fraction."
    )
    test_dataset_id: str | None = Field(
        description="Dataset with the test rows; null to use the fraction."
    )


class AcceptedTable(Accepted):
    """Rows and columns that flows are fitted to."""

    model_name: str = Field(description="Name of the model that gets a new version.")
    dataset_id: str = Field(description="Dataset to train on.")
    columns: list[str] = Field(description="Columns to model, in order.")
    context_columns: list[str] = Field(
        default=[], description="Columns that the density is conditioned on, in order."
    )
    types: Annotated[list[dict[str, Any]], SchemaOf(list[Column])] | None = Field(
        default=None,
        description="Types of the columns, then of the context columns; null if all are plain"
        " numbers.",
    )
    encoding: list[MixedColumn] | None = Field(
        default=None,
        description="Treatment of the cells of each column in a table of numbers: steps, noise, values that repeat."
        " Null with preprocessing that has none, and for a mixed density, whose `columns` have it.",
    )
    is_decided: bool = Field(
        default=False,
        description="True if the treatment of the cells is all that is said here; false for a dataset or a"
        " job of an earlier release, where training rows tell the rest.",
    )
    split: AcceptedSplit = Field(description="Split of the rows.")
    preprocessing: Preprocessing = Field(
        description="Preprocessing layers between the data and the flow."
    )

    def table_fields(self) -> dict[str, Any]:
        """Return the fields of the table alone, for another request about it."""
        return {name: getattr(self, name) for name in AcceptedTable.model_fields}

    @property
    def column_types(self) -> list[Column]:
        """Types of the columns of a row: those that are modelled, then those of the context."""
        if self.types is None:
            return [Column(name=name) for name in (*self.columns, *self.context_columns)]
        return [Column.from_dict(fields) for fields in self.types]


class Trial(Accepted):
    """Flow with the options of its training."""

    flow: Flow = Field(description="Family of the flow and its fields.")
    optimisation: FitOptions = Field(description="Options of the optimisation.")


class AcceptedTraining(Trial, AcceptedTable):
    """Accepted request for a training job."""
