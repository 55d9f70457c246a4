"""What the routes of jobs answer with."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.http.listing import bounded
from models_store.database.paging import Page
from models_store.jobs.jobs import EventKind, Job, JobEvent, JobKind, JobState, JobSummary

_ID = "job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f"
_DATASET_ID = "ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f"
_SUMMARY_EXAMPLE: dict[str, Any] = {
    "id": _ID,
    "kind": "training",
    "state": "running",
    "attempt": 1,
    "created_at": "2026-11-24T15:27:00Z",
    "started_at": "2026-11-24T15:27:01Z",
    "finished_at": None,
    "next_attempt_at": None,
    "progress": {"epoch": 12, "max_epochs": 509, "fraction": 0.29, "eta_seconds": 95.0},
    "metrics": {
        "epoch": 12,
        "train_log_likelihood": 3.1,
        "validation_log_likelihood": 2.9,
        "best_epoch": 11,
        "rows_per_second": 51000.0,
    },
    "model": {"name": "shuttle", "version": None},
    "dataset_id": _DATASET_ID,
    "result": None,
    "dispatch": "sent",
    "cancel_requested": False,
    "error": None,
}
_JOB_EXAMPLE: dict[str, Any] = {
    **_SUMMARY_EXAMPLE,
    "request": {"model_name": "shuttle", "dataset_id": _DATASET_ID},
}


class ProgressView(BaseModel):
    """How far a training is."""

    model_config = ConfigDict(extra="allow")

    epoch: int = Field(description="Epochs that are done.")
    max_epochs: int
    fraction: float = Field(
        description="From 0 to 1. It may fall: training goes on while the model gets better."
    )
    eta_seconds: float | None = Field(
        description="Seconds until training ends if the model gets no better; null: unknown yet."
    )


class IterationProgressView(BaseModel):
    """How far a variational job is."""

    model_config = ConfigDict(extra="allow")

    iteration: int = Field(description="Iterations that are done.")
    max_iterations: int
    fraction: float = Field(description="From 0 to 1, of the iterations or of the time.")
    eta_seconds: float | None = Field(description="Seconds until training ends.")


class RowProgressView(BaseModel):
    """How far a scoring or a sampling is."""

    model_config = ConfigDict(extra="allow")

    rows: int = Field(description="Rows that are computed; after the last, the file is written.")
    total_rows: int
    fraction: float = Field(description="From 0 to 1, of the time: computing, then writing.")
    eta_seconds: float | None = Field(
        description="Seconds until the file is there; null: unknown yet."
    )


ProgressViews = ProgressView | IterationProgressView | RowProgressView


class JobModelView(BaseModel):
    """The model that a job makes or uses."""

    name: str | None
    version: int | None = Field(
        description="That it makes: null until the job has succeeded. That it uses: as accepted."
    )


class JobResultView(BaseModel):
    """The file that a scoring or a sampling made."""

    url: str = Field(description="Where to download it.")
    media_type: str
    bytes: int
    sha256: str
    rows: int

    @classmethod
    def of(cls, job: JobSummary) -> "JobResultView | None":
        """What callers see of a job's result; None if there is none."""
        result = job.result
        if result is None:
            return None
        return cls.model_validate({**result, "url": f"/v1/jobs/{job.id}/result"})


class JobErrorView(BaseModel):
    """Why a job failed."""

    code: str = Field(description="Stable, for programs: `diverged`, `oom`, `crash_loop`, ...")
    detail: str


class JobSummaryView(BaseModel):
    """A job in a listing: without its request."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SUMMARY_EXAMPLE]})

    id: str
    kind: JobKind
    state: JobState
    attempt: int = Field(description="How many times a worker has begun it.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    next_attempt_at: datetime | None = Field(
        description="Moment before which no worker begins it again, after an attempt that failed;"
        " the job's events tell why. Null: nothing to wait for."
    )
    progress: ProgressViews | None = Field(description="Null until the first signs of progress.")
    metrics: dict[str, Any] | None = Field(
        description="Of the last epoch or report; of the model, test likelihood or evidence"
        " included, once succeeded."
    )
    model: JobModelView
    dataset_id: str | None = Field(description="Dataset that it reads, if it reads one.")
    result: JobResultView | None = Field(
        description="Of a scoring or a sampling that has succeeded; null once it is deleted."
    )
    dispatch: Literal["sent", "pending"] = Field(
        description="Whether a worker has been told. A job that is `pending` is as safe as any"
        " other: workers look for such jobs themselves."
    )
    cancel_requested: bool = Field(description="It runs, and is about to stop.")
    error: JobErrorView | None

    @classmethod
    def of(cls, job: JobSummary) -> "JobSummaryView":
        """Return the form of a job that callers see in a listing."""
        return JobSummaryView.model_validate(_members(job))


class JobView(JobSummaryView):
    """A job."""

    model_config = ConfigDict(json_schema_extra={"examples": [_JOB_EXAMPLE]})

    request: dict[str, Any] = Field(description="The body as accepted, with every choice made.")

    @classmethod
    def whole(cls, job: Job, *, sent: bool = False) -> "JobView":
        """Return the form of a job that callers see.

        Args:
            job: as the database has it.
            sent: a worker has been told since.
        """
        return cls.model_validate(_members(job, sent=sent))


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    items: list[JobSummaryView]
    next_cursor: str | None = Field(description="For the next page; null: this is the last one.")

    @classmethod
    def of(cls, page: Page[JobSummary]) -> "JobPage":
        """Return the form of a page that callers see."""
        return cls.model_validate(bounded(page, JobSummaryView.of), from_attributes=True)


class EventView(BaseModel):
    """Something that happened to a job."""

    id: int = Field(description="Counts from 1, without gaps.")
    event: EventKind
    data: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, event: JobEvent) -> "EventView":
        """What callers see of an event."""
        return cls.model_validate(vars(event) | {"id": event.seq})


class EventPage(BaseModel):
    """Events, oldest first."""

    items: list[EventView]
    next_after: int = Field(description="`after` for the next page.")
    ended: bool = Field(description="The job has ended and these are its last events.")


def _members(job: JobSummary, *, sent: bool = False) -> dict[str, Any]:
    dispatched = sent or job.dispatched or job.state is not JobState.QUEUED
    return vars(job) | {
        "next_attempt_at": job.not_before,
        "progress": _progress(job),
        "model": JobModelView(name=job.model_name, version=job.model_version),
        "result": JobResultView.of(job),
        "dispatch": "sent" if dispatched else "pending",
        "cancel_requested": job.cancel_requested and not job.final,
    }


def _progress(job: JobSummary) -> ProgressViews | None:
    if not job.progress:
        return None
    match job.kind:
        case JobKind.TRAINING:
            return ProgressView(**job.progress)
        case JobKind.VARIATIONAL:
            return IterationProgressView(**job.progress)
        case JobKind.SCORING | JobKind.SAMPLING:
            return RowProgressView(**job.progress)
