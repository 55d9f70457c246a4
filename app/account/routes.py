"""Routes of the caller, of the usage and of the keys of its project."""

from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response, status

from app.account.views import (
    AuditPage,
    AuditRecordView,
    KeyList,
    KeyRequest,
    KeyView,
    LimitsView,
    MeView,
    NewKeyView,
    ProjectList,
    ProjectRequest,
    ProjectView,
    RotationRequest,
    UsageView,
    VersionInfo,
)
from app.auth.callers import caller_of
from app.dependencies import ProjectDep, StateDep
from app.http.json_body import json_body, json_request
from app.limits import FairRoute
from app.problems.problem import Problem, problem_responses
from app.resources.listing import LINKED, PagingDep
from models_store.keys import MAX_KEYS

router = APIRouter(prefix="/v1", tags=["account"], route_class=FairRoute)

KeyId = Annotated[
    str,
    Path(
        max_length=100,
        description="Id of the key.",
        examples=["key_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f"],
    ),
]
Project = Annotated[
    str, Path(max_length=100, description="Name of the project.", examples=["fraud"])
]
_LIMITS = {
    "limited": {
        "summary": "10 GB, and 20 jobs that wait",
        "value": {"max_bytes": 10_000_000_000, "max_queued_jobs": 20},
    },
    "usual": {"summary": "The limits of the service", "value": {}},
}
_NEW_KEY = {
    "reader": {
        "summary": "A key that reads and scores",
        "value": {"scope": "read", "label": "nightly scoring", "expires_days": 90},
    }
}
_ROTATION = {
    "at once": {"summary": "The old key ends at once", "value": {}},
    "in an hour": {"summary": "Both are valid for an hour", "value": {"grace_s": 3600}},
}


@router.get("/version", operation_id="get_service_version", summary="Get the version")
async def get_service_version() -> VersionInfo:
    """Return the version of the service."""
    return VersionInfo(version=version("densityd"), api="v1")


@router.get("/me", operation_id="get_me", summary="Get the caller")
def get_me(request: Request, state: StateDep) -> MeView:
    """Return the project, the scope, the key and the limits of the caller."""
    caller = caller_of(request)
    of_key = caller.key_id is not None and not caller.is_person
    key = state.keys.get(caller.project, str(caller.key_id)) if of_key else None
    own = state.projects.limits(caller.project)
    rate = state.settings.rate_limit if caller.rate is None else caller.rate
    limits = LimitsView(
        requests_per_second=rate or None,
        open_requests=state.settings.max_open_requests,
        event_streams=state.settings.max_open_streams,
        uploads=state.settings.max_open_uploads,
        queued_jobs=_or(own.max_queued_jobs, state.settings.max_queued_jobs),
        stored_bytes=_or(own.max_bytes, state.settings.max_project_bytes),
    )
    return MeView(
        project=caller.project,
        scope=caller.scope,
        person=caller.key_id if caller.is_person else None,
        key=None if key is None else KeyView.of(key),
        limits=limits,
    )


@router.get("/usage", operation_id="get_usage", summary="Get the usage")
def get_usage(state: StateDep, project: ProjectDep) -> UsageView:
    """Return the storage and the requests that the project has used, with its quotas."""
    own = state.projects.limits(project)
    return UsageView.of(
        project,
        state.usage.of_project(project),
        max_bytes=_or(own.max_bytes, state.settings.max_project_bytes),
        max_queued=_or(own.max_queued_jobs, state.settings.max_queued_jobs),
    )


def _or(own: int | None, usual: int) -> int:
    return usual if own is None else own


@router.get("/projects", operation_id="list_projects", summary="List projects")
def list_projects(state: StateDep) -> ProjectList:
    """List all projects of the service; needs a key with scope `admin` of the project `default`."""
    return ProjectList(items=[ProjectView.of(one) for one in state.projects.list()])


@router.get(
    "/projects/{project}",
    operation_id="get_project",
    summary="Get a project",
    responses=problem_responses("not-found"),
)
def get_project(project: Project, state: StateDep) -> ProjectView:
    """Return a project; needs a key with scope `admin` of the project `default`."""
    return ProjectView.of(state.projects.get(project))


@router.put(
    "/projects/{project}",
    operation_id="put_project",
    summary="Make or limit a project",
    openapi_extra=json_request(ProjectRequest, examples=_LIMITS),
    responses=problem_responses("not-found"),
)
def put_project(
    body: Annotated[ProjectRequest, Depends(json_body(ProjectRequest))],
    project: Project,
    state: StateDep,
) -> ProjectView:
    """Make a project, or set its limits; needs a key with scope `admin` of the project `default`.

    What it stores already stays, and it stores no more while that is above its limit.
    """
    limits = body.model_dump()
    return ProjectView.of(state.projects.put(project, **limits))


