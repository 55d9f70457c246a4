"""Responses of the service as objects; fields that a newer service adds are kept."""

from datetime import datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema, ValidationError

from densityd.client.call import Response, parse_json
from densityd.client.errors import UnexpectedAnswerError
from densityd.client.members import (
    AcceptedRequest,
    ColumnFields,
    EventData,
    FlowFields,
    Metrics,
    PreprocessingFields,
    ReportedObject,
    TargetFields,
)
from densityd.client.options import JobState, Resources

# Members are kept unchanged, whatever a newer service adds to them.
_AS_CAME = GetPydanticSchema(lambda _, handler: handler(dict[str, Any]))


class Record(BaseModel):
    """The base of all responses."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    @classmethod
    def of(cls, response: Response) -> Self:
        """Read a response.

        Raises:
            UnexpectedAnswerError: The response has another form.
        """
        return cls.read(parse_json(response.content))

    @classmethod
    def read(cls, content: object) -> Self:
        """Read parsed JSON; raises as `of`."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            name, first = cls.__name__, error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise UnexpectedAnswerError(
                f"the response is not a {name}: {place}: {first['msg']}; is this a densityd?"
            ) from error


class Column(Record):
    """A column of a dataset: its type and the reason for it, and its statistics.

    Statistics that its type does not have are None; `distinct` also for more than 1000 values.
    """

    name: str
    type: str = "number"
    levels: list[str | bool | float] = []
    other: bool = False
    missing: bool = False
    spikes: list[float] = []
    decimals: int | None = None
    na_values: list[str] = []
    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    number_format: str = ""
    datetime_format: str | None = None
    date_only: bool = False
    step_s: int = 0
    transform: str = "none"
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    dtype: str | None = None
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    distinct: int | None = None
    missing_count: int = 0
    level_counts: list[int] = []
    spike_counts: list[int] = []
    quantiles: dict[str, float] = {}


class TableWarning(Record):
    """A warning about an accepted dataset."""

    code: str
    column: str | None
    detail: str


class DatasetSummary(Record):
    """An uploaded table, without its columns."""

    id: str
    name: str | None
    rows: int
    column_count: int
    bytes: int
    sha256: str
    description: str | None = None
    tags: dict[str, str] = {}
    created_at: datetime


class Dataset(DatasetSummary):
    """An uploaded table; ``replayed`` if an earlier upload with the same key made it."""

    columns: list[Column]
    warnings: list[TableWarning]
    replayed: bool = Field(default=False, exclude=True)


class Progress(Record):
    """The progress of a job."""

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
    fraction: float
    eta_seconds: float | None = None


class JobModel(Record):
    """The model of a job; it has a version once the job has succeeded."""

    name: str | None
    version: int | None


class JobResult(Record):
    """The file of a scoring or sampling job."""

    url: str
    media_type: str
    bytes: int
    sha256: str
    rows: int


class JobError(Record):
    """The error of a failed job."""

    code: str
    detail: str


class JobSummary(Record):
    """A job, without its request."""

    id: str
    kind: str
    state: JobState
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    next_attempt_at: datetime | None = None
    progress: Progress | None
    metrics: Annotated[Metrics, _AS_CAME] | None
    model: JobModel
    dispatch: str
    cancel_requested: bool
    error: JobError | None
    dataset_id: str | None = None
    role: str | None = None
    parent_id: str | None = None
    priority: int = 0
    resources: Annotated[Resources, _AS_CAME] = {}
    result: JobResult | None = None
    description: str | None = None
    tags: dict[str, str] = {}

    @property
    def final(self) -> bool:
        """True once the job has ended; a failed or cancelled one can be resumed."""
        return self.state in ("succeeded", "failed", "cancelled")

    @property
    def ref(self) -> str | None:
        """The reference of its model, `name:version`; None until there is one."""
        if self.model.version is None:
            return None
        return f"{self.model.name}:{self.model.version}"


class Job(JobSummary):
    """A job."""

    request: Annotated[AcceptedRequest, _AS_CAME]


class Event(Record):
    """An event of a job; `id` counts from 1, without gaps.

    The members of `data` follow from `event`: `state`, `epoch`, `child`, `message` or `end`.
    """

    id: int
    event: str
    data: Annotated[EventData, _AS_CAME]


class PlaneWindow(Record):
    """Box in the plane: the lower and the upper corner."""

    lower: list[float]
    upper: list[float]


class TargetPreview(Record):
    """Log density of a target on a grid; `log_density` has a row for each value of the second coordinate."""

    window: PlaneWindow
    log_density: list[list[float | None]]


