"""Kinds, states and transitions of jobs, as plain values."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NotRequired, TypedDict

from models_store.records import Record


class JobKind(StrEnum):
    """Kind of a job: the first two fit a flow, the next three make a file, `ensemble` joins flows."""

    TRAINING = "training"
    VARIATIONAL = "variational"
    SCORING = "scoring"
    SAMPLING = "sampling"
    IMPUTATION = "imputation"
    ENSEMBLE = "ensemble"

    @property
    def makes_version(self) -> bool:
        """Return whether the job makes a version of a model; others use one and make a file."""
        return self not in (JobKind.SCORING, JobKind.SAMPLING, JobKind.IMPUTATION)


class JobRole(StrEnum):
    """Part of a job in work that several share: a `parent` starts each `child` and joins what they make."""

    PARENT = "parent"
    """Work that its children do: no worker claims it."""
    CHILD = "child"
    """Part of the work of a parent, which any worker claims."""


class Accelerator(StrEnum):
    """Need of a job for an accelerator, such as a GPU."""

    NONE = "none"
    """Workers without one come first."""
    PREFERRED = "preferred"
    """Workers with one come first."""
    REQUIRED = "required"
    """Only workers with one take the job."""


class JobState(StrEnum):
    """State of a job: it waits (`queued`), a worker computes it (`running`), or it has ended."""

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
    CHILD = "child"
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
"""States after which no worker changes a job."""

UNFINISHED_STATES = frozenset(JobState) - FINAL_STATES
"""States in which a job needs its datasets and its version."""

RESUMABLE_STATES = frozenset({JobState.FAILED, JobState.CANCELLED})
"""States from which a caller may resume a job."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """Job that a caller asks for.

    Attributes:
        model_name: the model that gets a version when it succeeds, or that it uses.
        dataset_id: the dataset that it reads; it must exist in the project.
        held_out_ids: further datasets that it reads, for validation and test.
        request: the accepted request, defaults filled in; a JSON object.
        role: `JobRole.PARENT` for work that is done by children; None: a job of its own.
        priority: Priority; jobs of higher ones are taken first.
        memory_bytes: Least memory of a worker that it fits on; None: not known.
        estimate_s: About how long it takes, in seconds; None: not known.
        tables: Keys of the tables that the request was accepted for, by the ids of their datasets; one
            that is left out may have any.
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
    role: JobRole | None = None
    priority: int = 0
    accelerator: Accelerator = Accelerator.NONE
    memory_bytes: int | None = None
    estimate_s: float | None = None
    description: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """Idempotency key of a request, and a hash of that request."""

    key: str
    fingerprint: str

    @classmethod
    def of(cls, key: str, *request: str) -> "Idempotency":
        """Return a key with the hash of the parts that identify the request."""
        return cls(key=key, fingerprint=hashlib.sha256("\n".join(request).encode()).hexdigest())


class JobError(TypedDict):
    """Reason why a job failed: a stable code and one sentence."""

    code: str
    detail: str


class Checkpoint(TypedDict):
    """Durable state of a job in the blob store; ``epoch`` may count iterations or parts.

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
    """Result file of a scoring, sampling or imputation job in the blob store.

    ``columns`` are missing in those that were made before they were kept, as are ``texts``: places of the columns
    of a CSV file that hold text, whatever their first rows look like. ``unusual`` are the least likely rows of what was
    scored, which the job's row keeps apart.
    """

    key: str
    sha256: str
    bytes: int
    rows: int
    media_type: str
    columns: NotRequired[list[str]]
    texts: NotRequired[list[int]]
    unusual: NotRequired[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class JobSummary(Record):
    """Job without its large fields.

    Attributes:
        attempt: Number of claims so far; the fencing token of the present attempt.
        result: Result file, once it has succeeded.
        last_event: Number of its newest event.
        lease_expires_at: Time from which another worker may take it, by the database's clock.
        not_before: Time before which no worker takes it after a failed attempt, by the database's
            clock.
        run_seconds: Seconds that ended attempts ran for, since it was submitted or resumed.
        role: Part in work of several jobs; None: a job of its own.
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
    last_event: int
    request_id: str | None
    traceparent: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    lease_expires_at: datetime | None
    not_before: datetime | None
    run_seconds: float
    description: str | None
    tags: dict[str, str]
    role: JobRole | None
    parent_id: str | None
    priority: int
    accelerator: Accelerator

    @property
    def final(self) -> bool:
        """True if the job has ended."""
        return self.state in FINAL_STATES


@dataclass(frozen=True, kw_only=True)
class Job(JobSummary):
    """Job with all its fields.

    Attributes:
        checkpoints: Newest two checkpoints, newest first.
    """

    request: dict[str, Any]
    checkpoints: list[Checkpoint]


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """Job of a request; for a repeated request, the job as it was first accepted."""

    job: Job
    replayed: bool


@dataclass(frozen=True, kw_only=True)
class JobEvent(Record):
    """Event of a job; ``seq`` counts from 1 without gaps."""

    seq: int
    event: EventKind
    data: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class EventSlice:
    """Consecutive events of a job.

    Args:
        events: Events, oldest first.
        more: True if there are more after them.
        final: True if the job has ended.
    """

    events: list[JobEvent]
    more: bool
    final: bool

    @property
    def ended(self) -> bool:
        """True if there will be no events after them."""
        return self.final and not self.more


@dataclass(frozen=True)
class EventPlace:
    """Position of the events of a job.

    Args:
        last: Number of the newest event.
        final: True if the job has ended.
    """

    last: int
    final: bool
