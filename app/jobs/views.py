"""Response models of jobs."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.http.examples import EXAMPLE_TAGS, MODEL
from app.jobs.examples import REQUEST_EXAMPLE
from app.resources.labels import DESCRIPTION, TAGS
from app.resources.listing import NEXT_CURSOR
from app.resources.metrics import JobMetrics
from app.root_path import rooted
from models_store.job_states import Job, JobKind, JobRole, JobState, JobSummary
from models_store.jobs.queue import QueuePlace
from models_store.requests.bulk import AcceptedImputation, AcceptedSampling, AcceptedScoring
from models_store.requests.search import AcceptedEnsemble, AcceptedSearch
from models_store.requests.training import ASKED, AcceptedTraining, Resources
from models_store.requests.variational import AcceptedVariational
from models_store.schema_of import SchemaOf

_ID = "job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f"
_DATASET_ID = REQUEST_EXAMPLE["dataset_id"]
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
    "model": {"name": MODEL, "version": None},
    "dataset_id": _DATASET_ID,
    "role": None,
    "parent_id": None,
    "priority": 0,
    "resources": {"accelerator": "none"},
    "result": None,
    "cancel_requested": False,
    "error": None,
    "description": None,
    "tags": EXAMPLE_TAGS,
}
_JOB_EXAMPLE: dict[str, Any] = {**_SUMMARY_EXAMPLE, "request": REQUEST_EXAMPLE}


class _Progress(BaseModel):
    model_config = ConfigDict(extra="allow")

    fraction: float = Field(
        description="Estimated fraction of the work that is done, from 0 to 1. It may decrease: a training"
        " continues while the model improves, and after a failed attempt the next one continues from the"
        " last checkpoint."
    )
    eta_seconds: float | None = Field(
        description="Estimated seconds until the job ends, of a training if the model does not improve;"
        " null if it is not known yet."
    )


class ProgressView(_Progress):
    """Progress of a training job."""

    epoch: int = Field(description="Number of finished epochs.")
    max_epochs: int = Field(description="Maximum number of epochs of the training.")


class IterationProgressView(_Progress):
    """Progress of a variational job."""

    iteration: int = Field(description="Number of finished iterations.")
    max_iterations: int = Field(description="Number of iterations of the job.")


class RowProgressView(_Progress):
    """Progress of a scoring, sampling or imputation job, or of the child of a search that chooses an ensemble."""

    rows: int = Field(
        description="Number of computed rows; after the last one, the file is written. Of an ensemble, a"
        " row counts for each flow that scores it."
    )
    total_rows: int = Field(
        description="Number of rows of the result, or of those that the flows of an ensemble score."
    )


class ParentProgressView(_Progress):
    """Progress of a job whose work its children do."""

    stage: int = Field(description="Present stage, counted from 1.")
    stages: int = Field(description="Number of stages of the plan.")
    children_ended: int = Field(description="Number of children that have ended.")
    children: int = Field(description="Number of children so far; later stages start more.")


JobProgress = Annotated[
    dict[str, Any],
    SchemaOf(ProgressView | IterationProgressView | RowProgressView | ParentProgressView),
]


class JobModelView(BaseModel):
    """Model that a job trains or uses."""

    name: str | None = Field(
        description="Name of the model; null if there is none, as for some children."
    )
    version: int | None = Field(
        description="Version that the job uses, or that it has trained; null until a training succeeds."
    )


class JobResultView(BaseModel):
    """Result file of a scoring, sampling or imputation job."""

    url: str = Field(description="URL of the file.")
    media_type: str = Field(description="Media type of the file.")
    bytes: int = Field(description="Size of the file in bytes.")
    sha256: str = Field(description="SHA-256 of the file.")
    rows: int = Field(description="Number of rows.")

    @classmethod
    def of(cls, job: JobSummary) -> "JobResultView | None":
        """Return the view of a job's result; None if it has none."""
        result = job.result
        if result is None:
            return None
        return cls.model_validate({**result, "url": rooted(f"/v1/jobs/{job.id}/result")})


class JobErrorView(BaseModel):
    """Reason why a job failed."""

    code: str = Field(
        description="Stable name of the reason, such as `diverged`, `oom` or `crash_loop`."
    )
    detail: str = Field(description="Explanation of this occurrence.")


