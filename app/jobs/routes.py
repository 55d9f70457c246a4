"""Jobs of every kind: look, follow, cancel, resume."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response, status
from pydantic import BaseModel, Field

from app.dependencies import ProjectDep, StateDep
from app.jobs.event_views import EventPage, view_event
from app.jobs.events import (
    LONGEST_WAIT_S,
    MEDIA_TYPE as EVENT_STREAM,
    EventFeed,
    Format,
    hold_stream,
    stream_events,
    wait_for_end,
)
from app.jobs.views import JobPage, JobSummaryView, JobView
from app.limits import FairRoute, in_thread
from app.problems.problem import problem_responses
from app.resources.etags import ETAG, NOT_MODIFIED, PreconditionsDep, respond
from app.resources.labels import LABEL_ROUTE, LabelUpdateDep
from app.resources.listing import LINKED, PagingDep, SelectionDep
from models_store.files.job_files import delete_job_files
from models_store.job_states import JobKind, JobState
from models_store.label_types import TEXT
from models_store.requests.training import Name

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=FairRoute)

JobId = Annotated[
    str,
    Path(
        max_length=100,
        description="Id of the job.",
        examples=["job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f"],
    ),
]
After = Annotated[
    int, Query(ge=0, le=2**53, description="Id of the last event that the client has.")
]
LastEventId = Annotated[
    Annotated[int, Field(ge=0, le=2**53)] | None,
    Header(
        alias="Last-Event-ID",
        description="Id of the last event that the client has, as browsers send it when they reconnect;"
        " takes precedence over `after`.",
    ),
]


class JobFilters(BaseModel):
    """Filters of a list of jobs."""

    state: JobState | None = Field(
        default=None, description="State that the jobs are in. Default: any."
    )
    kind: JobKind | None = Field(default=None, description="Kind of the jobs.")
    model_name: Name | None = Field(
        default=None, description="Name of the model that the jobs train or use."
    )
    parent_id: str | None = Field(
        default=None,
        max_length=100,
        pattern=TEXT,
        description="Id of a parent job, to list its children. Default: all jobs except children.",
        examples=["job_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f"],
    )


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs",
    response_description="Page of jobs.",
    responses={**LINKED, **problem_responses("cursor")},
)
def list_jobs(
    state: StateDep,
    project: ProjectDep,
    filters: Annotated[JobFilters, Query()],
    paging: PagingDep,
    selection: SelectionDep,
) -> JobPage:
    """List jobs, newest first, without their requests."""
    page = state.jobs.list(
        project,
        limit=paging.limit,
        cursor=paging.cursor,
        filters=selection.filters(),
        **dict(filters),
    )
    return paging.view(page, JobSummaryView.of, JobPage)


@router.get(
    "/{job_id}",
    operation_id="get_job",
    summary="Get a job",
    response_model=JobView,
    responses={
        200: {"headers": ETAG},
        304: NOT_MODIFIED,
        **problem_responses("not-found", "precondition", "limit-open-requests"),
    },
)
async def get_job(
    request: Request,
    job_id: JobId,
    state: StateDep,
    project: ProjectDep,
    conditions: PreconditionsDep,
    wait: Annotated[
        int,
        Query(
            ge=0,
            le=LONGEST_WAIT_S,
            description="Seconds to wait for the end of the job; the response then comes at its end, or after these seconds with the job as it is.",
        ),
    ] = 0,
) -> Response:
    """Return a job: its state, progress, metrics, error, and the accepted request."""
    if wait > 0:
        await wait_for_end(request, project, job_id, seconds=wait)

    def show() -> Response:
        job = state.jobs.get(project, job_id)
        place = state.jobs.place(project, job_id) if job.state is JobState.QUEUED else None
        return respond(JobView.whole(job, place), conditions)

    return await in_thread(show)


@router.patch(
    "/{job_id}",
    operation_id="update_job",
    summary="Describe and tag a job",
    response_model=JobView,
    **LABEL_ROUTE,
)
def update_job(
    job_id: JobId, state: StateDep, project: ProjectDep, update: LabelUpdateDep
) -> Response:
    """Change the description and tags of a job; fields that the body leaves out stay unchanged."""
    return update.make(partial(state.labels.job, project, job_id), JobView.whole)


@router.delete(
    "/{job_id}",
    operation_id="delete_job",
    summary="Delete a job",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="The job is deleted.",
    responses=problem_responses("not-found", "job-unfinished", "job-in-use"),
)
def delete_job(job_id: JobId, state: StateDep, project: ProjectDep) -> None:
    """Delete a job that has ended, with its events, checkpoints and result.

    A job whose version exists cannot be deleted: delete the version first.
    """
    for deleted in state.jobs.delete(project, job_id):
        delete_job_files(state.blobs, deleted)


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    responses={
        200: {"model": JobView, "description": "The job is cancelled."},
        202: {"description": "The job was asked to stop, which takes some seconds."},
        **problem_responses("not-found", "job-final"),
    },
)
def cancel_job(job_id: JobId, state: StateDep, project: ProjectDep) -> Response:
    """Cancel a job. A queued job is cancelled at once; cancelling twice is not an error."""
    job = state.jobs.cancel(project, job_id)
    code = status.HTTP_200_OK if job.final else status.HTTP_202_ACCEPTED
    return respond(JobView.whole(job), status_code=code)


@router.post(
    "/{job_id}/resume",
    operation_id="resume_job",
    summary="Resume a job",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobView,
    responses={
        202: {"description": "The job is queued again."},
        **problem_responses(
            "not-found", "job-not-resumable", "dataset-in-use", "limit-queued-jobs", "quota-storage"
        ),
    },
)
def resume_job(job_id: JobId, project: ProjectDep, state: StateDep) -> Response:
    """Queue a cancelled or failed job again, to continue from its newest checkpoint.

    Checkpoints are kept for a week by default; without one the job starts from the beginning.
    """
    job = state.jobs.resume(
        project,
        job_id,
        max_queued=state.settings.max_queued_jobs,
        max_bytes=state.settings.max_project_bytes,
    )
    state.broker.announce(job)
    view = JobView.whole(job, state.jobs.place(project, job_id))
    return respond(view, status_code=status.HTTP_202_ACCEPTED)


@router.get(
    "/{job_id}/events",
    operation_id="follow_job",
    summary="Follow the events of a job",
    dependencies=[Depends(hold_stream)],
    response_model=EventPage,
    responses={
        200: {
            "description": "Events, as a stream until the job has ended, or as a page.",
            "content": {
                EVENT_STREAM: {
                    "schema": {"type": "string"},
                    "example": 'id: 3\nevent: epoch\ndata: {"epoch": 1}\n\n',
                }
            },
        },
        204: {"description": "The job has ended, and the client has all its events."},
        **problem_responses("not-found", "limit-open-requests"),
    },
)
async def follow_job(  # noqa: PLR0913 - FastAPI gives each
    request: Request,
    job_id: JobId,
    state: StateDep,
    project: ProjectDep,
    *,
    after: After = 0,
    last_event_id: LastEventId = None,
    format: Format = "sse",  # noqa: A002 - the parameter's public name
) -> Response:
    """Stream the events of a job as they happen: `state`, `epoch`, `child`, `message` and `end`.

    An `epoch` event reports an epoch of a training, some iterations of a variational job, or a
    part of the rows of a scoring, sampling or imputation job. Ids count from 1 without gaps, and `data` is
    JSON. A client that sends the id of its last event when it reconnects misses none. The stream
    ends after the event `end`, or with the event `closed`, which has no id, when the API key is
    revoked or expires.
    """
    since = after if last_event_id is None else last_event_id
    feed = EventFeed(state.jobs, project, job_id, after=since)
    if format == "sse":
        return await stream_events(request, feed)
    page = await feed.page()
    items = await in_thread(lambda: [view_event(event) for event in page.events])
    shown = EventPage(items=items, next_after=feed.after, ended=page.ended)
    return Response(shown.model_dump_json(), media_type="application/json")
