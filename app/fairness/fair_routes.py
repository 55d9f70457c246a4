"""Routes that work in threads, of which one project has a bounded number at once."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from app.fairness.leaving import disconnected
from app.fairness.turns import Turns, forgetting, owner_here

EACH = 2
"""Most requests of one project in such routes at once; others of it wait."""
PAGES_EACH = 1
"""The same of pages of listings: making one keeps the interpreter's lock, so that two take as long in turn."""
_READING = "GET", "HEAD"


class FairRoute(APIRoute):
    """Route with a function that runs in a thread when its project's turn comes.

    Threads, connections to the database and the interpreter's lock are few: without this, one
    caller's hundred lists come before everybody's next request. Where the threads of two pages want
    the interpreter's lock, the event loop waits for both of them before each of its steps.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401 - FastAPI's own
        if not inspect.iscoroutinefunction(endpoint):
            endpoint = _forgetting(endpoint)
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request; its response is sent afterwards, without a turn."""
        handle = super().get_route_handler()
        if inspect.iscoroutinefunction(self.endpoint):
            return handle

        async def in_turn(request: Request) -> Response:
            async with _turn(request.app.state.route_turns, request):
                return await handle(request)

        async def page_in_turn(request: Request) -> Response:
            async with _turn(request.app.state.page_turns, request):
                return await in_turn(request)

        return page_in_turn if _is_page(self.dependant) else in_turn


@asynccontextmanager
async def _turn(turns: Turns, request: Request) -> AsyncIterator[None]:
    """Hold a turn; nothing is read in it for a caller who left while waiting for it.

    Raises:
        ClientDisconnect: The caller has left.
    """
    owner = owner_here()
    has_left = False
    if not turns.take_now(owner):
        has_left = await _left_while(request, turns.take(owner))
    try:
        if has_left:
            raise ClientDisconnect
        yield
    finally:
        turns.give_back(owner)


async def _left_while(request: Request, waiting: Coroutine[Any, Any, None]) -> bool:
    """Wait; return whether the caller of a request that only reads has left meanwhile."""
    if request.method not in _READING:  # a body must not be read here, and changes are made
        await waiting
        return False
    gone = asyncio.create_task(disconnected(request.receive))
    try:
        await waiting
        return gone.done() and gone.exception() is None  # or else its body is late, or too large
    finally:
        gone.cancel()


def _is_page(needs: Dependant) -> bool:
    """Return whether a route takes the cursor of a page."""
    taken = {parameter.alias for parameter in needs.query_params}
    return "cursor" in taken or any(map(_is_page, needs.dependencies))


def _forgetting(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return an endpoint whose refusals keep nothing: thousands of columns go in its thread, too."""

    @wraps(endpoint)
    def forget(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - those of any endpoint
        return forgetting(partial(endpoint, *args, **kwargs))

    return forget
