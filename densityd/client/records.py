"""Responses of the service; members that a newer one adds are kept."""
# Generated from the OpenAPI document by tools/client_schema.py; do not edit.

from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from densityd.client.record import (
    AliasRecord,
    DatasetRecord,
    JobRecord,
    ReasonRecord,
    Record,
    UnusualRecord,
    VersionRecord,
)


class AliasChange(Record):
    """Move or deletion of an alias."""

    alias: str
    version: int | None
    reason: str | None
    created_at: AwareDatetime


class Alias(AliasRecord):
    """Alias and the version that it points at."""

    name: str
    alias: str
    version: int


class AuditRecord(Record):
    """Request that changed something."""

    time: AwareDatetime
    key_id: str | None
    action: str
    resource: str
    request_id: str


class Checkpoint(Record):
    """File of the weights of a version."""

    sha256: str
    bytes: int


class ColumnDrift(Record):
    """Distance of the values of one column from those of the version's dataset."""

    statistic: float
    p_value: float
    drifted: bool
    column: str
    counts: list[int]
    expected: list[float]


class ComputedRows(Record):
    """Rows scored, mapped or sampled for requests; those of jobs are not counted."""

    today: int
    last_30_days: int


class DatasetSummary(Record):
    """Dataset in a list, without its columns and their statistics."""

    id: str
    name: str | None
    rows: int
    column_count: int
    bytes: int
    sha256: str
    description: str | None
    tags: dict[str, str]
    created_at: AwareDatetime


class Delivery(Record):
    """Delivery of an event to a webhook."""

    id: str
    event: str
    data: dict[str, Any]
    attempts: int
    due_at: AwareDatetime
    ended_at: AwareDatetime | None
    delivered: bool
    status: int | None
    error: str | None
    created_at: AwareDatetime


class Drift(Record):
    """Distance of counted rows from those that a version was made of."""

    statistic: float
    p_value: float
    drifted: bool


class Event(Record):
    """Event of a job."""

    id: int
    created_at: AwareDatetime | None = None
    event: str
    data: dict[str, Any]


class EventPage(Record):
    """Page of events, oldest first."""

    items: list[Event]
    next_after: int
    ended: bool


class Fact(Record):
    """Fact behind a verdict."""

    name: str
    good: bool | None
    text: str
    value: float | None
    standard_error: float | None


class HeldOutRows(Record):
    """Rows that ranks are among."""

    rows: int
    part: str


class HeldOut(Record):
    """Log densities of rows that a version was not trained on."""

    rows: int
    part: str
    quantiles: dict[str, float]
    standard_errors: dict[str, float]


class JobError(Record):
    """Reason why a job failed."""

    code: str
    detail: str


class JobModel(Record):
    """Model that a job trains or uses."""

    name: str | None
    version: int | None


class JobResult(Record):
    """Result file of a scoring, sampling or imputation job."""

    url: str
    media_type: str
    bytes: int
    sha256: str
    rows: int


class Key(Record):
    """API key without its secret."""

    id: str
    project: str
    label: str | None
    scope: str
    state: str
    rate: float | None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    revoked_at: AwareDatetime | None
    last_used_at: AwareDatetime | None


class Latest(Record):
    """Newest version of a model, in short."""

    version: int
    family: str
    dim: int
    metrics: dict[str, Any]
    created_at: AwareDatetime


class Limits(Record):
    """Limits of the caller; null where there is none."""

    requests_per_second: float | None
    open_requests: int
    event_streams: int
    uploads: int
    queued_jobs: int
    stored_bytes: int


class LineageSummary(Record):
    """Origin of a version, without its target."""

    job_id: str | None
    dataset_id: str | None
    dataset_sha256: str | None
    code_version: str
    seed: int | None


class Lineage(Record):
    """Origin of a version."""

    job_id: str | None
    dataset_id: str | None
    dataset_sha256: str | None
    code_version: str
    seed: int | None
    target: dict[str, Any] | None


class Me(Record):
    """Caller of the request."""

    project: str
    scope: str
    person: str | None
    key: Key | None
    limits: Limits


class Model(Record):
    """Model: a name with versions and aliases."""

    name: str
    latest_version: int
    latest: Latest
    aliases: dict[str, int]
    description: str | None
    tags: dict[str, str]
    created_at: AwareDatetime


class NewKey(Record):
    """New API key with its token, which is shown once."""

    id: str
    project: str
    label: str | None
    scope: str
    state: str
    rate: float | None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    revoked_at: AwareDatetime | None
    last_used_at: AwareDatetime | None
    token: str


