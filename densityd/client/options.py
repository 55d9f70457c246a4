"""Options of requests; the service chooses what is left out."""
# Generated from the OpenAPI document by tools/client_schema.py; do not edit.

from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, TypeAlias, TypedDict

Accelerator: TypeAlias = Literal["none", "preferred", "required"]


class AutoFlow(TypedDict):
    """Search over flows: several families and sizes are trained, and the best becomes the model."""

    family: Literal["auto"]
    ensemble: NotRequired[int | None]


class BatchNormSpec(TypedDict):
    """Statistics that a trained batch norm uses."""

    statistics: NotRequired[Literal["dataset", "running"]]
    momentum: NotRequired[float]


class ColumnOptions(TypedDict):
    """Options of one continuous column; those that are absent or null stay as the dataset has them."""

    transform: NotRequired[Literal["none", "log", "logit", "asinh", "quantiles", "circular"] | None]
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    spikes: NotRequired[Sequence[float] | None]


class DiscreteOptions(TypedDict):
    """Network of the discrete variables of a mixed density; absent options suit the data."""

    hidden: NotRequired[Sequence[int] | None]


class EncoderSpec(TypedDict):
    """Specification of a network that encodes the context for all layers."""

    hidden: NotRequired[Sequence[int]]
    features: NotRequired[int]
    activation: NotRequired[Literal["relu", "tanh", "elu", "gelu"]]


class GaussianMixtureSpec(TypedDict):
    """Mixture of Gaussians, fitted by expectation maximisation instead of gradients."""

    family: Literal["gaussian_mixture"]
    components: NotRequired[int | None]
    regularisation: NotRequired[float]
    encoder: NotRequired[EncoderSpec | None]


class GaussianSpec(TypedDict):
    """One Gaussian: the baseline of every flow."""

    family: Literal["gaussian"]
    covariance: NotRequired[Literal["diagonal", "full"]]
    encoder: NotRequired[EncoderSpec | None]


class HafSpec(TypedDict):
    """Layers that are a Gaussian MADE on one half of the features and a coupling to the other."""

    family: Literal["haf"]
    layers: NotRequired[int]
    hidden: NotRequired[Sequence[int]]
    batch_norm: NotRequired[BatchNormSpec | None]
    activation: NotRequired[Literal["relu", "tanh", "elu", "gelu"]]
    log_scale_bound: NotRequired[float | None]
    encoder: NotRequired[EncoderSpec | None]


class IafSpec(TypedDict):
    """MADE layers that read the noise (Kingma et al. 2016)."""

    family: Literal["iaf"]
    layers: NotRequired[int]
    hidden: NotRequired[Sequence[int]]
    batch_norm: NotRequired[BatchNormSpec | None]
    order: NotRequired[Literal["reverse", "random"]]
    activation: NotRequired[Literal["relu", "tanh", "elu", "gelu"]]
    log_scale_bound: NotRequired[float | None]
    encoder: NotRequired[EncoderSpec | None]


class Interval(TypedDict):
    """Numbers from `low` to `high`: whole numbers if both bounds are written as such (`2`, not `2.0`)."""

    low: int | float
    high: int | float
    scale: NotRequired[Literal["linear", "log"]]


class Labels(TypedDict):
    """Options of a request, as of `LabelsRequest`.

    Attributes:
        description: New description; null removes it.
        tags: New values of tags by name; null removes a tag, others stay.
    """

    description: NotRequired[str | None]
    tags: NotRequired[Mapping[str, str | None]]


class LatentModel(TypedDict):
    """Generative model of the rows of a dataset, each with latent variables of its own."""

    dataset_id: str
    columns: NotRequired[Sequence[str] | None]
    likelihood: Literal["bernoulli", "gaussian"]
    dim: NotRequired[int | None]
    hidden: NotRequired[Sequence[int] | None]
    activation: NotRequired[Literal["relu", "tanh", "elu", "gelu"]]
    loadings: NotRequired[Sequence[Sequence[float]] | None]
    offset: NotRequired[Sequence[float] | None]
    noise_scale: NotRequired[float | None]
    held_out: NotRequired[float]


