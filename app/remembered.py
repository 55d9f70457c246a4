"""Values of the database that requests use again and again."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from models_store.errors import DatabaseError

_PATIENCE_S = 1.0  # for a database that was there lately
_AHEAD = 0.5  # part of the time of a value after which it is asked for again, beside its requests

_Value = TypeVar("_Value")


class Remembered(Generic[_Value]):
    """Value that a query gives, asked for again before it is old; belongs to one event loop.

    Requests that wait for the same query share it. While the database cannot be reached, the value is
    what it was; a database that does not answer delays nobody twice.

    Args:
        stale_s: Seconds for which the value stands in while the database cannot be reached.
    """

    def __init__(self, query: Callable[[], Awaitable[_Value]], *, stale_s: float) -> None:
        self._query = query
        self._stale_s = stale_s
        self._known: tuple[float, _Value] | None = None
        self._look: asyncio.Task[_Value] | None = None
        self._silent = False

    @property
    def is_known(self) -> bool:
        """True once a query has given a value."""
        return self._known is not None

    def at_hand(self, fresh_s: float) -> _Value | None:
        """Return a value that is so fresh that nobody need ask for it again yet; None if `get` has to look."""
        known = self._known
        if known is not None and time.monotonic() - known[0] < _AHEAD * fresh_s:
            return known[1]
        return None

    async def get(self, fresh_s: float) -> _Value:
        """Return the value, of a query that began at most so many seconds ago where that is possible.

        Raises:
            StoreError: The query fails; by a `DatabaseError` only if those before did for too long.
        """
        known, now = self._known, time.monotonic()
        if known is not None and now - known[0] < _AHEAD * fresh_s:
            return known[1]
        look = self._look
        if look is None:
            look = self._look = asyncio.create_task(self._ask())
            look.add_done_callback(_retrieve)  # there may be nobody who waits for it
        if known is not None and now - known[0] < fresh_s:
            return known[1]
        if known is not None and now - known[0] < fresh_s + self._stale_s:
            await asyncio.wait({look}, timeout=0.0 if self._silent else _PATIENCE_S)
            self._silent = not look.done()
            if self._silent or isinstance(look.exception(), DatabaseError):
                return known[1]
        return await asyncio.shield(look)

    async def _ask(self) -> _Value:
        # What changes while the query is under way may not be in what it finds.
        began = time.monotonic()
        try:
            value = await self._query()
            self._known, self._silent = (began, value), False
            return value
        finally:
            self._look = None


def _retrieve(look: "asyncio.Task[_Value]") -> None:
    if not look.cancelled():
        look.exception()
