"""Options of uploads and jobs, as typed dictionaries.

Options that are left out are chosen by the service; the accepted job has all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

Space = Literal["data", "model"]
"""Space of rows: the units of the data, or those of the flow after preprocessing."""

PlotKind = Literal["learning-curve", "marginals", "pairs", "density", "noise", "images"]
"""Kind of plot of a version."""

PictureFormat = Literal["png", "svg"]
PictureTheme = Literal["light", "dark"]
"""Format of a plot."""

Activation = Literal["relu", "tanh", "elu", "gelu"]
"""Activation function of the hidden layers of a network."""

Family = Literal[
    "gaussian",
    "gaussian_mixture",
    "made",
    "maf",
    "iaf",
    "realnvp",
    "nice",
    "haf",
    "planar",
    "radial",
    "sylvester",
    "nsf",
    "naf",
]
"""Family of flows."""

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


class Resources(TypedDict, total=False):
    """The resources that a job wants of its worker."""

    accelerator: Literal["none", "preferred", "required"]


class Placement(TypedDict, total=False):
    """The options of all jobs: `priority` from -100 to 100, `resources`, `description` and `tags`."""

    priority: int
    resources: Resources
    description: str
    tags: Mapping[str, str]


class BatchNormOptions(TypedDict, total=False):
    """The statistics of batch normalisation between the layers of a flow."""

    statistics: Literal["dataset", "running"]
    momentum: float


class EncoderOptions(TypedDict, total=False):
    """The network that encodes the context of a conditional flow."""

    features: int
    hidden: Sequence[int]
    activation: Activation


class FlowOptions(TypedDict, total=False):
    """The fields of a flow; which of them a family has is in docs/flows.md."""

    family: Family | Literal["auto"] | None
    activation: Activation
    base: Literal["gaussian", "made_mixture"]
    batch_norm: BatchNormOptions | None
    bins: int
    closed: Literal["density", "sampling"]
    components: int | None
    conditional: Literal["gaussian", "bernoulli", "mixture"]
    coupling: bool
    covariance: Literal["diagonal", "full"]
    direct: bool
    encoder: EncoderOptions | None
    ensemble: int | None
    hidden: Sequence[int]
    layers: int
    linear: bool
    log_scale_bound: float | None
    mask_weights: bool
    masks: int
    order: Literal["natural", "random", "reverse"]
    regularisation: float
    affine_layers: int
    separate_networks: bool
    tail_bound: float
    tails: bool
    transformer: Literal["dsf", "ddsf"]
    units: int | None


class ColumnOptions(TypedDict, total=False):
    """The options of one continuous column, in place of those that the dataset has."""

    transform: Literal["none", "log", "logit", "asinh", "quantiles", "circular"] | None
    low: float | None
    high: float | None
    spikes: Sequence[float] | None


class Levels(TypedDict):
    """The number of levels of integer values."""

    levels: int


Logit = TypedDict("Logit", {"lambda": float}, total=False)


class StepFactor(TypedDict):
    """The factor of the learning rate, applied after every `epochs` epochs."""

    epochs: int
    factor: float


class StepSchedule(TypedDict):
    """The schedule in which the learning rate falls in steps."""

    step: StepFactor


class Preprocessing(TypedDict, total=False):
    """The layers between the data and the flow."""

    standardise: bool
    dequantise: Levels | Literal["auto"] | None
    logit: Logit | None
    columns: Mapping[str, ColumnOptions]


class DiscreteOptions(TypedDict, total=False):
    """The network of the probabilities of categories, gaps and single values."""

    hidden: Sequence[int] | None


class _Optimisation(TypedDict, total=False):
    optimiser: Literal["adam", "adamw", "adagrad", "sgd"]
    learning_rate: float | None
    max_gradient_norm: float | Literal["none"] | None
    batch_size: int | None
    patience: int | None
    max_seconds: float | None
    seed: int | None


class Optimisation(_Optimisation, total=False):
    """The options of the optimisation of a training."""

    weight_decay: float
    max_epochs: int | None
    schedule: Literal["constant", "cosine"] | StepSchedule
    robust: bool
    weight_average: float | None
    mixed_precision: bool


class VariationalOptimisation(_Optimisation, total=False):
    """The options of the optimisation of a fit to a density."""

    schedule: Literal["constant", "cosine"]
    iterations: int | None
    report_every: int | None
    annealing: int | None


class TrainingOptions(Placement, total=False):
    """The options of a training.

    `flow` has the fields of one family (`{"family": "maf", "layers": 5}`), `optimisation` those of
    `POST /v1/jobs/training`. `flow="auto"` has children of the job try several, `quality` takes less
    or more time. `missing="any"` trains for rows with any gaps, and for explanations.
    """

    columns: Sequence[str] | None
    context_columns: Sequence[str]
    split: Split
    preprocessing: Preprocessing
    flow: FlowOptions | Literal["auto"] | None
    quality: Literal["fast", "balanced", "best"]
    discrete: DiscreteOptions
    missing: Literal["observed", "any"]
    optimisation: Optimisation


class SweepOptions(TrainingOptions, total=False):
    """The options of a sweep: those of a training, and how points of the ranges are tried.

    Attributes:
        method: Points that fill the ranges evenly, or random ones.
        trials: Number of points.
        reduction: Factor by which each stage has fewer trials and more epochs; 1: a single stage.
        ensemble: Most flows whose probabilities are averaged in the model.
        seed: Seed of the points.
    """

    method: Literal["sobol", "random"]
    trials: int
    reduction: int
    ensemble: int
    seed: int | None


class VariationalOptions(Placement, total=False):
    """The options of a fit to a density that is known up to a constant."""

    flow: FlowOptions | None
    optimisation: VariationalOptimisation


Output = Literal["parquet", "csv", "npy"]
"""Format of the file of a bulk job."""


class ScoringOptions(Placement, total=False):
    """The options of a scoring job.

    Attributes:
        output: Format of the result.
        include_rows: Write the columns of the dataset before the scores.
        parts: Add the log probability of the discrete cells and the log density of the others.
        explain: Add the contribution of each column, and its difference from the usual one.
    """

    output: Output
    include_rows: bool
    parts: bool
    explain: bool


class SamplingOptions(Placement, total=False):
    """The options of a sampling job."""

    seed: int | None
    output: Output
    context: Mapping[str, object] | Sequence[Sequence[object] | Mapping[str, object]] | None


ColumnType = Literal["number", "integer", "boolean", "category", "datetime", "ignored"]
"""Type of the values of a column."""

Extra = Literal["error", "ignore"]
"""Treatment of columns that the model does not have."""


class UploadOptions(TypedDict, total=False):
    """The options of an upload: how to read the file, the types of its columns, and its gaps.

    Attributes:
        header: True if the first line of a CSV file has the names of its columns.
        delimiter: Character between the cells of a CSV file; found by the service if left out.
        encoding: Encoding of a CSV file, such as `utf-8` or `latin-1`.
        decimal: Decimal mark of numbers in text.
        thousands: Mark between groups of three digits in text.
        datetime_format: Format of dates in text, as of `datetime.strptime`.
        na_values: Texts that stand for a missing value, beside the usual ones.
        columns: Names of the columns to keep; all others are left out.
        exclude: Names of the columns to ignore.
        types: Types of columns by name; all others are found by the service.
        max_levels: Most levels of a category; rarer ones are the level *other*.
        missing: Keep gaps as data, refuse a table with gaps, or drop the rows that have some.
        constant: Keep constant columns, refuse a table with some, or drop the columns.
        description: Description of the dataset.
        tags: Values of the dataset's tags by name.
    """

    header: bool
    delimiter: str
    encoding: str
    decimal: str
    thousands: str
    datetime_format: str
    na_values: Sequence[str]
    columns: Sequence[str]
    exclude: Sequence[str]
    types: Mapping[str, ColumnType]
    max_levels: int
    missing: Literal["keep", "error", "drop"]
    constant: Literal["keep", "error", "drop"]
    description: str
    tags: Mapping[str, str]


class RowOptions(TypedDict, total=False):
    """The options of a request about rows.

    Attributes:
        space: Space of the rows.
        extra: Refuse rows with columns that the model does not have, or ignore the columns.
    """

    space: Space
    extra: Extra


class FileOptions(RowOptions, total=False):
    """The options of the scoring of a file.

    Attributes:
        media_type: Format of the result; left out, that of the suffix of the target.
        parts: Add the log probability of the discrete cells and the log density of the others.
        conditionals: Add the log density of each column given those before it, and its mean.
        explain: Add the contribution of each column, and its difference from the usual one.
        rows_per_request: Most rows of a part that is sent at once; left out, half a million.
    """

    media_type: str
    parts: bool
    conditionals: bool
    explain: bool
    rows_per_request: int


class Labels(TypedDict, total=False):
    """Changes of a description and of tags.

    Attributes:
        description: New description; None removes it.
        tags: New values of tags by name; None removes a tag, others stay.
    """

    description: str | None
    tags: Mapping[str, str | None]
