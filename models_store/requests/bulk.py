"""Requests for jobs about many rows, as a caller writes them and as they are accepted."""

from typing import Annotated

from pydantic import ConfigDict, Field, FiniteFloat

from flows.compiled.conditions import Fill
from models_store.requests.training import Accepted, DatasetId, Placed, Seed
from tabular.formats import Output

MAX_CONTEXT_ROWS = 10_000
CONTEXT_DESCRIPTION = (
    "Context of a conditional model: one row for all samples, or a list of one row for each sample. A"
    " row is a list of values in the order of `context_columns`, or an object keyed by column; values"
    " are as in the file that the model was trained on: numbers, texts, true, false, null."
)

ModelRef = Annotated[
    str,
    Field(
        min_length=1,
        max_length=140,
        description="Reference to a version: `name` for its alias `production` or else its newest"
        " version, `name@alias` or `name:version`. The accepted request has `name:version`.",
    ),
]
FILL_DESCRIPTION = (
    "What a gap gets: the `mean` or the `median` of a number, with the likeliest category, or a `draw` of all"
    " gaps of a row together, for multiple imputation by several seeds."
)
ContextCell = FiniteFloat | str | bool | None
# A row, and a list of rows, may have a hundred thousand faults: the first one is enough.
ContextRow = Annotated[list[ContextCell], Field(fail_fast=True)] | dict[str, ContextCell]


class ScoringRequest(Placed):
    """Body of ``POST /v1/jobs/scoring``; `model` and `dataset_id` are required."""

    model_config = ConfigDict(protected_namespaces=())

    model: ModelRef
    dataset_id: DatasetId = Field(
        description="Dataset to score, which has the columns of the model by name, and perhaps others."
    )
    output: Output = Field(default="parquet", description="Format of the result.")
    include_rows: bool = Field(
        default=False, description="Write the columns of the dataset before the scores."
    )
    parts: bool = Field(
        default=False,
        description="Write the two parts of each log density: `discrete` of the categories, missing"
        " values and spikes of the row, `continuous` of its other values given those.",
    )
    explain: bool = Field(
        default=False,
        description="Write for each column `explanation.NAME`, the log density of its value given"
        " the others of the row, and `difference.NAME`, that minus the usual one, as `score` does with"
        " `explain`. A model trained with `missing` as `any` explains all columns, others"
        " those of at most 64 levels.",
    )


class SamplingRequest(Placed):
    """Body of ``POST /v1/jobs/sampling``; `model` and `n` are required."""

    model_config = ConfigDict(protected_namespaces=())

    model: ModelRef
    n: int = Field(ge=1, le=2**53, description="Number of rows to draw.")
    seed: Seed | None = Field(
        default=None,
        description="Seed; the same seed gives the same rows. Null: the server chooses one, which the"
        " accepted request has.",
    )
    output: Output = Field(default="parquet", description="Format of the result.")
    context: (
        Annotated[list[ContextRow], Field(max_length=MAX_CONTEXT_ROWS, fail_fast=True)]
        | dict[str, ContextCell]
        | None
    ) = Field(
        default=None,
        description=CONTEXT_DESCRIPTION,
        examples=[[[0.5, 1.0]]],
    )


class ImputationRequest(Placed):
    """Body of ``POST /v1/jobs/imputation``; `model` and `dataset_id` are required."""

    model_config = ConfigDict(protected_namespaces=())

    model: ModelRef
    dataset_id: DatasetId = Field(
        description="Dataset whose gaps are filled; it has the columns of `given` by name, and perhaps others."
    )
    given: list[str] | None = Field(
        default=None,
        max_length=10_000,
        description="Columns of the model that are known where their cells are; the others are filled in every"
        " row. Null: all.",
    )
    fill: Fill = Field(default="mean", description=FILL_DESCRIPTION)
    level: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Probability of intervals, which are written as `low.NAME` and `high.NAME`; null: none.",
    )
    seed: Seed = Field(default=0, description="Seed; the same seed gives the same cells.")
    output: Output = Field(default="parquet", description="Format of the result.")


class Piece(Accepted):
    """File of rows that a child has computed."""

    key: str = Field(description="Key of the npy file in the store.")
    sha256: str = Field(description="SHA-256 of the file.")
    rows: int = Field(description="Number of its rows.")


class AcceptedBulk(Accepted):
    """Accepted request of a job about many rows, or of a child that does a part of one."""

    model: str = Field(description="Version that computes the rows, as `name:version`.")
    output: Output = Field(description="Format of the result.")
    total_rows: int | None = Field(
        default=None,
        description="Number of rows of the result of a job whose children compute them; null if it has"
        " no children.",
    )
    part_rows: int | None = Field(
        default=None, description="Number of rows of each child; null if it has no children."
    )
    span: tuple[int, int] | None = Field(
        default=None,
        description="First row that a child computes, and the one after its last; null for all rows.",
    )
    pieces: list[Piece] | None = Field(
        default=None, description="Computed parts in order, for the child that writes the whole."
    )


class AcceptedScoring(AcceptedBulk):
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


class AcceptedSampling(AcceptedBulk):
    """Accepted request for a sampling job."""

    n: int = Field(description="Number of rows to draw.")
    seed: int = Field(description="Seed; the same seed gives the same rows.")
    context: list[list[ContextCell]] | None = Field(
        description="Context of a conditional model, in the order of its context columns; null if"
        " there is none."
    )


class AcceptedImputation(AcceptedBulk):
    """Accepted request for an imputation job."""

    dataset_id: str = Field(description="Dataset whose gaps are filled.")
    given: list[str] = Field(description="Columns of the model that are known, in its order.")
    fill: Fill = Field(description="What a gap gets.")
    level: float | None = Field(description="Probability of the intervals; null: none.")
    seed: int = Field(description="Seed; the same seed gives the same cells.")
