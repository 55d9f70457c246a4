"""Jobs: start a training, look, follow, cancel, resume."""

import hashlib
import json
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response, status
from pydantic import Field

from app.dependencies import (
    DEFAULT_LIMIT,
    CursorQuery,
    JobsDep,
    LimitQuery,
    ProjectDep,
    QueueDep,
    RegistryDep,
    SettingsDep,
)
from app.events import MEDIA_TYPE as EVENT_STREAM, EventFeed, EventStream
from app.job_schemas import EventPage, EventView, JobPage, JobView
from app.json_body import json_body, json_request
from app.problems import problem_responses, request_id_of
from app.queue import JobQueue
from models_store.acceptance import HeldOut, TrainingLimits, accept_training
from models_store.jobs import Idempotency, Job, JobKind, JobState, NewJob, Submitted
from models_store.registry import Dataset
from models_store.schemas import Name, TrainingRequest

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_DATASET_ID = "ds_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f"
_EXAMPLES = {
    "simplest": {
        "summary": "A good model without knowing anything about flows",
        "value": {"model_name": "shuttle", "dataset_id": _DATASET_ID},
    },
    "chosen": {
        "summary": "Every choice made",
        "value": {
            "model_name": "shuttle",
            "dataset_id": _DATASET_ID,
            "columns": ["x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9"],
            "split": {"train": 0.8, "validation": 0.1, "test": 0.1, "shuffle": True, "seed": 0},
            "preprocessing": {"standardise": True},
            "flow": {
                "family": "maf",
                "layers": 5,
                "hidden": [128],
                "batch_norm": {"statistics": "dataset"},
                "order": "reverse",
                "activation": "tanh",
            },
            "optimisation": {
                "optimiser": "adam",
                "learning_rate": 1e-3,
                "weight_decay": 1e-6,
                "batch_size": 100,
                "max_epochs": 200,
                "patience": 30,
                "max_seconds": 600.0,
                "schedule": "constant",
                "seed": 0,
            },
        },
    },
}

_REFUSALS = (
    "not-found",
    "idempotency-key-reused",
    "unknown-column",
    "duplicate-column",
    "dataset-constant-column",
    "split-invalid",
    "split-too-small",
    "dimension-unsupported",
    "encoder-without-context",
    "preprocessing-unsuitable",
    "columns-overlap",
    "limit-parameters",
    "limit-memory",
    "limit-queued-jobs",
)

JobId = Annotated[
    str,
    Path(
        max_length=100, description="Of the job.", examples=["job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f"]
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="A string of your own, such as a UUID. Sent again with the same body, it gives"
        " the first job again instead of a second one.",
    ),
]
After = Annotated[int, Query(ge=0, le=2**53, description="Number of the last event you have.")]
LastEventId = Annotated[
    Annotated[int, Field(ge=0, le=2**53)] | None,
    Header(
        alias="Last-Event-ID",
        description="As `after`, and stronger than it: browsers send it when they reconnect.",
    ),
]


class TrainingDesk:
    """Where trainings are accepted; FastAPI makes one for each request."""

    def __init__(
        self, settings: SettingsDep, project: ProjectDep, registry: RegistryDep, jobs: JobsDep
    ) -> None:
        self._limits = TrainingLimits(
            max_parameters=settings.max_parameters,
            max_layers=settings.max_layers,
            max_memory_bytes=settings.max_training_memory_bytes,
        )
        self._max_queued = settings.max_queued_jobs
        self._project = project
        self._registry = registry
        self._jobs = jobs

    def accept(
        self, body: TrainingRequest, *, key: str | None, request_id: str, traceparent: str | None
    ) -> Submitted:
        """Check and complete a request, and store it durably as a job.

        Raises:
            StoreError: saying why not.
        """
        idempotency = Idempotency(key=key, fingerprint=_fingerprint(body)) if key else None
        if idempotency and (first := self._jobs.submitted(self._project, idempotency)):
            return first  # also when its dataset is gone by now
        validation_id, test_id = body.split.validation_dataset_id, body.split.test_dataset_id
        dataset = self._dataset(body.dataset_id)
        held_out = HeldOut(
            validation=self._dataset(validation_id) if validation_id else None,
            test=self._dataset(test_id) if test_id else None,
        )
        accepted = accept_training(body, dataset, limits=self._limits, held_out=held_out)
        new = NewJob(
            project=self._project,
            kind=JobKind.TRAINING,
            model_name=body.model_name,
            dataset_id=body.dataset_id,
            held_out_ids=tuple(filter(None, (validation_id, test_id))),
            request=accepted.model_dump(mode="json"),
            request_id=request_id,
            traceparent=traceparent,
        )
        return self._jobs.submit(new, idempotency=idempotency, max_queued=self._max_queued)

    def _dataset(self, dataset_id: str) -> Dataset:
        return self._registry.dataset(self._project, dataset_id)


class JobFilters:
    """Which jobs to list."""

    def __init__(
        self,
        state: Annotated[JobState | None, Query(description="In this state.")] = None,
        kind: Annotated[JobKind | None, Query(description="Of this kind.")] = None,
        model_name: Annotated[Name | None, Query(description="For this model.")] = None,
    ) -> None:
        self.state = state
        self.kind = kind
        self.model_name = model_name


class WatchedJob:
    """A job whose events are read."""

    def __init__(self, job_id: JobId, jobs: JobsDep, project: ProjectDep) -> None:
        self._jobs = jobs
        self._project = project
        self._job_id = job_id

    def feed(self, after: int) -> EventFeed:
        """Its events after the given one."""
        return EventFeed(self._jobs, self._project, self._job_id, after=after)


