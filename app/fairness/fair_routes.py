"""Routes that work in threads, of which one project has a bounded number at once."""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.fairness.turns import Turns, owner_here

EACH = 2
"""Most requests of one project in such routes at once; others of it wait."""


class FairRoute(APIRoute):
    """Route with a function that runs in a thread when its project's turn comes.

    Threads, connections to the database and the interpreter's lock are few: without this, one
    caller's hundred lists come before everybody's next request.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request; its response is sent afterwards, without a turn."""
        handle = super().get_route_handler()
        if inspect.iscoroutinefunction(self.endpoint):
            return handle

        async def in_turn(request: Request) -> Response:
            turns: Turns = request.app.state.route_turns
            async with turns.turn(owner_here()):
                return await handle(request)

        return in_turn