class LatentTarget(TypedDict):
    """Latent variables of each row of a dataset, given the row: amortised inference."""

    latent: LatentModel


class Levels(TypedDict):
    """Number of levels of integer values, from 0 to `levels` - 1, such as 256 for grey images."""

    levels: int


class LinearPosterior(TypedDict):
    """Linear regression: response = intercept + columns . slopes + Gaussian noise of known scale."""

    dataset_id: str
    response: str
    columns: NotRequired[Sequence[str] | None]
    prior_scale: NotRequired[float]
    kind: Literal["linear"]
    noise_scale: NotRequired[float]


class LogisticPosterior(TypedDict):
    """Logistic regression: P(response = 1) = sigmoid(intercept + columns . slopes)."""

    dataset_id: str
    response: str
    columns: NotRequired[Sequence[str] | None]
    prior_scale: NotRequired[float]
    kind: Literal["logistic"]
    batch_rows: NotRequired[int | None]


Logit = TypedDict(
    "Logit",
    {"lambda": NotRequired[float]},
)


class MadeSpec(TypedDict):
    """Single MADE, a masked autoregressive network."""

    family: Literal["made"]
    conditional: NotRequired[Literal["gaussian", "bernoulli", "mixture"]]
    components: NotRequired[int]
    hidden: NotRequired[Sequence[int]]
    order: NotRequired[Literal["natural", "random"]]
    masks: NotRequired[int]
    separate_networks: NotRequired[bool]
    activation: NotRequired[Literal["relu", "tanh", "elu", "gelu"]]
    direct: NotRequired[bool]
    mask_weights: NotRequired[bool]
    log_scale_bound: NotRequired[float | None]
    encoder: NotRequired[EncoderSpec | None]


class MafSpec(TypedDict):
    """Gaussian MADE layers one after another."""

    family: Literal["maf"]
    layers: NotRequired[int]
    hidden: NotRequired[Sequence[int]]
    batch_norm: NotRequired[BatchNormSpec | None]
    order: NotRequired[Literal["reverse", "random"]]
    base: NotRequired[Literal["gaussian", "made_mixture"]]
    components: NotRequired[int]
    activation: NotRequired[Literal["relu", "tanh", "elu", "gelu"]]
    log_scale_bound: NotRequired[float | None]
    tails: NotRequired[bool]
    encoder: NotRequired[EncoderSpec | None]


class NafSpec(TypedDict):
    """Autoregressive layers whose maps are monotone networks."""

    family: Literal["naf"]
    layers: NotRequired[int]
    hidden: NotRequired[Sequence[int]]
    transformer: NotRequired[Literal["dsf", "ddsf"]]
    units: NotRequired[int]
    closed: NotRequired[Literal["density", "sampling"]]
    activation: NotRequired[Literal["relu", "tanh", "elu", "gelu"]]
    encoder: NotRequired[EncoderSpec | None]


class NiceSpec(TypedDict):
    """Additive coupling layers and a diagonal scaling on their noise side (Dinh et al. 2015)."""

    family: Literal["nice"]
    layers: NotRequired[int]
    hidden: NotRequired[Sequence[int]]
    batch_norm: NotRequired[BatchNormSpec | None]
    encoder: NotRequired[EncoderSpec | None]


class NsfSpec(TypedDict):
    """Layers of rational-quadratic splines, autoregressive or by coupling."""

    family: Literal["nsf"]
    layers: NotRequired[int]
    hidden: NotRequired[Sequence[int]]
    bins: NotRequired[int]
    tail_bound: NotRequired[float]
    coupling: NotRequired[bool]
    linear: NotRequired[bool]
    activation: NotRequired[Literal["relu", "tanh", "elu", "gelu"]]
    tails: NotRequired[bool]
    affine_layers: NotRequired[int]
    encoder: NotRequired[EncoderSpec | None]


class PlanarSpec(TypedDict):
    """Planar layers one after another."""

    family: Literal["planar"]
    layers: NotRequired[int]
    closed: NotRequired[Literal["density", "sampling"]]
    encoder: NotRequired[EncoderSpec | None]


