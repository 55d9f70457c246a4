"""Shares of projects in the queue of the engine."""

import asyncio
import sys
import time
from dataclasses import dataclass, replace

from app.engine.batches import OverloadedError
from app.fairness.turns import QueueFullError, Turns
from app.metrics import EngineMetrics
from flows import turn_rows

_SHARE = 32  # enough to fill batches
# Rows computed at a time may take so much memory while they are: it takes some 20 ms to fill, which
# bounds how long others wait for the first turn of a large flow.
_TURN_BYTES = 16 * 2**20
_MOST_ROWS = 8192
# Rows that a flow computes at a time while its speed is not known, or for small requests together.
_FIRST_ROWS = 256


@dataclass(frozen=True)
class Terms:
    """Conditions under which a request is computed.

    Args:
        max_wait_s: Seconds after which it is refused if it has not begun; None: the engine's limit.
        admitted: True for a request that continues, which is never refused.
        row_bytes: Memory in bytes for each row that is computed at a time.
        passes: Rows that the flow computes for each row.
        operations: Time of a few rows of the flow, in small operations of about a microsecond.
    """

    max_wait_s: float | None = None
    admitted: bool = False
    row_bytes: int = 0
    passes: int = 1
    operations: int = 0

    @property
    def most_rows(self) -> int:
        """Number of rows that may be computed at a time."""
        return max(1, min(_MOST_ROWS, _TURN_BYTES // max(1, self.row_bytes)))

    @property
    def first_rows(self) -> int:
        """Number of rows that may be computed at a time while nobody knows how long that takes."""
        first = turn_rows(_FIRST_ROWS, self.operations)
        return max(1, min(self.most_rows, first // self.passes))

    def wait_s(self, most: float) -> float:
        """Return the seconds that the request may wait, at most `most`."""
        return most if self.max_wait_s is None else min(self.max_wait_s, most)


class EngineShares:
    """Bound on the requests of each project in the queue; further ones wait outside of it.

    Args:
        max_waiting: Number of requests of one project that may wait outside.
        max_wait_s: Longest time in seconds that a request waits there.
        metrics: Metrics that count refusals.
    """

    def __init__(self, max_waiting: int, *, max_wait_s: float, metrics: EngineMetrics) -> None:
        self._turns = Turns(sys.maxsize, each=_SHARE, waiting=max_waiting)
        self._max_wait_s = max_wait_s
        self._metrics = metrics

    async def take(self, owner: str, terms: Terms) -> Terms:
        """Wait for a place in the queue and return the conditions that are left; `give_back` must follow.

        Args:
            owner: Project of the request.
            terms: Conditions of the request.

        Raises:
            OverloadedError: It took too long, or too many requests of the project wait.
        """
        return terms if self._turns.take_now(owner) else await self._wait(owner, terms)

    def give_back(self, owner: str) -> None:
        """Give a place back."""
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
