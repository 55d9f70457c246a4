"""Dependencies of routes: objects of the application's state, and the caller's project."""

from collections.abc import Awaitable, Callable
from functools import cache
from inspect import signature
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request

from app.auth.callers import project_of
from app.engine.loaded_models import LoadedModels
from app.server.broker import Broker
from app.settings import ApiSettings
from app.state import AppState, state_of
from models_store.aliases import Aliases
from models_store.audit import AuditTrail
from models_store.computed import Usage
from models_store.files.blobs import Blobs
from models_store.jobs.jobs import Jobs
from models_store.keys import Keys
from models_store.labels import Labels
from models_store.projects import Projects
from models_store.registry import Registry
from models_store.reviews import Reviews
from models_store.webhooks.webhooks import Webhooks

_Object = TypeVar("_Object")


def _from_state(get: Callable[[AppState], object]) -> Any:  # noqa: ANN401  as `Depends` itself
    # Async although it never waits: FastAPI sends plain functions to a thread each.
    async def dependency(request: Request) -> object:
        return get(state_of(request))

    return Depends(dependency)


@cache
def built(kind: Callable[..., _Object]) -> Callable[..., Awaitable[_Object]]:
    """Return the function that builds an object of a class from a request, to depend on.

    It is async although it never waits: FastAPI calls classes themselves in a thread each.
    """

    async def build(**values: object) -> _Object:
        return kind(**values)

    build.__signature__ = signature(kind)  # type: ignore[attr-defined]  # by which it gets its values
    return build


async def _project(request: Request) -> str:
    return project_of(request)


StateDep = Annotated[AppState, _from_state(lambda state: state)]
SettingsDep = Annotated[ApiSettings, _from_state(lambda state: state.settings)]
BlobsDep = Annotated[Blobs, _from_state(lambda state: state.blobs)]
AliasesDep = Annotated[Aliases, _from_state(lambda state: state.aliases)]
RegistryDep = Annotated[Registry, _from_state(lambda state: state.registry)]
JobsDep = Annotated[Jobs, _from_state(lambda state: state.jobs)]
ReviewsDep = Annotated[Reviews, _from_state(lambda state: state.reviews)]
LabelsDep = Annotated[Labels, _from_state(lambda state: state.labels)]
WebhooksDep = Annotated[Webhooks, _from_state(lambda state: state.webhooks)]
AuditDep = Annotated[AuditTrail, _from_state(lambda state: state.audit)]
KeysDep = Annotated[Keys, _from_state(lambda state: state.keys)]
ProjectsDep = Annotated[Projects, _from_state(lambda state: state.projects)]
UsageDep = Annotated[Usage, _from_state(lambda state: state.usage)]
BrokerDep = Annotated[Broker, _from_state(lambda state: state.broker)]
ModelsDep = Annotated[LoadedModels, _from_state(lambda state: state.models)]
ProjectDep = Annotated[str, Depends(_project)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Unique string, such as a UUID. A repeated request with the same key and body"
        " gives the first response again and creates nothing.",
    ),
]
REPLAYED = {
    "description": "`true` if this is the stored response to an earlier request with the same key.",
    "schema": {"type": "string"},
}
"""OpenAPI object of the header `Idempotent-Replayed`."""
