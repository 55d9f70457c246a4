"""Options of uploads and jobs, as typed dictionaries.

Options that are left out are chosen by the service; the accepted job has all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

Space = Literal["data", "model"]
"""Space of rows: the units of the data, or those of the flow after preprocessing."""

PlotKind = Literal["learning-curve", "marginals", "pairs", "density", "noise", "images"]
"""Kind of plot of a version."""

PictureFormat = Literal["png", "svg"]
"""Format of a plot."""

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Split(TypedDict, total=False):
    """The split of the rows into training, validation and test rows."""

    train: float
    validation: float
    test: float
    shuffle: bool
    seed: int
    validation_dataset_id: str
    test_dataset_id: str


class TrainingOptions(TypedDict, total=False):
    """The options of a training.

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
    """The options of a fit to a density that is known up to a constant."""

    flow: Mapping[str, Any] | None
    optimisation: Mapping[str, Any]


Output = Literal["parquet", "csv", "npy"]
"""Format of the file of a bulk job."""


class ScoringOptions(TypedDict, total=False):
    """The options of a scoring job."""

    output: Output
    include_rows: bool


class SamplingOptions(TypedDict, total=False):
    """The options of a sampling job."""

    seed: int | None
    output: Output
    context: Mapping[str, float] | Sequence[Sequence[float] | Mapping[str, float]] | None


class UploadOptions(TypedDict, total=False):
    """The options of an upload: the format of a CSV file, and the treatment of gaps."""

    header: bool
    delimiter: str
    missing: Literal["error", "drop"]
    constant: Literal["error", "drop", "keep"]


class JobFilters(TypedDict, total=False):
    """The filters of a list of jobs."""

    state: JobState
    kind: str
    model_name: str
