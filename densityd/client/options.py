"""What may be chosen when a job is started: the bodies of the API, as typed dictionaries.

Whatever is left out is chosen by the service, and the accepted job shows the choice.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

Space = Literal["data", "model"]
"""Of rows: the data's own units, or as the flow sees them after preprocessing."""

PlotKind = Literal["learning-curve", "marginals", "pairs", "density", "noise", "images"]
"""What a picture of a version shows."""

PictureFormat = Literal["png", "svg"]
"""The format of a picture."""

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Split(TypedDict, total=False):
    """How rows become training, validation and test rows."""

    train: float
    validation: float
    test: float
    shuffle: bool
    seed: int
    validation_dataset_id: str
    test_dataset_id: str


class TrainingOptions(TypedDict, total=False):
    """A training, beyond the names of the model and the dataset.

    `flow` has the fields of one family (`{"family": "maf", "layers": 5}`), `optimisation` those of
    `POST /v1/jobs/training`.
    """

    columns: Sequence[str] | None
    context_columns: Sequence[str]
    split: Split
    preprocessing: Mapping[str, Any]
    flow: Mapping[str, Any] | None
    optimisation: Mapping[str, Any]


class VariationalOptions(TypedDict, total=False):
    """A fit to a density that is known up to a constant, beyond the model's name and the target."""

    flow: Mapping[str, Any] | None
    optimisation: Mapping[str, Any]


Output = Literal["parquet", "csv", "npy"]
"""The format of a bulk job's file."""


class ScoringOptions(TypedDict, total=False):
    """A scoring in bulk, beyond the model and the dataset."""

    output: Output
    include_rows: bool


class SamplingOptions(TypedDict, total=False):
    """A sampling in bulk, beyond the model and the number of rows."""

    seed: int | None
    output: Output
    context: Mapping[str, float] | Sequence[Sequence[float] | Mapping[str, float]] | None


class UploadOptions(TypedDict, total=False):
    """How an uploaded table is read and what becomes of its gaps."""

    header: bool
    delimiter: str
    missing: Literal["error", "drop"]
    constant: Literal["error", "drop", "keep"]


class JobFilters(TypedDict, total=False):
    """Which jobs to list."""

    state: JobState
    kind: str
    model_name: str
