"""Models: the registry of trained flows, their versions and aliases."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Response, status

from app.dependencies import (
    DEFAULT_LIMIT,
    CursorQuery,
    LimitQuery,
    ModelsDep,
    ProjectDep,
    RegistryDep,
)
from app.json_body import json_body, json_request
from app.model_schemas import (
    AliasRequest,
    AliasView,
    ModelPage,
    ModelView,
    VersionPage,
    VersionView,
)
from app.problems import Problem, problem_responses
from models_store.errors import NotFoundError
from models_store.registry import Alias
from models_store.schemas import Name

router = APIRouter(prefix="/v1/models", tags=["models"])

ModelName = Annotated[Name, Path(description="Of the model.", examples=["shuttle"])]
AliasName = Annotated[Name, Path(description="Of the alias.", examples=["production"])]
VersionNumber = Annotated[
    int, Path(ge=1, le=2**31 - 1, description="Of the version.", examples=[1])
]
IfMatch = Annotated[
    str | None,
    Header(
        max_length=100,
        description="The alias's ETag: do it only if the alias has not moved since. `*`: only if it"
        " exists.",
    ),
]
IfNoneMatch = Annotated[
    str | None, Header(max_length=100, description="`*`: only if the alias does not exist.")
]

_ETAG = {"ETag": {"description": "Changes with every move.", "schema": {"type": "string"}}}
_ALIAS_BODY = json_request(
    AliasRequest, examples={"promote": {"summary": "Promote version 1", "value": {"version": 1}}}
)


@router.get(
    "", operation_id="list_models", summary="List models", responses=problem_responses("cursor")
)
def list_models(
    registry: RegistryDep,
    project: ProjectDep,
    limit: LimitQuery = DEFAULT_LIMIT,
    cursor: CursorQuery = None,
) -> ModelPage:
    """List models, newest first."""
    return ModelPage.of(registry.models(project, limit=limit, cursor=cursor))


@router.get(
    "/{name}",
    operation_id="get_model",
    summary="Look at a model",
    responses=problem_responses("not-found"),
)
def get_model(name: ModelName, registry: RegistryDep, project: ProjectDep) -> ModelView:
    """A model's newest version, and where its aliases point."""
    return ModelView.of(registry.model(project, name))


@router.get(
    "/{name}/versions",
    operation_id="list_versions",
    summary="List the versions of a model",
    responses=problem_responses("not-found", "cursor"),
)
def list_versions(
    name: ModelName,
    registry: RegistryDep,
    project: ProjectDep,
    limit: LimitQuery = DEFAULT_LIMIT,
    cursor: CursorQuery = None,
) -> VersionPage:
    """List the versions of a model, newest first."""
    return VersionPage.of(registry.versions(project, name, limit=limit, cursor=cursor))


@router.get(
    "/{name}/versions/{version}",
    operation_id="get_version",
    summary="Look at a version",
    responses=problem_responses("not-found"),
)
def get_version(
    name: ModelName, version: VersionNumber, registry: RegistryDep, project: ProjectDep
) -> VersionView:
    """What a version is, how good it is, and what it was made from."""
    return VersionView.of(registry.version(project, name, version))


class AliasTarget:
    """An alias, and what a request says about the state that it expects to find it in."""

    def __init__(
        self, name: ModelName, alias: AliasName, registry: RegistryDep, project: ProjectDep
    ) -> None:
        self.model = name
        self._alias = alias
        self._registry = registry
        self._project = project

    def get(self) -> Alias:
        """Where it points."""
        return self._registry.alias(self._project, self.model, self._alias)

    def set(self, version: int, *, if_match: int | None) -> Alias:
        """Point it at a version."""
        return self._registry.set_alias(
            self._project, self.model, self._alias, version=version, if_match=if_match
        )

    def delete(self, *, if_match: int | None) -> None:
        """Remove it."""
        self._registry.delete_alias(self._project, self.model, self._alias, if_match=if_match)

    def expected(self, if_match: str | None, if_none_match: str | None = None) -> int | None:
        """The revision that it must be at: 0 for not there yet, None for any.

        Raises:
            Problem: `precondition`, when it cannot be as expected.
        """
        if if_none_match is not None:
            if if_none_match != "*" or if_match is not None:
                raise Problem("bad-request", "If-None-Match takes `*`, and no If-Match beside it.")
            return 0
        if if_match is None:
            return None
        if if_match == "*":
            return self._present()
        tag = if_match[1:-1]
        if if_match != f'"{tag}"' or not (tag.isascii() and tag.isdecimal()):
            raise Problem("precondition", "If-Match is not an ETag of this alias.")
        return int(tag)

    def _present(self) -> int:
        try:
            return self.get().revision
        except NotFoundError as error:
            raise Problem("precondition", "The alias does not exist.") from error


def _view(target: AliasTarget, alias: Alias, response: Response) -> AliasView:
    response.headers["ETag"] = f'"{alias.revision}"'
    return AliasView.of(target.model, alias)


@router.get(
    "/{name}/aliases/{alias}",
    operation_id="get_alias",
    summary="Look at an alias",
    responses={200: {"headers": _ETAG}, **problem_responses("not-found")},
)
def get_alias(target: Annotated[AliasTarget, Depends()], response: Response) -> AliasView:
    """Where an alias points; its ETag makes a later move conditional."""
    return _view(target, target.get(), response)


@router.put(
    "/{name}/aliases/{alias}",
    operation_id="set_alias",
    summary="Point an alias at a version",
    openapi_extra=_ALIAS_BODY,
    responses={
        200: {"headers": _ETAG},
        **problem_responses("not-found", "precondition", "bad-request"),
    },
)
def set_alias(
    body: Annotated[AliasRequest, Depends(json_body(AliasRequest))],
    target: Annotated[AliasTarget, Depends()],
    models: ModelsDep,
    response: Response,
    *,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> AliasView:
    """Point an alias at a version, atomically; requests that name the alias follow at once."""
    moved = target.set(body.version, if_match=target.expected(if_match, if_none_match))
    models.forget()
    return _view(target, moved, response)


@router.delete(
    "/{name}/aliases/{alias}",
    operation_id="delete_alias",
    summary="Delete an alias",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses("not-found", "precondition", "bad-request"),
)
def delete_alias(
    target: Annotated[AliasTarget, Depends()], models: ModelsDep, if_match: IfMatch = None
) -> None:
    """Delete an alias; the version stays."""
    target.delete(if_match=target.expected(if_match))
    models.forget()