class PosteriorTarget(TypedDict):
    """Posterior of a Bayesian regression."""

    posterior: LinearPosterior | LogisticPosterior


class PotentialTarget(TypedDict):
    """Named potential: one of five two-dimensional test densities."""

    potential: Literal["U1", "U2", "U3", "U4", "U5"]


class Preprocessing(TypedDict):
    """Preprocessing layers between the data and the flow, fitted to the training rows."""

    standardise: NotRequired[bool]
    dequantise: NotRequired[Levels | Literal["auto"] | None]
    logit: NotRequired[Logit | None]
    columns: NotRequired[Mapping[str, ColumnOptions]]


class RadialSpec(TypedDict):
    """Radial layers one after another."""

    family: Literal["radial"]
    layers: NotRequired[int]
    closed: NotRequired[Literal["density", "sampling"]]
    encoder: NotRequired[EncoderSpec | None]


class RealNvpSpec(TypedDict):
    """Affine coupling layers, a batch norm on the noise side of every one."""

    family: Literal["realnvp"]
    layers: NotRequired[int]
    hidden: NotRequired[Sequence[int]]
    batch_norm: NotRequired[BatchNormSpec | None]
    log_scale_bound: NotRequired[float | None]
    encoder: NotRequired[EncoderSpec | None]


class Resources(TypedDict):
    """Resources that a job needs from the worker that takes it."""

    accelerator: NotRequired[Accelerator]


class SamplingOptions(TypedDict):
    """Options of a request, as of `SamplingRequest`.

    Attributes:
        priority: Priority among waiting jobs of the project: higher ones are taken first.
        resources: Resources that the job needs from its worker.
        description: Description of the job.
        tags: Values of the job's tags by name.
        seed: Seed; the same seed gives the same rows.
        output: Format of the result.
        context: Context of a conditional model: one row for all samples, or a list of one row for each sample.
    """

    priority: NotRequired[int]
    resources: NotRequired[Resources]
    description: NotRequired[str | None]
    tags: NotRequired[Mapping[str, str]]
    seed: NotRequired[int | None]
    output: NotRequired[Literal["parquet", "csv", "npy"]]
    context: NotRequired[
        Sequence[Sequence[float | str | bool | None] | Mapping[str, float | str | bool | None]]
        | Mapping[str, float | str | bool | None]
        | None
    ]


class ScoringOptions(TypedDict):
    """Options of a request, as of `ScoringRequest`.

    Attributes:
        priority: Priority among waiting jobs of the project: higher ones are taken first.
        resources: Resources that the job needs from its worker.
        description: Description of the job.
        tags: Values of the job's tags by name.
        output: Format of the result.
        include_rows: Write the columns of the dataset before the scores.
        parts: Write the two parts of each log density: `discrete` of the categories, missing values and spikes of the row, `continuous` of its other values given those.
        explain: Write for each column `explanation.NAME`, the log density of its value given the others of the row, and `difference.NAME`, that minus the usual one, as `score` does with `explain`.
    """

    priority: NotRequired[int]
    resources: NotRequired[Resources]
    description: NotRequired[str | None]
    tags: NotRequired[Mapping[str, str]]
    output: NotRequired[Literal["parquet", "csv", "npy"]]
    include_rows: NotRequired[bool]
    parts: NotRequired[bool]
    explain: NotRequired[bool]


class Split(TypedDict):
    """Split of the rows into training, validation and test rows."""

    train: NotRequired[float | None]
    validation: NotRequired[float | None]
    test: NotRequired[float | None]
    shuffle: NotRequired[bool]
    seed: NotRequired[int]
    validation_dataset_id: NotRequired[str | None]
    test_dataset_id: NotRequired[str | None]


class StepFactor(TypedDict):
    """Factor of the learning rate, applied after every `epochs` epochs."""

    epochs: int
    factor: float


class StepSchedule(TypedDict):
    """Schedule in which the learning rate falls in steps."""

    step: StepFactor