class Period(Record):
    """Time that a table covers."""

    column: str
    first: str | int | float | bool | None
    last: str | int | float | bool | None
    months: float


class Progress(Record):
    """Progress of a job."""

    fraction: float
    eta_seconds: float | None
    epoch: int | None = None
    max_epochs: int | None = None
    iteration: int | None = None
    max_iterations: int | None = None
    rows: int | None = None
    total_rows: int | None = None
    stage: int | None = None
    stages: int | None = None
    children_ended: int | None = None
    children: int | None = None


class Project(Record):
    """Project of the service."""

    max_bytes: int | None = None
    max_queued_jobs: int | None = None
    name: str
    stored_bytes: int
    keys: int


class Queue(Record):
    """Place of a job in the queue."""

    position: int
    starts_in_seconds: float | None


class Quota(Record):
    """Use of a limited resource."""

    used: int
    limit: int


class RankBucket(Record):
    """Counts of an hour or a day."""

    rows: int
    ranks: list[int]
    unusual: int
    reasons: dict[str, int]
    drift: Drift | None
    start: AwareDatetime
    drifted_columns: list[str]


class Remedy(Record):
    """Option of an upload that ends what a warning is about."""

    option: str
    value: bool | str | list[str] | dict[str, str] | None
    label: str


class Repetition(Record):
    """Repetition of the numbers of a column, from which the noise of a training follows."""

    values: int
    shared: int
    step: float
    gap: float
    tied: list[str]
    listed: list[float]


class Review(Record):
    """Review of a row of a model."""

    name: str
    digest: str
    review: str
    created_at: AwareDatetime


class SecretWebhook(Record):
    """Webhook with its secret, which is shown once."""

    id: str
    url: str
    events: list[str]
    description: str | None
    created_at: AwareDatetime
    disabled_at: AwareDatetime | None
    secret: str


class Threshold(Record):
    """Number of rows at or below a rank."""

    rank: float
    rows: int
    per_month: float | None


class TrainingEstimate(Record):
    """What a training would take."""

    seconds: float
    trainings: int
    queued: int
    memory_bytes: int


class Usage(Record):
    """Storage and requests of the project; the numbers are up to 15 seconds old."""

    project: str
    stored_bytes: Quota
    queued_jobs: Quota
    datasets: int
    models: int
    versions: int
    jobs: dict[str, int]
    computed_rows: ComputedRows


class UsualValues(Record):
    """Values that are usual for a cell."""

    low: str | int | float | bool | None
    high: str | int | float | bool | None


class Verdict(Record):
    """Verdict on a version."""

    level: str
    sentence: str
    facts: list[Fact]


class VersionComparison(Record):
    """Comparison of two versions on the same rows."""

    model: str
    with_: Annotated[str, Field(alias="with")]
    better: str | None
    sure: bool
    difference: float
    standard_error: float
    rows: int
    dataset_id: str
    unseen: bool
    sentence: str


class VersionInfo(Record):
    """Version of the service."""

    version: str
    api: str


class VersionSummary(VersionRecord):
    """Version in a list, without its target and quantiles; columns and spec only if they are asked for."""

    name: str
    version: int
    family: str
    dim: int
    parameters: int
    metrics: dict[str, Any]
    verdict: Verdict | None
    checkpoint: Checkpoint
    aliases: list[str]
    description: str | None
    tags: dict[str, str]
    created_at: AwareDatetime
    lineage: LineageSummary
    columns: list[str] | None = None
    context_columns: list[str] | None = None
    flow: dict[str, Any] | None = None
    preprocessing: dict[str, Any] | None = None


class Version(VersionRecord):
    """Version of a model. It never changes, except for its labels and the aliases that point at it."""

    name: str
    version: int
    family: str
    dim: int
    parameters: int
    metrics: dict[str, Any]
    verdict: Verdict | None
    checkpoint: Checkpoint
    aliases: list[str]
    description: str | None
    tags: dict[str, str]
    created_at: AwareDatetime
    columns: list[str]
    context_columns: list[str]
    types: list[dict[str, Any]] | None
    flow: dict[str, Any]
    preprocessing: dict[str, Any]
    held_out: HeldOut | None
    lineage: Lineage


class TableWarning(Record):
    """Warning about a dataset that was accepted."""

    code: str
    column: str | None
    detail: str
    remedies: Annotated[list[Remedy], Field(validate_default=True)] = []


class Webhook(Record):
    """Webhook of the project."""

    id: str
    url: str
    events: list[str]
    description: str | None
    created_at: AwareDatetime
    disabled_at: AwareDatetime | None


