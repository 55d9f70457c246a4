"""Models: the registry of trained flows, their versions and aliases."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response, status

from app.dependencies import ProjectDep, StateDep
from app.http.examples import MODEL
from app.http.json_body import json_body, json_request
from app.limits import FairRoute
from app.models.views import (
    AliasChangePage,
    AliasChangeView,
    AliasRequest,
    AliasView,
    ModelPage,
    ModelView,
    VersionPage,
    VersionSummaryView,
    VersionView,
)
from app.problems.problem import problem_responses
from app.resources.etags import (
    ETAG,
    NO_CONDITIONS,
    NOT_MODIFIED,
    Preconditions,
    PreconditionsDep,
    respond,
)
from app.resources.labels import LABEL_ROUTE, LabelUpdateDep
from app.resources.listing import LINKED, NamePrefix, PagingDep, SelectionDep
from models_store.files.job_files import delete_unneeded
from models_store.requests.training import Name
from models_store.rows.versions import LargeField

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=FairRoute)

ModelName = Annotated[Name, Path(description="Name of the model.", examples=[MODEL])]
AliasName = Annotated[Name, Path(description="Name of the alias.", examples=["production"])]
VersionNumber = Annotated[
    int, Path(ge=1, le=2**31 - 1, description="Number of the version.", examples=[1])
]
Include = Annotated[
    list[LargeField] | None,
    Query(
        max_length=4,
        description="Field that the items have in addition, as in the version; may be repeated.",
        examples=[["flow", "preprocessing"]],
    ),
]


_ALIAS_BODY = json_request(
    AliasRequest,
    examples={
        "promote": {
            "summary": "Promote version 1",
            "value": {"version": 1, "reason": "Better on the rows of this week"},
        }
    },
)


@router.get(
    "",
    operation_id="list_models",
    summary="List models",
    response_description="Page of models.",
    responses={**LINKED, **problem_responses("cursor")},
)
def list_models(
    state: StateDep,
    project: ProjectDep,
    paging: PagingDep,
    selection: SelectionDep,
    name_prefix: NamePrefix = None,
) -> ModelPage:
    """List models with the metrics of their newest versions, newest models first."""
    filters = selection.filters(name_prefix=name_prefix)
    page = state.registry.models(project, limit=paging.limit, cursor=paging.cursor, filters=filters)
    return paging.view(page, ModelView.of, ModelPage)


@router.get(
    "/{name}",
    operation_id="get_model",
    summary="Get a model",
    response_model=ModelView,
    responses={
        200: {"headers": ETAG},
        304: NOT_MODIFIED,
        **problem_responses("not-found", "precondition"),
    },
)
def get_model(
    name: ModelName, state: StateDep, project: ProjectDep, conditions: PreconditionsDep
) -> Response:
    """Return a model: its newest version, its aliases and its tags."""
    return respond(ModelView.of(state.registry.model(project, name)), conditions)


@router.patch(
    "/{name}",
    operation_id="update_model",
    summary="Describe and tag a model",
    response_model=ModelView,
    **LABEL_ROUTE,
)
def update_model(
    name: ModelName, state: StateDep, project: ProjectDep, update: LabelUpdateDep
) -> Response:
    """Change the description and tags of a model; fields that the body leaves out stay unchanged."""
    return update.make(partial(state.labels.model, project, name), ModelView.of)


@router.delete(
    "/{name}",
    operation_id="delete_model",
    summary="Delete a model",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="The model is deleted.",
    responses=problem_responses("not-found", "version-in-use"),
)
def delete_model(name: ModelName, state: StateDep, project: ProjectDep) -> None:
    """Delete all versions of a model that has no alias and that no unfinished job uses.

    If the name is used again, version numbers continue after the highest one so far.
    """
    keys = state.registry.delete_model(project, name)
    state.models.forget(project)
    delete_unneeded(state.blobs, *keys)


@router.get(
    "/{name}/versions",
    operation_id="list_versions",
    summary="List the versions of a model",
    response_model_exclude_unset=True,
    responses={**LINKED, **problem_responses("not-found", "cursor")},
)
def list_versions(
    name: ModelName,
    state: StateDep,
    project: ProjectDep,
    paging: PagingDep,
    selection: SelectionDep,
    include: Include = None,
) -> VersionPage:
    """List the versions of a model, newest first.

    Columns, specs, targets and quantiles are left out, but for the fields that `include` names: to
    compare versions, list them with `include=columns&include=flow&include=preprocessing`.
    """
    page = state.registry.versions(
        project,
        name,
        limit=paging.limit,
        cursor=paging.cursor,
        filters=selection.filters(),
        include=include or (),
    )
    return paging.view(page, VersionSummaryView.of, VersionPage)


@router.get(
    "/{name}/versions/{version}",
    operation_id="get_version",
    summary="Get a version",
    response_model=VersionView,
    responses={
        200: {"headers": ETAG},
        304: NOT_MODIFIED,
        **problem_responses("not-found", "precondition"),
    },
)
def get_version(
    name: ModelName,
    version: VersionNumber,
    state: StateDep,
    project: ProjectDep,
    conditions: PreconditionsDep,
) -> Response:
    """Return a version: its flow, its metrics and its origin."""
    found = state.registry.version(project, name, version)
    return respond(VersionView.of(found), conditions)


@router.patch(
    "/{name}/versions/{version}",
    operation_id="update_version",
    summary="Describe and tag a version",
    response_model=VersionView,
    **LABEL_ROUTE,
)
def update_version(
    name: ModelName,
    version: VersionNumber,
    state: StateDep,
    project: ProjectDep,
    update: LabelUpdateDep,
) -> Response:
    """Change the description and tags of a version; fields that the body leaves out stay unchanged."""
    return update.make(partial(state.labels.version, project, name, version), VersionView.of)


@router.delete(
    "/{name}/versions/{version}",
    operation_id="delete_version",
    summary="Delete a version",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="The version is deleted.",
    responses=problem_responses("not-found", "version-in-use"),
)
def delete_version(
    name: ModelName, version: VersionNumber, state: StateDep, project: ProjectDep
) -> None:
    """Delete a version that no alias points at and that no unfinished job uses.

    Its number is never used again, so that a reference never means another version. Requests that
    are being computed finish. The job that made it, and its results of other jobs, stay.
    """
    keys = state.registry.delete_version(project, name, version)
    state.models.forget(project)
    delete_unneeded(state.blobs, *keys)


def _tag(revision: int) -> str:
    return f'"{revision}"'


def _condition(preconditions: Preconditions) -> Callable[[int | None], bool]:
    """Return the condition on the revision of an alias that the tags of a request stand for."""
    return lambda revision: preconditions.hold(None if revision is None else _tag(revision))


@router.get(
    "/{name}/history",
    operation_id="list_alias_changes",
    summary="List the changes of aliases",
    responses={**LINKED, **problem_responses("not-found", "cursor")},
)
def list_alias_changes(
    name: ModelName, state: StateDep, project: ProjectDep, paging: PagingDep
) -> AliasChangePage:
    """List the changes of a model's aliases with their times and reasons, newest first.

    The 1,000 newest changes are kept.
    """
    page = state.aliases.changes(project, name, limit=paging.limit, cursor=paging.cursor)
    return paging.view(page, AliasChangeView.of, AliasChangePage)


@router.get(
    "/{name}/aliases/{alias}",
    operation_id="get_alias",
    summary="Get an alias",
    response_model=AliasView,
    responses={
        200: {"headers": ETAG},
        304: NOT_MODIFIED,
        **problem_responses("not-found", "precondition"),
    },
)
def get_alias(
    name: ModelName,
    alias: AliasName,
    state: StateDep,
    project: ProjectDep,
    conditions: PreconditionsDep,
) -> Response:
    """Return the version that an alias points at; its ETag makes a later change conditional."""
    found = state.aliases.get(project, name, alias)
    return respond(AliasView.of(name, found), conditions, tag=_tag(found.revision))


@router.put(
    "/{name}/aliases/{alias}",
    operation_id="set_alias",
    summary="Point an alias at a version",
    response_model=AliasView,
    openapi_extra=_ALIAS_BODY,
    responses={
        200: {"headers": ETAG},
        **problem_responses("not-found", "precondition", "limit-aliases"),
    },
)
def set_alias(
    body: Annotated[AliasRequest, Depends(json_body(AliasRequest))],
    name: ModelName,
    alias: AliasName,
    state: StateDep,
    project: ProjectDep,
    conditions: PreconditionsDep,
) -> Response:
    """Point an alias at a version, atomically; later requests to the alias use that version."""
    condition = _condition(conditions)
    moved = state.aliases.set(
        project, name, alias, version=body.version, reason=body.reason, condition=condition
    )
    state.models.forget(project)
    return respond(AliasView.of(name, moved), NO_CONDITIONS, tag=_tag(moved.revision))


@router.delete(
    "/{name}/aliases/{alias}",
    operation_id="delete_alias",
    summary="Delete an alias",
    response_description="The alias is deleted.",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses("not-found", "precondition"),
)
def delete_alias(
    name: ModelName,
    alias: AliasName,
    state: StateDep,
    project: ProjectDep,
    conditions: PreconditionsDep,
) -> None:
    """Delete an alias; the version stays."""
    state.aliases.delete(project, name, alias, condition=_condition(conditions))
    state.models.forget(project)