class SylvesterSpec(TypedDict):
    """Sylvester layers one after another."""

    family: Literal["sylvester"]
    layers: NotRequired[int]
    units: NotRequired[int | None]
    closed: NotRequired[Literal["density", "sampling"]]
    encoder: NotRequired[EncoderSpec | None]


class UploadOptions(TypedDict):
    """Options of an upload.

    Attributes:
        description: Description of the dataset.
        tags: Tags of the dataset: name to value.
        header: For CSV: true if the first line names the columns, false if it is a row: then, and with the Content-Type `text/csv; header=absent`, the columns are named `x1` to `xD`.
        delimiter: For CSV: delimiter between values.
        encoding: For CSV: encoding of the text.
        sheet: For Excel: name of the sheet.
        columns: Names of the columns to model; the others are kept but ignored.
        exclude: Names of columns to ignore.
        types: Types of columns: name to `number`, `integer`, `boolean`, `category`, `datetime` or `ignored`.
        na_values: Texts that mean a missing value, besides empty ones, NA, null and the like;.
        drop_rows: Texts of which one as a cell tells that a row is to be left out, such as `Total`;.
        merge_levels: Names of columns whose texts are one level where they differ in case or blanks alone, such as `West` and `west`;.
        decimal: Character before the decimals of numbers in text.
        thousands: Character between groups of three digits of numbers in text.
        datetime_format: Format of dates in the directives of `strptime`, such as `%d/%m/%Y`.
        max_levels: Largest number of levels of a category; rarer ones become the level `*other*`.
        missing: `keep` to model missing values as data, `error` to refuse them, `drop` to drop their rows.
        constant: `keep` to model constant columns as one value, `error` to refuse them, `drop` to drop them.
    """

    description: NotRequired[str | None]
    tags: NotRequired[Mapping[str, str]]
    header: NotRequired[bool | None]
    delimiter: NotRequired[Literal[",", ";", "\t", "|", " "] | None]
    encoding: NotRequired[
        Literal[
            "utf-8",
            "utf-16",
            "latin-1",
            "cp1252",
            "cp1250",
            "cp1251",
            "cp1253",
            "cp1254",
            "cp1255",
            "cp1256",
            "cp850",
            "cp866",
            "iso8859_2",
            "koi8_r",
            "mac_roman",
            "mac_cyrillic",
            "shift_jis",
            "euc_jp",
            "euc_kr",
            "gbk",
            "big5",
        ]
        | None
    ]
    sheet: NotRequired[str | None]
    columns: NotRequired[Sequence[str] | None]
    exclude: NotRequired[Sequence[str]]
    types: NotRequired[Mapping[str, str]]
    na_values: NotRequired[Sequence[str]]
    drop_rows: NotRequired[Sequence[str]]
    merge_levels: NotRequired[Sequence[str]]
    decimal: NotRequired[Literal[".", ","] | None]
    thousands: NotRequired[Literal[",", ".", "'", " "] | None]
    datetime_format: NotRequired[str | None]
    max_levels: NotRequired[int]
    missing: NotRequired[Literal["keep", "error", "drop"]]
    constant: NotRequired[Literal["error", "drop", "keep"]]


class VariationalOptimisation(TypedDict):
    """Options of the optimisation; absent and null options get values that suit the target."""

    optimiser: NotRequired[Literal["adam", "adamw", "adagrad", "sgd"]]
    learning_rate: NotRequired[float | None]
    max_gradient_norm: NotRequired[float | Literal["none"] | None]
    max_seconds: NotRequired[float | None]
    seed: NotRequired[int | None]
    schedule: NotRequired[Literal["constant", "cosine"]]
    batch_size: NotRequired[int | None]
    iterations: NotRequired[int | None]
    report_every: NotRequired[int | None]
    annealing: NotRequired[int | None]
    patience: NotRequired[int | None]