class Window(Record):
    """Box with an interval for each coordinate."""

    lower: list[float]
    upper: list[float]


class Column(Record):
    """Column of a dataset: its type as a version has it, the reason for it, and statistics of its cells."""

    name: str
    type: str = "number"
    levels: list[str | bool | float] = []
    other: bool = False
    merged: bool = False
    missing: bool = False
    spikes: list[float] = []
    decimals: int | None = None
    na_values: list[str] = []
    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    datetime_format: str | None = None
    first_year: int | None = None
    date_only: bool = False
    step_s: int = 0
    transform: str = "none"
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    dtype: str
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    distinct: int | None
    missing_count: int = 0
    level_counts: list[int] = []
    spike_counts: list[int] = []
    quantiles: dict[str, float] = {}
    repetition: Repetition | None = None


class Dataset(DatasetRecord):
    """Dataset with its columns and warnings."""

    id: str
    name: str | None
    rows: int
    column_count: int
    bytes: int
    sha256: str
    description: str | None
    tags: dict[str, str]
    created_at: AwareDatetime
    columns: list[Column]
    warnings: list[TableWarning]
    options: dict[str, bool | int | str | list[str] | dict[str, str]] = {}


class JobSummary(JobRecord):
    """Job in a list, without its request."""

    id: str
    kind: str
    state: str
    attempt: int
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    next_attempt_at: AwareDatetime | None
    progress: Progress | None
    metrics: dict[str, Any] | None
    model: JobModel
    dataset_id: str | None
    role: str | None
    parent_id: str | None
    priority: int
    resources: dict[str, Any]
    result: JobResult | None
    cancel_requested: bool
    error: JobError | None
    description: str | None
    tags: dict[str, str]


class Job(JobRecord):
    """Job with its request."""

    id: str
    kind: str
    state: str
    attempt: int
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    next_attempt_at: AwareDatetime | None
    progress: Progress | None
    metrics: dict[str, Any] | None
    model: JobModel
    dataset_id: str | None
    role: str | None
    parent_id: str | None
    priority: int
    resources: dict[str, Any]
    result: JobResult | None
    cancel_requested: bool
    error: JobError | None
    description: str | None
    tags: dict[str, str]
    request: dict[str, Any]
    queue: Queue | None = None


class KeyList(Record):
    """All keys of the project, oldest first, with those that are expired or revoked."""

    items: list[Key]


class Monitoring(Record):
    """Counts of the rows that a version scored, and whether they are like those that it was made of."""

    rows: int
    ranks: list[int]
    unusual: int
    reasons: dict[str, int]
    drift: Drift | None
    model: str
    held_out: HeldOutRows
    since: AwareDatetime
    until: AwareDatetime
    expected: list[float]
    columns: list[ColumnDrift]
    buckets: list[RankBucket]


class Preview(Record):
    """What an upload would make of a file; nothing is stored."""

    format: str
    rows: int
    columns: list[Column]
    warnings: list[TableWarning]
    found: dict[str, str | bool]
    sheets: list[str]
    options: dict[str, bool | int | str | list[str] | dict[str, str]]
    first_rows: list[list[str | None]]
    last_rows: list[list[str | None]]


class ProjectList(Record):
    """All projects by name: those that were made, and those that own something."""

    items: list[Project]


class Reason(ReasonRecord):
    """Cell that makes a row unlikely."""

    column: str
    value: str | int | float | bool | None
    difference: float | None
    usual: UsualValues | None
    levels: list[str | int | float | bool | None] | None


class TargetPreview(Record):
    """Log density of a target on a square grid."""

    window: Window
    log_density: list[list[float | None]]


class UnusualRow(Record):
    """Row that is unlikely."""

    row: int
    held_out: bool | None
    rank: float | None
    log_prob: float | None
    cells: dict[str, str | int | float | bool | None]
    reasons: list[Reason]
    digest: str
    review: str | None


class Unusual(UnusualRecord):
    """The least likely rows of a table, and how many rows lie below each rank."""

    model: str
    dataset_id: str
    job_id: str | None
    columns: list[str]
    total_rows: int
    kept_rows: int
    held_out: HeldOutRows | None
    rows: list[UnusualRow]
    thresholds: list[Threshold]
    period: Period | None


class WebhookPage(Record):
    """All webhooks of the project, oldest first."""

    items: list[Webhook]


class ColumnPage(Record):
    """Some columns of a dataset."""

    items: list[Column]
    offset: int
    total: int
