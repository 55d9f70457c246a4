"""Shares of projects in the engine: of its queue, and of its time."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from app.engine.batches import OverloadedError
from app.fairness.turns import QueueFullError, Turns, owner_here
from app.metrics import EngineMetrics

_SHARE = 32  # enough to fill batches


class Owned(Protocol):
    """Work on the account of a project."""

    owner: str


_Work = TypeVar("_Work", bound=Owned)


@dataclass(frozen=True)
class Terms:
    """Conditions under which a request is computed.

    Args:
        max_wait_s: seconds after which it is refused unless it has begun; None: the engine's own.
        admitted: it goes on with what was begun before, so it is never refused.
        row_bytes: memory that the computation takes for each row that is computed at a time.
    """

    max_wait_s: float | None = None
    admitted: bool = False
    row_bytes: int = 0

    def wait_s(self, most: float) -> float:
        """Return the seconds that the request may wait, which are `most` at the most."""
        return most if self.max_wait_s is None else min(self.max_wait_s, most)


class EngineShares:
    """Bounds the requests of one project in the queue: others of it wait outside, in nobody's way.

    Args:
        max_waiting: requests of one project that may wait outside.
        max_wait_s: longest time that one waits there.
        metrics: refusals are counted there.
    """

    def __init__(self, max_waiting: int, *, max_wait_s: float, metrics: EngineMetrics) -> None:
        self._turns = Turns(sys.maxsize, each=_SHARE, waiting=max_waiting)
        self._max_wait_s = max_wait_s
        self._metrics = metrics

    @asynccontextmanager
    async def share(self, terms: Terms) -> AsyncIterator[Terms]:
        """Wait until one more of this project may be in the queue; what is left of its terms.

        Raises:
            OverloadedError: it took too long, or too many of the project wait.
        """
        owner = owner_here()
        if not self._turns.take_now(owner):
            terms = await self._wait(owner, terms)
        try:
            yield terms
        finally:
            self._turns.give_back(owner)

    async def _wait(self, owner: str, terms: Terms) -> Terms:
        began = time.monotonic()
        wait_s = None if terms.admitted else terms.wait_s(self._max_wait_s)
        try:
            async with asyncio.timeout(wait_s):
                await self._turns.take(owner)
        except (TimeoutError, QueueFullError):
            self._metrics.refused.inc()
            raise OverloadedError from None
        if wait_s is None:
            return terms
        return replace(terms, max_wait_s=wait_s - (time.monotonic() - began))


class FairOrder:
    """Gives the engine to the project that had least of its time, among those that wait.

    By time and not by turns, because one turn of a flow that is inverted step by step takes as
    long as a thousand of another (start-time fair queueing). Who comes anew starts where the
    others are: time in which a project asked for nothing is not saved up.

    Belongs to the engine's thread.
    """

    def __init__(self) -> None:
        self._had: dict[str, float] = {}  # seconds; only of those that are ahead of the floor
        self._floor = 0.0

    def first(self, waiting: Iterable[_Work]) -> _Work:
        """Return the work whose turn it is; of one project the one that stands first.

        Args:
            waiting: at least one.
        """
        chosen = min(waiting, key=lambda work: self._had.get(work.owner, self._floor))
        self._floor = self._had.get(chosen.owner, self._floor)
        self._had = {owner: had for owner, had in self._had.items() if had > self._floor}
        return chosen

    def charge(self, owner: str, seconds: float) -> None:
        """Note how long the engine worked for a project, in seconds."""
        self._had[owner] = self._had.get(owner, self._floor) + seconds