class VariationalOptions(TypedDict):
    """Options of a request, as of `VariationalRequest`.

    Attributes:
        priority: Priority among waiting jobs of the project: higher ones are taken first.
        resources: Resources that the job needs from its worker.
        description: Description of the job.
        tags: Values of the job's tags by name.
        flow: Family of the flow and its fields; null for one that suits the target.
        optimisation: Options of the optimisation; absent and null options suit the target.
    """

    priority: NotRequired[int]
    resources: NotRequired[Resources]
    description: NotRequired[str | None]
    tags: NotRequired[Mapping[str, str]]
    flow: NotRequired[
        GaussianSpec
        | GaussianMixtureSpec
        | MadeSpec
        | MafSpec
        | IafSpec
        | RealNvpSpec
        | NiceSpec
        | HafSpec
        | PlanarSpec
        | RadialSpec
        | SylvesterSpec
        | NsfSpec
        | NafSpec
        | None
    ]
    optimisation: NotRequired[VariationalOptimisation]


class Window(TypedDict):
    """Box with an interval for each coordinate."""

    lower: Sequence[float]
    upper: Sequence[float]


class Choices(TypedDict):
    """Values to choose from, all with the same probability."""

    values: Sequence[
        bool
        | int
        | float
        | str
        | Sequence[int]
        | GaussianSpec
        | GaussianMixtureSpec
        | MadeSpec
        | MafSpec
        | IafSpec
        | RealNvpSpec
        | NiceSpec
        | HafSpec
        | PlanarSpec
        | RadialSpec
        | SylvesterSpec
        | NsfSpec
        | NafSpec
        | BatchNormSpec
        | EncoderSpec
        | None
    ]


class DensityTarget(TypedDict):
    """Formula of a log density, up to a constant."""

    log_density: str
    dim: int
    window: NotRequired[Window | None]


FlowOptions: TypeAlias = (
    GaussianSpec
    | GaussianMixtureSpec
    | MadeSpec
    | MafSpec
    | IafSpec
    | RealNvpSpec
    | NiceSpec
    | HafSpec
    | PlanarSpec
    | RadialSpec
    | SylvesterSpec
    | NsfSpec
    | NafSpec
    | AutoFlow
    | None
)


class ImputationOptions(TypedDict):
    """Options of a request, as of `ImputationRequest`.

    Attributes:
        priority: Priority among waiting jobs of the project: higher ones are taken first.
        resources: Resources that the job needs from its worker.
        description: Description of the job.
        tags: Values of the job's tags by name.
        given: Columns of the model that are known where their cells are; the others are filled in every row.
        fill: What a gap gets: the `mean` or the `median` of a number, with the likeliest category, or a `draw` of all gaps of a row together, for multiple imputation by several seeds.
        level: Probability of intervals, which are written as `low.NAME` and `high.NAME`; null: none.
        seed: Seed; the same seed gives the same cells.
        output: Format of the result.
    """

    priority: NotRequired[int]
    resources: NotRequired[Resources]
    description: NotRequired[str | None]
    tags: NotRequired[Mapping[str, str]]
    given: NotRequired[Sequence[str] | None]
    fill: NotRequired[Literal["mean", "median", "draw"]]
    level: NotRequired[float | None]
    seed: NotRequired[int]
    output: NotRequired[Literal["parquet", "csv", "npy"]]


class Optimisation(TypedDict):
    """Options of the training; absent and null options get values that suit the data."""

    optimiser: NotRequired[Literal["adam", "adamw", "adagrad", "sgd"]]
    learning_rate: NotRequired[float | None]
    max_gradient_norm: NotRequired[float | Literal["none"] | None]
    max_seconds: NotRequired[float | None]
    seed: NotRequired[int | None]
    weight_decay: NotRequired[float]
    batch_size: NotRequired[int | None]
    max_epochs: NotRequired[int | None]
    patience: NotRequired[int | None]
    schedule: NotRequired[Literal["constant", "cosine"] | StepSchedule]
    robust: NotRequired[bool]
    weight_average: NotRequired[float | None]
    mixed_precision: NotRequired[bool]


Range: TypeAlias = Choices | Interval


