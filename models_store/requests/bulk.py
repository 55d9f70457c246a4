"""Requests for bulk work: what a caller may say, and what was accepted once every gap is filled."""

from typing import Annotated

from pydantic import ConfigDict, Field

from models_store.requests.training import DatasetId, Seed, Strict
from tables.formats import Output

MAX_CONTEXT_ROWS = 10_000

ModelRef = Annotated[
    str,
    Field(
        min_length=1,
        max_length=140,
        description="`name` (its alias `production` if set, else the newest version), `name@alias`"
        " or `name:version`. The accepted request names the version.",
    ),
]
# A row, and a list of rows, may have a hundred thousand faults: the first one is enough.
ContextRow = Annotated[list[float], Field(fail_fast=True)] | dict[str, float]


class ScoringRequest(Strict):
    """The body of ``POST /v1/jobs/scoring``; `model` and `dataset_id` are required."""

    model_config = ConfigDict(protected_namespaces=())

    model: ModelRef
    dataset_id: DatasetId = Field(
        description="Its columns are matched by name; it may have more than the model."
    )
    output: Output = Field(default="parquet", description="The format of the result.")
    include_rows: bool = Field(
        default=False, description="The result has the dataset's columns, too, before the scores."
    )


class SamplingRequest(Strict):
    """The body of ``POST /v1/jobs/sampling``; `model` and `n` are required."""

    model_config = ConfigDict(protected_namespaces=())

    model: ModelRef
    n: int = Field(ge=1, le=2**53, description="Rows.")
    seed: Seed | None = Field(
        default=None,
        description="The same seed gives the same rows. Null: the server picks one and shows it.",
    )
    output: Output = Field(default="parquet", description="The format of the result.")
    context: (
        Annotated[list[ContextRow], Field(max_length=MAX_CONTEXT_ROWS, fail_fast=True)]
        | dict[str, float]
        | None
    ) = Field(
        default=None,
        description="Of a conditional model: one row of its context columns for all samples, or a"
        " list of as many rows as samples. Rows are lists in the order of `context_columns`, or"
        " objects keyed by column.",
        examples=[[[0.5, 1.0]]],
    )


class AcceptedScoring(Strict):
    """A scoring request with the version named; `columns` are those of its rows, in their order."""

    model_config = ConfigDict(protected_namespaces=())

    model: str
    dataset_id: str
    columns: list[str]
    output: Output
    include_rows: bool


class AcceptedSampling(Strict):
    """A sampling request with the version named; `context` has the order of the version's."""

    model_config = ConfigDict(protected_namespaces=())

    model: str
    n: int
    seed: int
    output: Output
    context: list[list[float]] | None
