"""Routes of unusual rows: of a version's table, of a scoring job, and what people found about them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response, status
from pydantic import BaseModel, Field

from app.dependencies import ProjectDep, StateDep
from app.http.accept import best_media_type
from app.http.examples import DATASET_ID
from app.http.exchange import exchange_of
from app.http.json_body import json_body, json_request
from app.jobs.routes import JobId
from app.limits import FairRoute, in_thread
from app.models.routes import ModelName
from app.problems.problem import FieldError, Problem, problem_responses
from app.scoring.routes import Ref
from app.state import AppState
from app.unusual.files import MEDIA_TYPES, unusual_file
from app.unusual.finding import Asked, dataset_of, unusual_view
from app.unusual.views import DIGEST, ReviewRequest, ReviewView, UnusualView
from models_store.job_states import JobKind
from models_store.jobs.jobs import result_of
from models_store.least_rows import MAX_LEAST_ROWS
from models_store.records import Version

router = APIRouter(tags=["scores"], route_class=FairRoute)

MAX_JSON_ROWS = 100
_JSON = "application/json"
_FAILURES = problem_responses(
    "not-found",
    "not-acceptable",
    "unusual-unavailable",
    "overloaded",
    "artifact-missing",
    "artifact-corrupt",
)
_FILE = {"schema": {"type": "string", "format": "binary"}}
_CONTENT = {
    "description": "The least likely rows; with `text/csv` or the media type of Excel in `Accept`, a file.",
    "content": dict.fromkeys(MEDIA_TYPES, _FILE),
}
_REVIEW_BODY = json_request(
    ReviewRequest,
    examples={"not unusual": {"summary": "As it should be", "value": {"review": "not_unusual"}}},
)

Digest = Annotated[
    str,
    Path(
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the row, as lists of unusual rows give it.",
        examples=[DIGEST],
    ),
]


class UnusualPage(BaseModel):
    """Page of unusual rows."""

    limit: int = Field(
        default=20,
        ge=1,
        le=MAX_LEAST_ROWS,
        description=f"Largest number of rows; at most {MAX_JSON_ROWS} of them in JSON.",
    )
    offset: int = Field(
        default=0, ge=0, le=MAX_LEAST_ROWS, description="Number of rows before the first one."
    )
    max_rank: float | None = Field(
        default=None, ge=0, le=1, description="Largest rank of a row: what is flagged."
    )

    def asked(self, media_type: str) -> Asked:
        """Return the page.

        Raises:
            Problem: `validation`: too many rows of JSON.
        """
        if media_type == _JSON and self.limit > MAX_JSON_ROWS:
            told = f"At most {MAX_JSON_ROWS} in JSON; a file may have {MAX_LEAST_ROWS:,}."
            raise Problem("validation", errors=[FieldError(told, parameter="limit")])
        return Asked(self.limit, self.offset, self.max_rank)


class UnusualOfVersion(UnusualPage):
    """Page of the unusual rows of a version."""

    dataset_id: str | None = Field(
        default=None,
        max_length=100,
        description="Dataset whose rows are listed, which a scoring job of the version has scored; null for the"
        " one that it was trained on.",
        examples=[DATASET_ID],
    )


class UnusualOfJob(UnusualPage):
    """Page of the unusual rows of a scoring job."""

    sort: Literal["rank"] = Field(default="rank", description="Order: the lowest rank first.")


@router.get(
    "/v1/models/{ref}/unusual",
    operation_id="list_unusual_rows",
    summary="List unusual rows",
    response_model=UnusualView,
    responses={200: _CONTENT, **_FAILURES, **problem_responses("unusual-not-scored")},
)
async def list_unusual_rows(
    request: Request,
    ref: Ref,
    state: StateDep,
    project: ProjectDep,
    wanted: Annotated[UnusualOfVersion, Query()],
) -> Response:
    """List the least likely rows of the table that a version was trained on, with the reasons.

    The whole table is scored when the training ends, held-out rows included, and the 1,000 least likely rows
    are kept. Each comes with its cells as they were uploaded, its rank among held-out rows, and the cells that
    make it unlikely: what would be usual there, given the other cells of the row. `thresholds` says how many
    rows of the table lie at or below each rank.
    """
    media_type = best_media_type(exchange_of(request).listed(b"accept"), [_JSON, *MEDIA_TYPES])
    asked = wanted.asked(media_type)
    version = await state.models.resolve(project, ref)
    own = wanted.dataset_id in (None, version.dataset_id)
    view = await (
        _of_training(state, version, asked)
        if own
        else _of_scoring(state, version, str(wanted.dataset_id), asked)
    )
    return await _respond(view, media_type)


@router.get(
    "/v1/jobs/{job_id}/rows",
    operation_id="list_scored_rows",
    summary="List the unusual rows of a scoring job",
    response_model=UnusualView,
    responses={
        200: _CONTENT,
        **_FAILURES,
        **problem_responses("job-without-result", "result-not-ready"),
    },
)
async def list_scored_rows(
    request: Request,
    job_id: JobId,
    state: StateDep,
    project: ProjectDep,
    wanted: Annotated[UnusualOfJob, Query()],
) -> Response:
    """List the least likely rows that a scoring job has found, with the reasons; see the route of a model.

    They stay when the result file of the job is deleted.
    """
    media_type = best_media_type(exchange_of(request).listed(b"accept"), [_JSON, *MEDIA_TYPES])
    view = await _of_job(state, project, job_id, wanted.asked(media_type))
    return await _respond(view, media_type)


@router.put(
    "/v1/models/{name}/reviews/{digest}",
    operation_id="set_review",
    summary="Review an unusual row",
    openapi_extra=_REVIEW_BODY,
    responses=problem_responses("not-found", "limit-reviews"),
)
def set_review(
    body: Annotated[ReviewRequest, Depends(json_body(ReviewRequest))],
    name: ModelName,
    digest: Digest,
    state: StateDep,
    project: ProjectDep,
) -> ReviewView:
    """Record what a person found about a row, in place of what was before.

    The model keeps it: lists of unusual rows show it at each row with these cells, those of later versions and
    scorings too.
    """
    return ReviewView.of(name, state.reviews.set(project, name, digest, body.review))


@router.delete(
    "/v1/models/{name}/reviews/{digest}",
    operation_id="delete_review",
    summary="Delete a review",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="The review is deleted.",
    responses=problem_responses("not-found"),
)
def delete_review(name: ModelName, digest: Digest, state: StateDep, project: ProjectDep) -> None:
    """Forget what a person found about a row."""
    state.reviews.delete(project, name, digest)


async def _of_training(state: AppState, version: Version, asked: Asked) -> UnusualView:
    if version.dataset_id is None or version.target is not None:
        raise Problem("unusual-unavailable", f"{version.ref} was not trained on a dataset.")
    look = state.registry.unusual
    kept = await in_thread(look, version.project, version.name, version.version)
    if kept is None:
        raise Problem(
            "unusual-unavailable",
            f"{version.ref} was imported, or made before unusual rows were kept; train it again, or score its"
            " dataset with a job.",
        )
    dataset = await in_thread(dataset_of, state, version.project, version.dataset_id)
    return await unusual_view(state, version, dataset, kept, asked)


async def _of_scoring(
    state: AppState, version: Version, dataset_id: str, asked: Asked
) -> UnusualView:
    """Return the rows that the newest scoring of a dataset by a version has found."""
    found = await in_thread(state.jobs.scored, version, dataset_id)
    if found is None:
        await in_thread(state.registry.dataset, version.project, dataset_id)
        raise Problem(
            "unusual-not-scored", f"No scoring job of {version.ref} has scored {dataset_id} yet."
        )
    return await _of_job(state, version.project, found, asked)


async def _of_job(state: AppState, project: str, job_id: str, asked: Asked) -> UnusualView:
    job = await in_thread(state.jobs.get, project, job_id)
    if job.kind is not JobKind.SCORING:
        raise Problem("job-without-result", "Only scoring jobs find unusual rows.")
    kept = await in_thread(state.jobs.unusual, project, job_id)
    if kept is None:
        result_of(job)
        told = "The job was made before unusual rows were kept; score the dataset again."
        raise Problem("unusual-unavailable", told)
    version = await state.models.resolve(project, job.request["model"])
    dataset = await in_thread(dataset_of, state, project, str(job.dataset_id))
    return await unusual_view(state, version, dataset, kept, asked, job_id=job.id)


async def _respond(view: UnusualView, media_type: str) -> Response:
    headers = {"Vary": "Accept"}
    if media_type == _JSON:
        return Response(view.model_dump_json(), media_type=_JSON, headers=headers)
    body, suffix = await in_thread(unusual_file, view, media_type)
    name = f"{view.model.replace(':', '-')}-unusual.{suffix}"
    headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(body, media_type=media_type, headers=headers)