@router.post(
    "/projects/{project}/keys",
    operation_id="create_project_key",
    summary="Create a key of a project",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=json_request(KeyRequest, examples=_NEW_KEY),
    response_description="Key with its token, which is not shown again.",
    responses=problem_responses("not-found", "conflict"),
)
def create_project_key(
    body: Annotated[KeyRequest, Depends(json_body(KeyRequest))],
    project: Project,
    request: Request,
    state: StateDep,
    response: Response,
) -> NewKeyView:
    """Create a key for any project; needs a key with scope `admin` of the project `default`."""
    state.projects.get(project)
    return create_key(body, request, state, project, response)


@router.get(
    "/audit",
    operation_id="list_audit",
    summary="List the changes",
    response_description="Page of changes.",
    responses={**LINKED, **problem_responses("cursor")},
)
def list_audit(state: StateDep, project: ProjectDep, paging: PagingDep) -> AuditPage:
    """List the requests that changed something in the project, newest first; needs scope `admin`."""
    page = state.audit.page(project, limit=paging.limit, cursor=paging.cursor)
    return paging.view(page, AuditRecordView.of, AuditPage)


@router.post(
    "/keys",
    operation_id="create_key",
    summary="Create a key",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=json_request(KeyRequest, examples=_NEW_KEY),
    response_description="Key with its token, which is not shown again.",
    responses=problem_responses("conflict"),
)
def create_key(
    body: Annotated[KeyRequest, Depends(json_body(KeyRequest))],
    request: Request,
    state: StateDep,
    project: ProjectDep,
    response: Response,
) -> NewKeyView:
    """Create a key for the caller's project. A service's first key is created on its machine."""
    caller = caller_of(request)
    if caller.key_id is None:
        raise Problem(
            "forbidden",
            "The first key is made on the machine of the service, with `densityd keys create`.",
        )
    rate = caller.rate if body.rate is None else body.rate
    if caller.rate is not None and rate is not None and rate > caller.rate:
        raise Problem("forbidden", "A key makes none with a higher rate than its own.")
    new = state.keys.create(
        project,
        body.scope,
        label=body.label,
        expires_days=body.expires_days,
        rate=rate,
        most=MAX_KEYS,
    )
    response.headers["Cache-Control"] = "no-store"
    return NewKeyView.whole(new)


@router.get("/keys", operation_id="list_keys", summary="List keys")
def list_keys(state: StateDep, project: ProjectDep) -> KeyList:
    """List the keys of the project, without their secrets."""
    return KeyList(items=[KeyView.of(key) for key in state.keys.list(project)])


@router.get(
    "/keys/{key_id}",
    operation_id="get_key",
    summary="Get a key",
    responses=problem_responses("not-found"),
)
def get_key(key_id: KeyId, state: StateDep, project: ProjectDep) -> KeyView:
    """Return a key, without its secret."""
    return KeyView.of(state.keys.get(project, key_id))


@router.post(
    "/keys/{key_id}/rotate",
    operation_id="rotate_key",
    summary="Replace a key",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=json_request(RotationRequest, examples=_ROTATION),
    response_description="New key with its token, which is not shown again.",
    responses=problem_responses("forbidden", "not-found", "conflict"),
)
def rotate_key(
    body: Annotated[RotationRequest, Depends(json_body(RotationRequest))],
    key_id: KeyId,
    request: Request,
    state: StateDep,
    project: ProjectDep,
    response: Response,
) -> NewKeyView:
    """Replace a key by a new one with the same properties; the old one works for `grace_s` more seconds.

    A caller whose key has a rate limit cannot replace a key that has a higher limit or none.
    """
    own, rate = caller_of(request).rate, state.keys.get(project, key_id).rate
    if own is not None and (rate is None or rate > own):
        raise Problem("forbidden", "A key makes none with a higher rate than its own.")
    response.headers["Cache-Control"] = "no-store"
    return NewKeyView.whole(state.keys.rotate(project, key_id, grace_s=body.grace_s))


@router.delete(
    "/keys/{key_id}",
    operation_id="revoke_key",
    summary="Revoke a key",
    response_description="Revoked key, which is kept as a record.",
    responses=problem_responses("not-found"),
)
def revoke_key(key_id: KeyId, state: StateDep, project: ProjectDep) -> KeyView:
    """Revoke a key for good; it is refused within two seconds."""
    return KeyView.of(state.keys.revoke(key_id, project=project))
