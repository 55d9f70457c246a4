"""Accepted requests for jobs, as the service documents them: every option has a value."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.http.examples import COLUMNS, DATASET_ID, MODEL
from app.resources.columns import TypedColumn
from flows import MixedSpec, VariationalOptions
from flows.training.options import Optimiser
from models_store.requests.bulk import ContextCell
from models_store.requests.sweep import RangeValue
from models_store.requests.training import Flow, Preprocessing, Schedule
from models_store.requests.variational import Target
from models_store.schema_of import SchemaOf
from tabular.formats import Output


class AcceptedSplitView(BaseModel):
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


class AcceptedOptimisationView(BaseModel):
    """Options of the optimisation of a training."""

    optimiser: Optimiser = Field(description="Optimiser as PyTorch names it.")
    learning_rate: float = Field(description="Learning rate of the first epoch.")
    weight_decay: float = Field(description="Weight decay, as an L2 term; decoupled with AdamW.")
    max_gradient_norm: float | None = Field(
        description="Maximum gradient norm, to which larger gradients are scaled; null if unlimited."
    )
    batch_size: int = Field(description="Maximum number of rows of a training step.")
    max_epochs: int = Field(description="Number of epochs after which training ends.")
    patience: int | None = Field(
        description="Epochs without a better validation likelihood after which training ends."
    )
    max_seconds: float | None = Field(
        description="Maximum training time in seconds over all attempts; null if unlimited."
    )
    schedule: Schedule = Field(description="Change of the learning rate from epoch to epoch.")
    row_loss_bound: float | None = Field(
        description="Bound of the losses of single rows, in spreads above the median loss; null for"
        " plain means."
    )
    weight_average: float | None = Field(
        description="Decay of the moving average of the weights that is kept; null for no average."
    )
    noise: Literal["once", "epoch"] = Field(
        description="Noise on discrete columns: drawn once, or anew for each epoch."
    )
    restarts: int = Field(
        description="Number of times that a diverging training restarts from its best state before"
        " it fails."
    )
    mixed_precision: bool = Field(
        default=False,
        description="True if factors of matrix products are rounded where that is faster.",
    )
    seed: int = Field(description="Seed of the order of the rows, and of the noise.")


class AcceptedTableView(BaseModel):
    """Rows and columns that flows are fitted to."""

    model_name: str = Field(description="Name of the model that gets a new version.")
    dataset_id: str = Field(description="Dataset to train on.")
    columns: list[str] = Field(description="Columns to model, in order.")
    context_columns: list[str] = Field(
        default=[], description="Columns that the density is conditioned on, in order."
    )
    types: list[TypedColumn] | None = Field(
        default=None,
        description="Types of the columns, then of the context columns; null if all are plain"
        " numbers.",
    )
    split: AcceptedSplitView = Field(description="Split of the rows.")
    preprocessing: Preprocessing = Field(
        description="Preprocessing layers between the data and the flow."
    )


class AcceptedTrainingView(AcceptedTableView):
    """Accepted request for a training job."""

    flow: Flow = Field(description="Family of the flow and its fields.")
    optimisation: AcceptedOptimisationView = Field(description="Options of the optimisation.")


class StageView(BaseModel):
    """Stage of a search."""

    trials: int = Field(description="Number of trials, the best ones of the previous stage.")
    share: float = Field(
        description="Fraction of their epochs, from 0 to 1, that they are trained for."
    )


class AcceptedTrialView(BaseModel):
    """Flow that a search tries, with the options of its whole training."""

    flow: Flow = Field(description="Family of the flow and its fields.")
    optimisation: AcceptedOptimisationView = Field(description="Options of the optimisation.")


class AcceptedSearchView(AcceptedTableView):
    """Accepted request for a training job that tries several flows, or for a sweep."""

    trials: list[AcceptedTrialView] = Field(description="Flows to try.")
    stages: list[StageView] = Field(
        description="Stages. The first one has all trials; with `max_seconds`, a search of flows trains"
        " the default flow alone to its end first, and the second stage has all others."
    )
    ensemble: int = Field(
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


class MemberView(BaseModel):
    """Trained flow that may become a member of an ensemble."""

    trial: int = Field(description="Number of the trial, counted from 0.")
    key: str = Field(description="Key of its weights in the store.")
    sha256: str = Field(description="SHA-256 of its weights.")
    flow: Flow = Field(description="Family of the flow and its fields.")


class AcceptedEnsembleView(AcceptedTableView):
    """Request of the child of a search that chooses an ensemble."""

    members: list[MemberView] = Field(description="Trained flows, the best one first.")
    seed: int = Field(description="Seed of the noise on discrete values.")
    row_loss_bound: float | None = Field(
        description="Bound of the losses of single rows, in spreads above the median loss; null for"
        " plain means."
    )


class AcceptedVariationalView(BaseModel):
    """Accepted request for a variational job."""

    model_name: str = Field(description="Name of the model that gets a new version.")
    target: Target = Field(description="Target that the flow is fitted to.")
    flow: Flow = Field(description="Family of the flow and its fields.")
    optimisation: VariationalOptions = Field(description="Options of the optimisation.")


class PieceView(BaseModel):
    """File of rows that a child has computed."""

    key: str = Field(description="Key of the file in the store.")
    sha256: str = Field(description="SHA-256 of the file.")
    rows: int = Field(description="Number of its rows.")


class AcceptedBulkView(BaseModel):
    """Accepted request of a job about many rows, or of a child that does a part of one."""

    model: str = Field(description="Version that computes the rows, as `name:version`.")
    output: Output = Field(description="Format of the result.")
    total_rows: int | None = Field(
        default=None,
        description="Total number of rows of a job whose children compute them;"
        " absent if it has no children.",
    )
    part_rows: int | None = Field(
        default=None, description="Number of rows of each child; absent if it has no children."
    )
    span: tuple[int, int] | None = Field(
        default=None,
        description="First row that a child computes, and the one after its last; absent for all"
        " rows.",
    )
    pieces: list[PieceView] | None = Field(
        default=None, description="Computed parts in order, for the child that writes the whole."
    )


class AcceptedScoringView(AcceptedBulkView):
    """Accepted request for a scoring job."""

    dataset_id: str = Field(description="Dataset to score.")
    columns: list[str] = Field(description="Columns of the model, in order.")
    include_rows: bool = Field(
        description="True if the columns of the dataset are written before the scores."
    )
    parts: bool = Field(
        default=False, description="True if the two parts of each log density are written."
    )
    explain: bool = Field(
        default=False, description="True if explanations of each column are written."
    )


class AcceptedSamplingView(AcceptedBulkView):
    """Accepted request for a sampling job."""

    n: int = Field(description="Number of rows to draw.")
    seed: int = Field(description="Seed; the same seed gives the same rows.")
    context: list[list[ContextCell]] | None = Field(
        description="Context of a conditional model, in the order of its context columns; null if"
        " there is none."
    )


AcceptedRequest = Annotated[
    dict[str, Any],
    # The most particular ones come first, for clients that take the first one that fits.
    SchemaOf(
        AcceptedTrainingView
        | AcceptedSearchView
        | AcceptedEnsembleView
        | AcceptedVariationalView
        | AcceptedScoringView
        | AcceptedSamplingView
    ),
]

REQUEST_EXAMPLE: dict[str, Any] = {
    "model_name": MODEL,
    "dataset_id": DATASET_ID,
    "columns": COLUMNS,
    "context_columns": [],
    "types": None,
    "split": {
        "train": 0.8,
        "validation": 0.1,
        "test": 0.1,
        "shuffle": True,
        "seed": 0,
        "validation_dataset_id": None,
        "test_dataset_id": None,
    },
    "preprocessing": {"standardise": True, "dequantise": "auto", "logit": None, "columns": {}},
    "flow": {
        "family": "maf",
        "layers": 5,
        "hidden": [64, 64],
        "activation": "tanh",
        "batch_norm": None,
        "order": "reverse",
        "base": "gaussian",
        "encoder": None,
    },
    "optimisation": {
        "optimiser": "adam",
        "learning_rate": 0.0025,
        "weight_decay": 1e-6,
        "max_gradient_norm": 5.0,
        "batch_size": 250,
        "max_epochs": 160,
        "patience": 30,
        "max_seconds": None,
        "schedule": "cosine",
        "row_loss_bound": 30.0,
        "weight_average": 0.99,
        "noise": "epoch",
        "restarts": 1,
        "mixed_precision": False,
        "seed": 0,
    },
}
