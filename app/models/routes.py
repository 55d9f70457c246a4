"""Models: the registry of trained flows, their versions and aliases."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response, status

from app.dependencies import (
    BlobsDep,
    LabelsDep,
    ModelsDep,
    ProjectDep,
    RegistryDep,
)
from app.fairness.fair_routes import FairRoute
from app.http.head import end_head, is_head
from app.http.json_body import json_body, json_request
from app.models.views import AliasRequest, AliasView, ModelPage, ModelView, VersionPage, VersionView
from app.problems.problem import Problem, problem_responses
from app.resources.etags import (
    ETAG,
    NOT_MODIFIED,
    IfMatch,
    IfNoneMatch,
    Preconditions,
    PreconditionsDep,
    etag_of_view,
)
from app.resources.labels import LABEL_EXAMPLES, LabelsRequest
from app.resources.large_answers import answer_large
from app.resources.listing import LINKED, NamePrefix, PagingDep, SelectionDep
from models_store.files.job_files import delete_unneeded
from models_store.registry import Alias, Model, Version
from models_store.requests.training import Name

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=FairRoute)

ModelName = Annotated[Name, Path(description="Name of the model.", examples=["shuttle"])]
AliasName = Annotated[Name, Path(description="Name of the alias.", examples=["production"])]
VersionNumber = Annotated[
    int, Path(ge=1, le=2**31 - 1, description="Number of the version.", examples=[1])
]


class VersionTarget:
    """Version that a request names."""

    def __init__(self, name: ModelName, version: VersionNumber, project: ProjectDep) -> None:
        self.model = name
        self.number = version
        self.project = project


_ETAG = {
    "ETag": {
        "description": "Tag of the alias, which changes whenever the alias moves.",
        "schema": {"type": "string"},
    }
}
_ALIAS_BODY = json_request(
    AliasRequest, examples={"promote": {"summary": "Promote version 1", "value": {"version": 1}}}
)


@router.get(
    "",
    operation_id="list_models",
    summary="List models",
    response_description="Page of models.",
    responses={**LINKED, **problem_responses("cursor")},
)
def list_models(
    registry: RegistryDep,
    project: ProjectDep,
    paging: PagingDep,
    selection: SelectionDep,
    name_prefix: NamePrefix = None,
) -> ModelPage:
    """List models with the metrics of their newest versions, newest models first."""
    filters = selection.filters(name_prefix=name_prefix)
    page = registry.models(project, limit=paging.limit, cursor=paging.cursor, filters=filters)
    return paging.link(ModelPage.of(page))


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
    name: ModelName,
    registry: RegistryDep,
    project: ProjectDep,
    blobs: BlobsDep,
    conditions: PreconditionsDep,
) -> Response:
    """Return a model: its newest version, its aliases and its tags."""
    return answer_large(ModelView.of(registry.model(project, name)), blobs, conditions)


@router.patch(
    "/{name}",
    operation_id="update_model",
    summary="Describe and tag a model",
    openapi_extra=json_request(LabelsRequest, examples=LABEL_EXAMPLES),
    responses={
        200: {"headers": ETAG},
        **problem_responses("not-found", "precondition", "limit-tags"),
    },
)
def update_model(
    body: Annotated[LabelsRequest, Depends(json_body(LabelsRequest))],
    name: ModelName,
    labels: LabelsDep,
    project: ProjectDep,
    conditions: PreconditionsDep,
    response: Response,
) -> ModelView:
    """Change the description and tags of a model; what the body leaves out stays."""

    def holds(model: Model) -> bool:
        return conditions.hold(etag_of_view(ModelView.of(model)))

    view = ModelView.of(labels.model(project, name, body.change(), holds))
    response.headers["ETag"] = etag_of_view(view)
    return view


@router.delete(
    "/{name}",
    operation_id="delete_model",
    summary="Delete a model",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="The model is deleted.",
    responses=problem_responses("not-found", "version-in-use"),
)
def delete_model(
    name: ModelName,
    registry: RegistryDep,
    project: ProjectDep,
    blobs: BlobsDep,
    models: ModelsDep,
) -> None:
    """Delete all versions of a model that has no alias and that no unfinished job uses.

    If the name is used again, its versions go on from the highest number that there was.
    """
    keys = registry.delete_model(project, name)
    models.forget()
    delete_unneeded(blobs, *keys)


@router.get(
    "/{name}/versions",
    operation_id="list_versions",
    summary="List the versions of a model",
    responses={**LINKED, **problem_responses("not-found", "cursor")},
)
def list_versions(
    name: ModelName,
    registry: RegistryDep,
    project: ProjectDep,
    paging: PagingDep,
    selection: SelectionDep,
) -> VersionPage:
    """List the versions of a model, newest first, without columns, specs and targets."""
    page = registry.versions(
        project, name, limit=paging.limit, cursor=paging.cursor, filters=selection.filters()
    )
    return paging.link(VersionPage.of(page))


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
    request: Request,
    target: Annotated[VersionTarget, Depends()],
    registry: RegistryDep,
    blobs: BlobsDep,
    conditions: PreconditionsDep,
) -> Response:
    """Return a version: its flow, its metrics and its origin."""
    if is_head(request):
        registry.version_summary(target.project, target.model, target.number)
        end_head(request)
    found = registry.version(target.project, target.model, target.number)
    return answer_large(VersionView.of(found), blobs, conditions)


@router.patch(
    "/{name}/versions/{version}",
    operation_id="update_version",
    summary="Describe and tag a version",
    openapi_extra=json_request(LabelsRequest, examples=LABEL_EXAMPLES),
    responses={
        200: {"headers": ETAG},
        **problem_responses("not-found", "precondition", "limit-tags"),
    },
)
def update_version(
    body: Annotated[LabelsRequest, Depends(json_body(LabelsRequest))],
    target: Annotated[VersionTarget, Depends()],
    labels: LabelsDep,
    conditions: PreconditionsDep,
    response: Response,
) -> VersionView:
    """Change the description and tags of a version; what the body leaves out stays."""

    def holds(version: Version) -> bool:
        return conditions.hold(etag_of_view(VersionView.of(version)))

    place = (target.project, target.model, target.number)
    view = VersionView.of(labels.version(*place, body.change(), holds))
    response.headers["ETag"] = etag_of_view(view)
    return view


@router.delete(
    "/{name}/versions/{version}",
    operation_id="delete_version",
    summary="Delete a version",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="The version is deleted.",
    responses=problem_responses("not-found", "version-in-use"),
)
def delete_version(
    name: ModelName,
    version: VersionNumber,
    registry: RegistryDep,
    project: ProjectDep,
    blobs: BlobsDep,
    models: ModelsDep,
) -> None:
    """Delete a version that no alias points at and that no unfinished job uses.

    Its number is never used again, so that a reference never means another version. Requests that
    are being computed finish. The job that made it, and its results of other jobs, stay.
    """
    keys = registry.delete_version(project, name, version)
    models.forget()
    delete_unneeded(blobs, *keys)


class AliasTarget:
    """Alias that a request names, and the state that the request expects to find it in."""

    def __init__(
        self,
        name: ModelName,
        alias: AliasName,
        registry: RegistryDep,
        project: ProjectDep,
        *,
        if_match: IfMatch = None,
        if_none_match: IfNoneMatch = None,
    ) -> None:
        self.model = name
        self.preconditions = Preconditions.of(if_match, if_none_match)
        self._alias = alias
        self._registry = registry
        self._project = project

    def get(self) -> Alias:
        """Return where it points."""
        return self._registry.alias(self._project, self.model, self._alias)

    def set(self, version: int) -> Alias:
        """Point it at a version."""
        return self._registry.set_alias(
            self._project, self.model, self._alias, version=version, condition=self._holds
        )

    def delete(self) -> None:
        """Remove it."""
        self._registry.delete_alias(self._project, self.model, self._alias, condition=self._holds)

    def _holds(self, revision: int | None) -> bool:
        return self.preconditions.hold(None if revision is None else _tag(revision))


def _tag(revision: int) -> str:
    return f'"{revision}"'


def _view(target: AliasTarget, alias: Alias, response: Response) -> AliasView:
    response.headers["ETag"] = _tag(alias.revision)
    return AliasView.of(target.model, alias)


@router.get(
    "/{name}/aliases/{alias}",
    operation_id="get_alias",
    summary="Get an alias",
    response_model=AliasView,
    responses={
        200: {"headers": _ETAG},
        304: {"description": "The ETag of the alias is one of `If-None-Match`.", "headers": _ETAG},
        **problem_responses("not-found", "precondition"),
    },
)
def get_alias(
    target: Annotated[AliasTarget, Depends()], response: Response
) -> AliasView | Response:
    """Return the version that an alias points at; its ETag makes a later change conditional."""
    alias = target.get()
    tag = _tag(alias.revision)
    if not target.preconditions.matched(tag):
        raise Problem("precondition", "The alias is at another revision.")
    if not target.preconditions.new(tag):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers={"ETag": tag})
    return _view(target, alias, response)


@router.put(
    "/{name}/aliases/{alias}",
    operation_id="set_alias",
    summary="Point an alias at a version",
    openapi_extra=_ALIAS_BODY,
    responses={
        200: {"headers": _ETAG},
        **problem_responses("not-found", "precondition", "limit-aliases"),
    },
)
def set_alias(
    body: Annotated[AliasRequest, Depends(json_body(AliasRequest))],
    target: Annotated[AliasTarget, Depends()],
    models: ModelsDep,
    response: Response,
) -> AliasView:
    """Point an alias at a version, atomically; later requests to the alias use that version."""
    moved = target.set(body.version)
    models.forget()
    return _view(target, moved, response)


@router.delete(
    "/{name}/aliases/{alias}",
    operation_id="delete_alias",
    summary="Delete an alias",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses("not-found", "precondition"),
)
def delete_alias(target: Annotated[AliasTarget, Depends()], models: ModelsDep) -> None:
    """Delete an alias; the version stays."""
    target.delete()
    models.forget()