class ColumnPage(Record):
    """Some columns of a dataset; `total` is the number of all."""

    items: list[Column]
    offset: int
    total: int


class EventPage(Record):
    """Events, oldest first."""

    items: list[Event]
    next_after: int
    ended: bool


class Latest(Record):
    """The newest version of a model, in short."""

    version: int
    family: str
    dim: int
    metrics: Annotated[Metrics, _AS_CAME]
    created_at: datetime


class Model(Record):
    """A model: its name, its newest version, and the version of each alias."""

    name: str
    latest_version: int
    latest: Latest | None = None
    aliases: dict[str, int]
    description: str | None = None
    tags: dict[str, str] = {}
    created_at: datetime


class Lineage(Record):
    """The origin of a version."""

    job_id: str | None
    dataset_id: str | None
    dataset_sha256: str | None
    target: Annotated[TargetFields, _AS_CAME] | None = None
    code_version: str
    seed: int | None


class HeldOut(Record):
    """The log densities of rows that a version was not trained on, by the level of the quantile."""

    rows: int
    quantiles: dict[str, float]
    standard_errors: dict[str, float] = {}


class Checkpoint(Record):
    """The file of a version's weights."""

    sha256: str
    bytes: int


class VersionSummary(Record):
    """A version of a model, without its columns and its spec."""

    name: str
    version: int
    family: str
    dim: int
    parameters: int
    metrics: Annotated[Metrics, _AS_CAME]
    lineage: Lineage
    checkpoint: Checkpoint
    aliases: list[str]
    description: str | None = None
    tags: dict[str, str] = {}
    created_at: datetime

    @property
    def ref(self) -> str:
        """The reference that always means this version, `name:version`."""
        return f"{self.name}:{self.version}"


class Version(VersionSummary):
    """A version of a model; it never changes, only the aliases that point at it do."""

    columns: list[str]
    context_columns: list[str] = []
    types: list[Annotated[ColumnFields, _AS_CAME]] | None = None
    flow: Annotated[FlowFields, _AS_CAME]
    preprocessing: Annotated[PreprocessingFields, _AS_CAME]
    held_out: HeldOut | None = None


class Alias(Record):
    """An alias and its version; `etag` makes a later move conditional."""

    name: str
    alias: str
    version: int
    etag: str | None = None

    @property
    def ref(self) -> str:
        """The reference that follows the alias, `name@alias`."""
        return f"{self.name}@{self.alias}"


class AliasChange(Record):
    """A move of an alias, or its deletion, which has no version."""

    alias: str
    version: int | None
    reason: str | None
    created_at: datetime


class Webhook(Record):
    """A URL that is notified of events; it has its secret only when that is new."""

    id: str
    url: str
    events: list[str]
    description: str | None
    created_at: datetime
    disabled_at: datetime | None
    secret: str | None = None


class WebhookList(Record):
    """The webhooks of the project."""

    items: list[Webhook]


class Delivery(Record):
    """A delivery of an event to a webhook; `error` is why its last attempt failed."""

    id: str
    event: str
    data: Annotated[ReportedObject, _AS_CAME]
    attempts: int
    due_at: datetime
    ended_at: datetime | None
    delivered: bool
    status: int | None
    error: str | None
    created_at: datetime


class Key(Record):
    """An API key; it has its token only when it is new."""

    id: str
    project: str
    label: str | None
    scope: str
    state: str
    rate: float | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    token: str | None = None


class KeyList(Record):
    """The keys of the project."""

    items: list[Key]


class Limits(Record):
    """The limits of a caller; None: there is none."""

    requests_per_second: float | None
    open_requests: int
    event_streams: int
    uploads: int
    queued_jobs: int
    stored_bytes: int


class Me(Record):
    """The caller as the service sees it."""

    project: str
    scope: str
    key: Key | None
    limits: Limits


class ComputedRows(Record):
    """The rows that requests had scored, mapped or sampled."""

    today: int
    last_30_days: int


class Quota(Record):
    """The use of something that has a limit."""

    used: int
    limit: int


class Usage(Record):
    """The stored things of the project, and its use of the service."""

    project: str
    stored_bytes: Quota
    queued_jobs: Quota
    datasets: int
    models: int
    versions: int
    jobs: dict[str, int]
    computed_rows: ComputedRows


class ServiceVersion(Record):
    """The version of the service, and of its API."""

    version: str
    api: str


_Item = TypeVar("_Item")


class Page(Record, Generic[_Item]):
    """A page of a list, newest first; `next_cursor` is None on the last one."""

    items: list[_Item]
    next_cursor: str | None
