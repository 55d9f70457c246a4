"""Dependencies of routes: the application's state, the caller's project, and the idempotency key."""

from collections.abc import Awaitable, Callable
from functools import cache
from inspect import signature
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request

from app.auth.callers import project_of
from app.state import AppState, state_of

_Object = TypeVar("_Object")


@cache
def built(kind: Callable[..., _Object]) -> Callable[..., Awaitable[_Object]]:
    """Return the function that builds an object of a class from a request, to depend on.

    It is async although it never waits: FastAPI calls classes themselves in a thread each.
    """

    async def build(**values: object) -> _Object:
        return kind(**values)

    build.__signature__ = signature(kind)  # type: ignore[attr-defined]  # by which it gets its values
    return build


# Async although they never wait: FastAPI sends plain functions to a thread each.
async def _state(request: Request) -> AppState:
    return state_of(request)


async def _project(request: Request) -> str:
    return project_of(request)


StateDep = Annotated[AppState, Depends(_state)]
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
