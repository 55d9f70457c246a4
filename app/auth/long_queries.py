"""Turns of requests whose query keeps the event loop for longer than other requests do."""

import asyncio

from app.fairness.turns import QueueFullError, Turns
from app.problems.problem import Problem

# Marks are those that `checked_target` counts; to read one takes about a microsecond.
_MOST_MARKS = 1024
_REST_S = 0.05
_MOST_WAITING = 64


class LongQueries:
    """Turns at reading long queries, of which one begins each twentieth of a second.

    A query has room for thousands of parameters, of which an upload may need as many as a table has
    columns. Others wait for milliseconds while one is read, in each step that their requests take. Belongs
    to one event loop.
    """

    def __init__(self) -> None:
        self._turns = Turns(1, each=1, waiting=_MOST_WAITING)

    async def wait(self, query: bytes, owner: str) -> None:
        """Wait until the owner's query may be read; a short one at once.

        Args:
            query: Query of a request.
            owner: Project of the request; all without one share a name.

        Raises:
            Problem: `overloaded`, when too many of the owner wait.
        """
        if len(query) <= _MOST_MARKS or 2 * query.count(b"&") + query.count(b"%") <= _MOST_MARKS:
            return
        try:
            async with self._turns.turn(owner):
                await asyncio.sleep(_REST_S)
        except QueueFullError:
            raise Problem("overloaded", "Too many long queries wait.") from None