class JobSummaryView(BaseModel):
    """Job in a list, without its request."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SUMMARY_EXAMPLE]})

    id: str = Field(description="Id of the job.")
    kind: JobKind = Field(description="Kind of the job.")
    state: JobState = Field(description="State that the job is in.")
    attempt: int = Field(description="Number of times that a worker has started the job.")
    created_at: datetime = Field(description="Time at which the job was accepted.")
    started_at: datetime | None = Field(
        description="Time at which a worker first started the job; null if there is none yet."
    )
    finished_at: datetime | None = Field(
        description="Time at which the job ended; null if it has not."
    )
    next_attempt_at: datetime | None = Field(
        description="Time before which no worker starts the job again after a failed attempt, which"
        " its events explain; null if a worker may start it now."
    )
    progress: JobProgress | None = Field(
        description="Progress of the job; null until there is a first report."
    )
    metrics: JobMetrics | None = Field(
        description="Metrics of the last epoch or report; once the job has succeeded, those of the"
        " model, with the test likelihood or the evidence. Null: there was no report."
    )
    model: JobModelView = Field(description="Model that the job trains or uses.")
    dataset_id: str | None = Field(description="Dataset that the job reads; null if there is none.")
    role: JobRole | None = Field(
        description="`parent` if other jobs do its work, `child` if it does part of a parent's"
        " work; null if neither."
    )
    parent_id: str | None = Field(
        description="Job that the job does part of the work of; null if there is none."
    )
    priority: int = Field(
        description="Priority among waiting jobs of the project; higher ones are taken first."
    )
    resources: Resources = Field(description="Resources that the job needs from its worker.")
    result: JobResultView | None = Field(
        description="Result file of a scoring, sampling or imputation job that has succeeded; null if there is"
        " none yet, or"
        " deleted."
    )
    cancel_requested: bool = Field(description="True if the job still runs and was asked to stop.")
    error: JobErrorView | None = Field(description="Reason why the job failed; null if it has not.")
    description: str | None = DESCRIPTION
    tags: dict[str, str] = TAGS

    @classmethod
    def of(cls, job: JobSummary) -> "JobSummaryView":
        """Return the view of a job in a list."""
        return JobSummaryView.model_validate(_members(job))


class QueueView(BaseModel):
    """Place of a job in the queue."""

    position: int = Field(
        description="Place among the jobs of all projects that wait for a worker, from 1 on."
    )
    starts_in_seconds: float | None = Field(
        description="Seconds until a worker takes it, about, as the last jobs took; null if that is not known."
    )


AcceptedRequest = Annotated[
    dict[str, Any],
    # The most particular ones come first, for clients that take the first one that fits.
    SchemaOf(
        AcceptedTraining
        | AcceptedSearch
        | AcceptedEnsemble
        | AcceptedVariational
        | AcceptedScoring
        | AcceptedImputation
        | AcceptedSampling
    ),
]


class JobView(JobSummaryView):
    """Job with its request."""

    model_config = ConfigDict(json_schema_extra={"examples": [_JOB_EXAMPLE]})

    request: AcceptedRequest = Field(description="Accepted request, with a value for every option.")
    queue: QueueView | None = Field(
        default=None,
        description="Place among the jobs that wait; null if the job does not wait for a worker.",
    )

    @classmethod
    def whole(cls, job: Job, place: QueuePlace | None = None) -> "JobView":
        """Return the view of a job, and of its place in the queue."""
        queue = None
        if place is not None:
            seconds = None if place.starts_in_s is None else round(place.starts_in_s, 1)
            queue = QueueView(position=place.position, starts_in_seconds=seconds)
        shown = {name: value for name, value in job.request.items() if name != ASKED}
        return cls.model_validate(_members(job) | {"request": shown, "queue": queue})


class JobPage(BaseModel):
    """Page of jobs, newest first."""

    items: list[JobSummaryView] = Field(description="Jobs, without their requests.")
    next_cursor: str | None = NEXT_CURSOR


def _members(job: JobSummary) -> dict[str, Any]:
    return vars(job) | {
        "next_attempt_at": job.not_before,
        "progress": job.progress or None,
        "model": JobModelView(name=job.model_name, version=job.model_version),
        "resources": Resources(accelerator=job.accelerator),
        "result": JobResultView.of(job),
        "cancel_requested": job.cancel_requested and not job.final,
    }
