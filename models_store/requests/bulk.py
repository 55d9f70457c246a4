"""Requests for scoring and sampling jobs, as a caller writes them and as they are accepted."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from models_store.requests.placement import Placed
from models_store.requests.training import DatasetId, Seed, Strict
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
ContextCell = float | str | bool | None
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


class Piece(Strict):
    """Numbers of some rows, which a child has computed: an npy file, and the number of its rows."""

    key: str
    sha256: str
    rows: int


class AcceptedBulk(Strict):
    """Accepted request for a bulk job, or for a child that does a part of one.

    Attributes:
        total_rows: Number of rows of the result, of a job that children do.
        part_rows: Number of rows of each child.
        span: First row that a child computes, and the one after the last.
        pieces: Files of the computed parts, in order, for the child that writes the whole.
    """

    model_config = ConfigDict(protected_namespaces=())

    total_rows: int | None = None
    part_rows: int | None = None
    span: tuple[int, int] | None = None
    pieces: list[Piece] | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what a job that one worker does has no use for."""
        written: dict[str, Any] = write(self)
        absent = {name for name in AcceptedBulk.model_fields if written[name] is None}
        return {name: value for name, value in written.items() if name not in absent}


class AcceptedScoring(AcceptedBulk):
    """Accepted request for a scoring job; `columns` are those of the model, in order."""

    model: str
    dataset_id: str
    columns: list[str]
    output: Output
    include_rows: bool
    parts: bool = False
    explain: bool = False


class AcceptedSampling(AcceptedBulk):
    """Accepted request for a sampling job; `context` has the order of the version's columns."""

    model: str
    n: int
    seed: int
    output: Output
    context: list[list[ContextCell]] | None
