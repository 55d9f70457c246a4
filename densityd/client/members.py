"""Members of responses as typed dictionaries: what they may have, by the kind of job or model.

They are what the service sent, with members that a newer one adds. Likelihoods are in nats per row, in
the data's own units; times are in seconds.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from densityd.client.options import (
    BatchNormOptions,
    ColumnOptions,
    EncoderOptions,
    FlowOptions,
    JobState,
    Logit,
    Output,
    StepSchedule,
)


class KlWindow(TypedDict):
    """A box: its lower and its upper corner."""

    lower: list[float]
    upper: list[float]


class TrialRow(TypedDict, total=False):
    """A training that a search or a sweep has tried."""

    stage: int
    trial: int
    family: str
    values: dict[str, Any]
    job_id: str
    state: JobState
    epochs: int | None
    seconds: float | None
    robust_validation_log_likelihood: float | None
    validation_log_likelihood: float | None


class Metrics(TypedDict, total=False):
    """The metrics of a job or a version.

    A training has those of its last epoch, once it has succeeded also those of the model; a search
    its `trials`; an ensemble its `members` and `weights`; variational inference the ELBO, the
    evidence and the quality of the approximation; a job about rows their number.
    """

    epoch: int
    epochs: int
    train_log_likelihood: float | None
    train_standard_error: float | None
    train_rows: int
    validation_log_likelihood: float | None
    validation_standard_error: float | None
    validation_rows: int
    test_log_likelihood: float | None
    test_standard_error: float | None
    test_rows: int
    robust_validation_log_likelihood: float | None
    best_epoch: int
    best_validation_log_likelihood: float | None
    best_robust_validation_log_likelihood: float | None
    rows_per_second: float
    seconds: float
    restarts: int
    stop_reason: (
        Literal["patience", "max_epochs", "max_seconds", "max_iterations", "converged"] | None
    )
    gain_over_gaussian: float | None
    gain_over_mixture: float | None
    still_rising: bool
    column_distances: dict[str, float]
    summary: list[str]

    trials: list[TrialRow]
    members: list[int]
    weights: list[float]

    iteration: int
    iterations: int
    elbo: float
    elbo_standard_error: float
    skipped: int
    best_iteration: int
    best_elbo: float
    samples_per_second: float
    samples: int
    judged_rows: int
    log_evidence: float
    log_evidence_standard_error: float
    effective_sample_size: float
    pareto_k: float | None
    verdict: Literal["good", "ok", "unreliable"]
    explanation: str
    kl: float | None
    kl_window: KlWindow
    mass_inside: float
    log_evidence_inside: float | None
    exact_log_evidence: float | None

    rows: int
    part: int
    non_finite: int
    mean_log_prob: float | None
    explained: dict[str, Literal["exact", "learnt", "unavailable"]]
    usual: dict[str, float | None]


class EventData(Metrics, total=False):
    """The data of an event: a new state, metrics of an epoch, the end of a child, or a text."""

    state: JobState
    attempt: int
    text: str
    job_id: str
    stage: int
    number: int
    error: str
    metrics: Metrics


class ColumnFields(TypedDict, total=False):
    """The type of a column of a version, and what reading and writing its cells takes."""

    name: str
    type: str
    levels: list[str | bool | float]
    other: bool
    missing: bool
    spikes: list[float]
    decimals: int | None
    na_values: list[str]
    decimal: str
    thousands: str
    unit: str
    first_year: int | None
    datetime_format: str | None
    date_only: bool
    step_s: int
    transform: str
    low: float | None
    high: float | None


class MixedColumnFields(TypedDict, total=False):
    """The kind of a column of mixed rows."""

    levels: int
    values: list[float]
    missing: bool
    spikes: list[float]
    transform: str
    low: float | None
    high: float | None
    step: float
    noise: float


class FlowFields(TypedDict, total=False):
    """The spec of a flow; which fields it has follows from its `family`."""

    family: str
    activation: str
    base: str
    batch_norm: BatchNormOptions | None
    bins: int
    closed: str
    columns: list[MixedColumnFields]
    components: int | None
    conditional: str
    context: list[MixedColumnFields]
    coupling: bool
    covariance: str
    direct: bool
    encoder: EncoderOptions | None
    flow: FlowOptions | None
    hidden: list[int]
    layers: int
    likelihood: str
    linear: bool
    log_scale_bound: float | None
    mask_weights: bool
    masks: int
    members: list[Mapping[str, Any]]
    missing: str
    order: str
    regularisation: float
    affine_layers: int
    rows: int
    separate_networks: bool
    tail_bound: float
    tails: bool
    transformer: str
    units: int | None
    weights: list[float]


class PreprocessingFields(TypedDict, total=False):
    """The layers between the data and a flow."""

    standardise: bool
    dequantise: Mapping[str, int] | Literal["auto"] | None
    logit: Logit | None
    columns: Mapping[str, ColumnOptions]


class TargetFields(TypedDict, total=False):
    """The target of variational inference: a potential, formula, regression or latent variables."""

    potential: str
    log_density: str
    dim: int
    window: KlWindow | None
    posterior: Mapping[str, Any]
    latent: Mapping[str, Any]


class AcceptedSplit(TypedDict, total=False):
    """The split of the rows as it is carried out."""

    train: float
    validation: float
    test: float
    shuffle: bool
    seed: int
    validation_dataset_id: str | None
    test_dataset_id: str | None


class AcceptedOptimisation(TypedDict, total=False):
    """The options of an optimisation, each with its value."""

    optimiser: str
    learning_rate: float
    weight_decay: float
    max_gradient_norm: float | None
    batch_size: int
    max_epochs: int
    patience: int | None
    max_seconds: float | None
    schedule: str | StepSchedule
    row_loss_bound: float | None
    weight_average: float | None
    noise: str
    restarts: int
    mixed_precision: bool
    iterations: int
    report_every: int
    annealing: int
    seed: int


class AcceptedRequest(TypedDict, total=False):
    """The accepted request of a job; which members it has follows from the kind of the job."""

    model_name: str
    dataset_id: str
    columns: list[str]
    context_columns: list[str]
    types: list[ColumnFields] | None
    split: AcceptedSplit
    preprocessing: PreprocessingFields
    flow: FlowFields
    optimisation: AcceptedOptimisation

    trials: list[Mapping[str, Any]]
    stages: list[Mapping[str, float]]
    points: list[Mapping[str, Any]] | None
    ensemble: int
    max_seconds: float | None
    mixed: FlowFields | None

    target: TargetFields

    model: str
    output: Output
    include_rows: bool
    parts: bool
    explain: bool
    n: int
    seed: int
    context: list[list[float | str | bool | None]] | None
    total_rows: int
    part_rows: int


class ReportedModel(TypedDict):
    """The model of a job that was reported to a webhook."""

    name: str | None
    version: int | None


class ReportedObject(TypedDict, total=False):
    """The object of a delivery: a job that has ended, or the webhook itself in a test."""

    id: str
    url: str
    kind: str
    state: JobState
    attempt: int
    model: ReportedModel
    error: Mapping[str, str | None] | None
    tags: dict[str, str]
