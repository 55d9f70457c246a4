"""What the service answers, as objects; fields that a newer service adds are kept as they come."""

from datetime import datetime
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from densityd.client.call import Answer, json_of
from densityd.client.errors import UnexpectedAnswerError


class Record(BaseModel):
    """Anything that the service tells about."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Read an answer.

        Raises:
            UnexpectedAnswerError: it is none of these.
        """
        return cls.read(json_of(answer.content))

    @classmethod
    def read(cls, content: object) -> Self:
        """Read parsed JSON; raises as `of`."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            name, first = cls.__name__, error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise UnexpectedAnswerError(
                f"the answer is no {name}: {place}: {first['msg']}; is this a densityd?"
            ) from error


class Column(Record):
    """A column of a dataset; `distinct` is None for more than 1000 values."""

    name: str
    dtype: str
    mean: float
    std: float
    min: float
    max: float
    distinct: int | None


class TableWarning(Record):
    """Something to know about a dataset that was accepted."""

    code: str
    column: str | None
    detail: str


class DatasetSummary(Record):
    """A table that was uploaded, as lists have it: without its columns."""

    id: str
    name: str | None
    rows: int
    column_count: int
    bytes: int
    sha256: str
    created_at: datetime


class Dataset(DatasetSummary):
    """A table that was uploaded."""

    columns: list[Column]
    warnings: list[TableWarning]


class Progress(Record):
    """How far a job is."""

    epoch: int | None = None
    max_epochs: int | None = None
    iteration: int | None = None
    max_iterations: int | None = None
    rows: int | None = None
    total_rows: int | None = None
    fraction: float
    eta_seconds: float | None = None


class JobModel(Record):
    """The model that a job makes; it has a version once the job has succeeded."""

    name: str | None
    version: int | None


class JobResult(Record):
    """The file that a scoring or a sampling made."""

    url: str
    media_type: str
    bytes: int
    sha256: str
    rows: int


class JobError(Record):
    """Why a job failed."""

    code: str
    detail: str


class JobSummary(Record):
    """A job, as lists have it: without its request."""

    id: str
    kind: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    next_attempt_at: datetime | None = None
    progress: Progress | None
    metrics: dict[str, Any] | None
    model: JobModel
    dispatch: str
    cancel_requested: bool
    error: JobError | None
    dataset_id: str | None = None
    result: JobResult | None = None

    @property
    def final(self) -> bool:
        """Whether it has ended; one that failed or was cancelled can be resumed."""
        return self.state in ("succeeded", "failed", "cancelled")

    @property
    def ref(self) -> str | None:
        """What its model is called when it is asked: `name:version`; None until there is one."""
        if self.model.version is None:
            return None
        return f"{self.model.name}:{self.model.version}"


class Job(JobSummary):
    """A job."""

    request: dict[str, Any]


class Event(Record):
    """Something that happened to a job; `id` counts from 1, without gaps."""

    id: int
    event: str
    data: dict[str, Any]


class EventPage(Record):
    """Events, oldest first."""

    items: list[Event]
    next_after: int
    ended: bool


class Model(Record):
    """A model: a name, its versions and where its aliases point."""

    name: str
    latest_version: int
    aliases: dict[str, int]
    created_at: datetime


class Lineage(Record):
    """What a version was made from."""

    job_id: str | None
    dataset_id: str | None
    dataset_sha256: str | None
    code_version: str
    seed: int | None


class Checkpoint(Record):
    """The file that holds a version's weights."""

    sha256: str
    bytes: int


class VersionSummary(Record):
    """One version of a model, as lists have it: without its columns and its spec."""

    name: str
    version: int
    family: str
    dim: int
    parameters: int
    metrics: dict[str, Any]
    lineage: Lineage
    checkpoint: Checkpoint
    aliases: list[str]
    created_at: datetime


class Version(VersionSummary):
    """One version of a model; it never changes, only the aliases that point at it do."""

    columns: list[str]
    context_columns: list[str] = []
    flow: dict[str, Any]
    preprocessing: dict[str, Any]


class Alias(Record):
    """Where an alias points; `etag` makes a later move conditional."""

    name: str
    alias: str
    version: int
    etag: str | None = None


_Item = TypeVar("_Item")


class Page(Record, Generic[_Item]):
    """Some of a list, newest first; `next_cursor` leads to the rest, None: there is none."""

    items: list[_Item]
    next_cursor: str | None