class SweepOptions(TypedDict):
    """Options of a request, as of `SweepRequest`.

    Attributes:
        priority: Priority among waiting jobs of the project: higher ones are taken first.
        resources: Resources that the job needs from its worker.
        description: Description of the job.
        tags: Values of the job's tags by name.
        columns: Columns to model, in this order; null for all except the context columns.
        context_columns: Columns that the density is conditioned on: p(columns | context columns).
        split: Split of the rows into training, validation and test rows.
        preprocessing: Preprocessing layers between the data and the flow.
        flow: Family of the flow and its fields, or `"auto"` for a search.
        quality: Trade-off of time and quality: `fast` takes a quarter of the epochs, `best` four times as many; a search then also tries more flows.
        discrete: Network of the probabilities of categories, missing values and single values.
        missing: Cells that may be missing in rows to score: `observed`, those of the columns that lacked some in training; `any`, all: cells are hidden at random in training, so that rows that lack any have densities, and `explain` says which column makes a row unlikely.
        optimisation: Options of the training; absent and null options suit the data.
        method: Points of a scrambled Sobol sequence, which fill the ranges evenly, or random ones.
        trials: Number of points; equal ones are tried once.
        reduction: Successive halving: each stage divides the number of trials by this factor, keeps the best, and multiplies their epochs by it.
        ensemble: Maximum number of flows whose probabilities are averaged; 1 for the best flow alone.
        seed: Seed of the points; null lets the server choose one.
    """

    priority: NotRequired[int]
    resources: NotRequired[Resources]
    description: NotRequired[str | None]
    tags: NotRequired[Mapping[str, str]]
    columns: NotRequired[Sequence[str] | None]
    context_columns: NotRequired[Sequence[str]]
    split: NotRequired[Split]
    preprocessing: NotRequired[Preprocessing]
    flow: NotRequired[FlowOptions | Literal["auto"]]
    quality: NotRequired[Literal["fast", "balanced", "best"]]
    discrete: NotRequired[DiscreteOptions]
    missing: NotRequired[Literal["observed", "any"]]
    optimisation: NotRequired[Optimisation]
    method: NotRequired[Literal["sobol", "random"]]
    trials: NotRequired[int]
    reduction: NotRequired[int]
    ensemble: NotRequired[int]
    seed: NotRequired[int | None]


Target: TypeAlias = PotentialTarget | DensityTarget | PosteriorTarget | LatentTarget


class TrainingOptions(TypedDict):
    """Options of a request, as of `TrainingRequest`.

    Attributes:
        priority: Priority among waiting jobs of the project: higher ones are taken first.
        resources: Resources that the job needs from its worker.
        description: Description of the job.
        tags: Values of the job's tags by name.
        columns: Columns to model, in this order; null for all except the context columns.
        context_columns: Columns that the density is conditioned on: p(columns | context columns).
        split: Split of the rows into training, validation and test rows.
        preprocessing: Preprocessing layers between the data and the flow.
        flow: Family of the flow and its fields, or `"auto"` for a search.
        quality: Trade-off of time and quality: `fast` takes a quarter of the epochs, `best` four times as many; a search then also tries more flows.
        discrete: Network of the probabilities of categories, missing values and single values.
        missing: Cells that may be missing in rows to score: `observed`, those of the columns that lacked some in training; `any`, all: cells are hidden at random in training, so that rows that lack any have densities, and `explain` says which column makes a row unlikely.
        optimisation: Options of the training; absent and null options suit the data.
    """

    priority: NotRequired[int]
    resources: NotRequired[Resources]
    description: NotRequired[str | None]
    tags: NotRequired[Mapping[str, str]]
    columns: NotRequired[Sequence[str] | None]
    context_columns: NotRequired[Sequence[str]]
    split: NotRequired[Split]
    preprocessing: NotRequired[Preprocessing]
    flow: NotRequired[FlowOptions | Literal["auto"]]
    quality: NotRequired[Literal["fast", "balanced", "best"]]
    discrete: NotRequired[DiscreteOptions]
    missing: NotRequired[Literal["observed", "any"]]
    optimisation: NotRequired[Optimisation]
