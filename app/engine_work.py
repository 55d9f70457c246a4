"""What waits for the engine, and batches of it."""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Rows = NDArray[Any]
# From rows to the columns of their results: one array of as many entries or rows each.
Function = Callable[[Rows], tuple[Rows, ...]]


class OverloadedError(Exception):
    """More work waits than the engine will get to in time; nothing of this request was done."""


@dataclass(eq=False)
class Work:
    """What a request waits for."""

    size_bytes: int
    deadline: float
    loop: asyncio.AbstractEventLoop = field(
        default_factory=asyncio.get_running_loop, init=False, repr=False
    )

    def __post_init__(self) -> None:
        self.done: asyncio.Future[None] = self.loop.create_future()

    @property
    def abandoned(self) -> bool:
        """Whether the caller has left: that cancels what it waits for."""
        return self.done.cancelled()

    def settle(self, error: Exception | None) -> None:
        """Wake the request, from the engine's thread."""
        try:
            self.loop.call_soon_threadsafe(self.settle_here, error)
        except RuntimeError:  # the event loop is closed: nobody waits any more
            log.debug("a result came after the event loop had closed")

    def settle_here(self, error: Exception | None) -> None:
        """Wake the request, from its event loop."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


@dataclass(eq=False)
class Small(Work):
    """Rows that may be computed together with those of others."""

    function: Function
    rows: Rows
    results: Rows
    key: Hashable


@dataclass(eq=False)
class Large(Work):
    """Rows that are computed some at a time."""

    compute: Callable[[int, int], None]
    rows: int
    key: Hashable = None
    rows_per_s: float = 0.0  # 0: not known yet
    position: int = field(default=0, init=False)


def compute_together(batch: Sequence[Small], end: Callable[[Small, Exception | None], None]) -> int:
    """Compute small requests for the same function as one batch.

    Args:
        batch: those whose caller has left, or whose time is over, are ended without a computation.
        end: told about each of them, and what went wrong with it.

    Returns:
        The rows that were computed.
    """
    wanted = [work for work in batch if _is_wanted(work, end)]
    if not wanted:
        return 0
    try:
        rows = wanted[0].rows if len(wanted) == 1 else np.concatenate([w.rows for w in wanted])
        columns = wanted[0].function(rows)
        results = columns[0][:, None] if len(columns) == 1 else np.column_stack(columns)
    except Exception as error:  # noqa: BLE001 - belongs to the request that asked for it
        if len(wanted) == 1:
            end(wanted[0], error)
            return 0
        # One of them is at fault: the others shall not suffer.
        return sum(compute_together([work], end) for work in wanted)
    start = 0
    for work in wanted:
        stop = start + len(work.rows)
        work.results[:] = results[start:stop]
        start = stop
        end(work, None)
    return start


def _is_wanted(work: Small, end: Callable[[Small, Exception | None], None]) -> bool:
    """Whether to compute it; if not, it is ended."""
    if work.abandoned:
        end(work, None)
    elif time.monotonic() > work.deadline:
        end(work, OverloadedError())
    else:
        return True
    return False
