"""Results of jobs about many rows: download and delete."""

from fastapi import APIRouter, Request, Response, status

from app.dependencies import ProjectDep, StateDep
from app.http.downloads import result_download, unless_deleted
from app.http.exchange import exchange_of
from app.jobs.routes import JobId
from app.limits import FairRoute
from app.problems.problem import Problem, problem_responses
from app.rows.codecs import response_codec
from models_store.job_states import JobResult, JobSummary
from models_store.jobs.jobs import result_of
from tabular.writers import OUTPUT_MEDIA_TYPES

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=FairRoute)

_FILE = {"schema": {"type": "string", "format": "binary"}}
_FILES = dict.fromkeys(OUTPUT_MEDIA_TYPES.values(), _FILE)


@router.get(
    "/{job_id}/result",
    operation_id="download_result",
    summary="Download a result",
    response_class=Response,
    responses={
        200: {
            "description": "Result file, in the format that `output` of the job has chosen.",
            "content": _FILES,
        },
        206: {"description": "Bytes of the file that `Range` asks for.", "content": _FILES},
        **problem_responses(
            "not-found",
            "not-acceptable",
            "job-without-result",
            "result-not-ready",
            "result-deleted",
            "bad-request",
            "range",
            "artifact-missing",
            "artifact-corrupt",
        ),
    },
)
def download_result(
    request: Request, job_id: JobId, state: StateDep, project: ProjectDep
) -> Response:
    """Return the file of a scoring, sampling or imputation job, or a range of it; its ETag is its SHA-256."""

    def look() -> JobResult:
        job = state.jobs.summary(project, job_id)
        _check_kind(job)
        return result_of(job)

    result = look()
    usual = result["media_type"]
    if response_codec(exchange_of(request).listed(b"accept"), default=usual).media_type != usual:
        raise Problem(
            "not-acceptable", f"The result is of the type {usual}, which `output` of the job chose."
        )
    with unless_deleted(look):
        return result_download(request, result, state.blobs, name=job_id)


@router.delete(
    "/{job_id}/result",
    operation_id="delete_result",
    summary="Delete a result",
    response_description="The result is deleted.",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(
        "not-found", "job-without-result", "result-not-ready", "result-deleted"
    ),
)
def delete_result(job_id: JobId, state: StateDep, project: ProjectDep) -> None:
    """Delete the result file of a job but not the job. Downloads in progress end ten seconds later."""
    _check_kind(state.jobs.summary(project, job_id))
    state.blobs.delete(state.jobs.delete_result(project, job_id)["key"])


def _check_kind(job: JobSummary) -> None:
    if job.kind.makes_version:
        raise Problem("job-without-result")
