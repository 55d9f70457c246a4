"""Kinds, states and transitions of jobs, as plain values."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NotRequired, TypedDict

from models_store.records import Record


class JobKind(StrEnum):
    """Kind of a job."""

    TRAINING = "training"
    VARIATIONAL = "variational"
    SCORING = "scoring"
    SAMPLING = "sampling"

    @property
    def makes_version(self) -> bool:
        """Return whether the job makes a version of a model; others use one and make a file."""
        return self in (JobKind.TRAINING, JobKind.VARIATIONAL)


class JobState(StrEnum):
    """State of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class EventKind(StrEnum):
    """Kind of an event."""

    STATE = "state"
    EPOCH = "epoch"
    MESSAGE = "message"
    END = "end"


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
    # Back to the queue: the lease was released, or it ran out.
    JobState.RUNNING: frozenset(
        {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}
    ),
    JobState.SUCCEEDED: frozenset(),
    # Back to the queue: somebody resumed it.
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}
"""Every allowed change of state; there is no other."""

FINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
"""States that no worker leaves."""

RESUMABLE_STATES = frozenset({JobState.FAILED, JobState.CANCELLED})
"""States that a caller may bring a job back from."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job as a caller asks for it.

    Attributes:
        project: whose it is.
        kind: what it does.
        model_name: the model that gets a version when it succeeds, or that it uses.
        model_version: the version that it uses.
        dataset_id: the dataset that it reads; it must exist in the project.
        held_out_ids: further datasets that it reads, for validation and test.
        request: the accepted request, defaults filled in; a JSON object.
        request_id: the id of the HTTP request, for the logs of the worker.
        traceparent: the W3C trace context of the HTTP request.
        reserved_bytes: the most that it may come to store beside its request; counts in the quota
            until it has ended.
    """

    project: str
    kind: JobKind
    model_name: str
    dataset_id: str | None
    request: dict[str, Any]
    model_version: int | None = None
    held_out_ids: tuple[str, ...] = ()
    request_id: str | None = None
    traceparent: str | None = None
    reserved_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """A caller's key for one request, and a hash of that request."""

    key: str
    fingerprint: str

    @classmethod
    def of(cls, key: str, *request: str) -> "Idempotency":
        """Hash what tells a request from others."""
        return cls(key=key, fingerprint=hashlib.sha256("\n".join(request).encode()).hexdigest())


class JobError(TypedDict):
    """Why a job failed: a stable code and one sentence."""

    code: str
    detail: str


class Checkpoint(TypedDict):
    """A durable state of a job, in the blob store; ``epoch`` may count iterations or parts.

    ``step`` orders all checkpoints of a job, those within an epoch among them: steps of the
    optimiser, or rows. ``bytes`` are those of its file, and of the parts that it lists. Each is
    missing in those from before it was kept.
    """

    key: str
    sha256: str
    epoch: int
    step: NotRequired[int]
    bytes: NotRequired[int]


class JobResult(TypedDict):
    """The file that a bulk job made, in the blob store.

    ``columns`` are missing in those that were made before they were kept.
    """

    key: str
    sha256: str
    bytes: int
    rows: int
    media_type: str
    columns: NotRequired[list[str]]


@dataclass(frozen=True, kw_only=True)
class JobSummary(Record):
    """A job as it stands, without what may be large.

    Attributes:
        attempt: how many times it was claimed; the fencing token of the present attempt.
        model_version: the version that it uses, or made, once it succeeded.
        result: the file that it made, once it succeeded.
        dispatched: whether a hint was sent to the queue since it was last queued.
        last_event: number of its newest event.
        lease_expires_at: when another worker may take it, by the database's clock.
        not_before: moment until which no worker takes it, after a failed attempt; by the
            database's clock.
        run_seconds: time that ended attempts ran for, since it was submitted or resumed.
    """

    id: str
    project: str
    kind: JobKind
    state: JobState
    attempt: int
    model_name: str
    model_version: int | None
    dataset_id: str | None
    progress: dict[str, Any] | None
    metrics: dict[str, Any] | None
    result: JobResult | None
    error: JobError | None
    cancel_requested: bool
    dispatched: bool
    last_event: int
    request_id: str | None
    traceparent: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    lease_expires_at: datetime | None
    not_before: datetime | None
    run_seconds: float

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL_STATES


@dataclass(frozen=True, kw_only=True)
class Job(JobSummary):
    """A job as it stands.

    Attributes:
        request: as accepted.
        checkpoints: the newest two, newest first.
    """

    request: dict[str, Any]
    checkpoints: list[Checkpoint]


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """The job of a request; when the request is a replay, the job as it was first accepted."""

    job: Job
    replayed: bool


@dataclass(frozen=True, kw_only=True)
class JobEvent(Record):
    """Something that happened to a job; ``seq`` counts from 1 without gaps."""

    seq: int
    event: EventKind
    data: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class EventSlice:
    """Some events of a job in a row.

    Args:
        events: oldest first.
        more: there are some after them.
        final: the job has ended.
    """

    events: list[JobEvent]
    more: bool
    final: bool

    @property
    def ended(self) -> bool:
        """True if nothing will come after them."""
        return self.final and not self.more


@dataclass(frozen=True)
class EventPlace:
    """Position of the events of a job.

    Args:
        last: the number of the newest one.
        final: whether the job has ended.
    """

    last: int
    final: bool
