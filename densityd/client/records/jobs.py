"""Jobs, their events and results, and previews of targets."""

from datetime import datetime
from typing import Annotated

from densityd.client.members import (
    AcceptedRequest,
    EventData,
    Metrics,
)
from densityd.client.options import JobState, Resources
from densityd.client.records.record import AS_CAME, Record


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
    metrics: Annotated[Metrics, AS_CAME] | None
    model: JobModel
    cancel_requested: bool
    error: JobError | None
    dataset_id: str | None = None
    role: str | None = None
    parent_id: str | None = None
    priority: int = 0
    resources: Annotated[Resources, AS_CAME] = {}
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


class QueuePlace(Record):
    """The place of a job that waits, among those of all projects, and about when a worker takes it."""

    position: int
    starts_in_seconds: float | None


class Job(JobSummary):
    """A job."""

    request: Annotated[AcceptedRequest, AS_CAME]
    queue: QueuePlace | None = None


class Event(Record):
    """An event of a job; `id` counts from 1, without gaps.

    The members of `data` follow from `event`: `state`, `epoch`, `child`, `message` or `end`.
    """

    id: int
    event: str
    data: Annotated[EventData, AS_CAME]


class EventPage(Record):
    """Events, oldest first."""

    items: list[Event]
    next_after: int
    ended: bool


class PlaneWindow(Record):
    """Box in the plane: the lower and the upper corner."""

    lower: list[float]
    upper: list[float]


class TargetPreview(Record):
    """Log density of a target on a grid; `log_density` has a row for each value of the second coordinate."""

    window: PlaneWindow
    log_density: list[list[float | None]]