def _fingerprint(body: TrainingRequest) -> str:
    """Equal for bodies that ask for the same, whatever their spelling."""
    canonical = json.dumps(body.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"training\n{canonical}".encode()).hexdigest()


@router.post(
    "/training",
    operation_id="start_training",
    summary="Train a flow on a dataset",
    status_code=status.HTTP_202_ACCEPTED,
    openapi_extra=json_request(TrainingRequest, examples=_EXAMPLES),
    responses={
        202: {
            "description": "The job is accepted: it is stored, and will run.",
            "headers": {
                "Location": {"description": "The job.", "schema": {"type": "string"}},
                "Idempotent-Replayed": {
                    "description": "`true`: this is the job of an earlier request with the key.",
                    "schema": {"type": "string"},
                },
            },
        },
        **problem_responses(*_REFUSALS),
    },
)
def start_training(
    request: Request,
    response: Response,
    body: Annotated[TrainingRequest, Depends(json_body(TrainingRequest))],
    desk: Annotated[TrainingDesk, Depends()],
    queue: QueueDep,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Accept a training.

    Only `model_name` and `dataset_id` are needed: whatever else is left out or null is chosen
    from the data, and `request` in the answer shows the choice. The job is stored durably before
    the answer is sent, and it runs even if the queue is down now.
    """
    submitted = desk.accept(
        body,
        key=idempotency_key,
        request_id=request_id_of(request),
        traceparent=request.state.traceparent,
    )
    job = submitted.job
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if submitted.replayed:
        response.headers["Idempotent-Replayed"] = "true"
        return JobView.of(job)
    return JobView.of(job, sent=_hint(queue, job))


def _hint(queue: JobQueue, job: Job) -> bool:
    return queue.hint(job.id, request_id=job.request_id, traceparent=job.traceparent)


@router.get(
    "", operation_id="list_jobs", summary="List jobs", responses=problem_responses("cursor")
)
def list_jobs(
    jobs: JobsDep,
    project: ProjectDep,
    filters: Annotated[JobFilters, Depends()],
    limit: LimitQuery = DEFAULT_LIMIT,
    cursor: CursorQuery = None,
) -> JobPage:
    """List jobs, newest first."""
    return JobPage.of(
        jobs.list(
            project,
            limit=limit,
            cursor=cursor,
            state=filters.state,
            kind=filters.kind,
            model_name=filters.model_name,
        )
    )


@router.get(
    "/{job_id}",
    operation_id="get_job",
    summary="Look at a job",
    responses=problem_responses("not-found"),
)
def get_job(job_id: JobId, jobs: JobsDep, project: ProjectDep) -> JobView:
    """How a job stands: its state, progress, metrics, error, and the request as accepted."""
    return JobView.of(jobs.get(project, job_id))


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        200: {"model": JobView, "description": "The job is cancelled."},
        202: {"description": "The job runs; it will have stopped within seconds."},
        **problem_responses("not-found", "job-final"),
    },
)
def cancel_job(job_id: JobId, response: Response, jobs: JobsDep, project: ProjectDep) -> JobView:
    """Cancel a job. A waiting one is cancelled at once; cancelling twice is no error."""
    job = jobs.cancel(project, job_id)
    if job.final:
        response.status_code = status.HTTP_200_OK
    return JobView.of(job)


@router.post(
    "/{job_id}/resume",
    operation_id="resume_job",
    summary="Resume a job",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        202: {"description": "The job waits for a worker again."},
        **problem_responses("not-found", "job-not-resumable", "dataset-in-use"),
    },
)
def resume_job(job_id: JobId, jobs: JobsDep, queue: QueueDep, project: ProjectDep) -> JobView:
    """Queue a cancelled or failed job again: it goes on from its last checkpoint."""
    job = jobs.resume(project, job_id)
    return JobView.of(job, sent=_hint(queue, job))


@router.get(
    "/{job_id}/events",
    operation_id="follow_job",
    summary="Follow a job",
    response_model=EventPage,
    responses={
        200: {
            "description": "The events: as a stream until the job has ended, or as a page.",
            "content": {
                EVENT_STREAM: {
                    "schema": {"type": "string"},
                    "example": 'id: 3\nevent: epoch\ndata: {"epoch": 1}\n\n',
                }
            },
        },
        204: {"description": "No more: the job has ended, and you have all its events."},
        **problem_responses("not-found"),
    },
)
async def follow_job(
    request: Request,
    job: Annotated[WatchedJob, Depends()],
    *,
    after: After = 0,
    last_event_id: LastEventId = None,
    format: Annotated[  # noqa: A002 - the parameter's public name
        Literal["sse", "json"], Query(description="`json`: a page of events instead of a stream.")
    ] = "sse",
) -> Response:
    """What happens to a job, as it happens: Server-Sent Events `state`, `epoch`, `message`, `end`.

    Events are numbered without gaps, and `data` is JSON. A client that sends the number of its
    last event misses nothing, however often it reconnects. The stream ends after the job's `end`.
    """
    since = after if last_event_id is None else last_event_id
    feed = job.feed(since)
    events, ended = await feed.read()
    if format == "json":
        page = EventPage(
            items=[EventView.of(event) for event in events],
            next_after=events[-1].seq if events else since,
            ended=ended,
        )
        return Response(page.model_dump_json(), media_type="application/json")
    if ended and not events:
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    return EventStream((events, ended), feed, stopping=request.app.state.stopping)
