"""Routes that work in threads: one project has a bounded number of them at work."""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.fairness.turns import Turns, owner_here

EACH = 4
"""Requests of one project that are in such routes at once; others of it wait."""


class FairRoute(APIRoute):
    """A route whose function, if it is no coroutine, runs in a thread when its project's turn comes.

    Threads, connections to the database and the interpreter's lock are few: without this, one
    caller's hundred lists come before everybody's next request.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what serves a request; its answer is sent afterwards, and holds no turn."""
        handle = super().get_route_handler()
        if inspect.iscoroutinefunction(self.endpoint):
            return handle

        async def in_turn(request: Request) -> Response:
            turns: Turns = request.app.state.route_turns
            async with turns.turn(owner_here()):
                return await handle(request)

        return in_turn
