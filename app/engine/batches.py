"""Work that waits for the engine, and batches of it, which may be computed on the event loop."""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.fair_order import FairOrder
from app.limits import owner_here
from app.metrics import EngineMetrics

log = logging.getLogger(__name__)

# A batch may keep the event loop for so long.
_QUICK_S = 0.0015
QUICK_ROWS = 1024
"""Most rows of a batch on the event loop."""
# How much larger a batch may be than one that was quick.
_QUICK_GROWTH = 4
MAX_KEYS = 10_000
"""Most functions whose speed is known; that of the least recently used one is forgotten."""

Array = NDArray[Any]
# From rows to the columns of their results: one array of as many entries or rows each.
Function = Callable[[Array], tuple[Array, ...]]


class OverloadedError(Exception):
    """Refusal of a request for which the engine has no time; nothing of it was computed."""


class ResultShapeError(Exception):
    """Error of a function whose columns do not have one entry for each row, which is a bug.

    Args:
        shape: Shape of its columns side by side.
        rows: Number of rows that it was given.
        width: Numbers that each row was to become.
    """

    def __init__(self, shape: tuple[int, ...], *, rows: int, width: int) -> None:
        super().__init__(f"columns of shape {shape} were made of {rows} rows, not {(rows, width)}")


class EngineError(Exception):
    """Failure of the engine; nothing is known to be wrong with the request."""


@dataclass(eq=False)
class Work:
    """Computation that a request waits for.

    Attributes:
        begun: True once its computation has begun.
        owner: Project that the time is charged to.
    """

    size_bytes: int
    begun: bool = field(default=False, init=False)
    owner: str = field(default_factory=owner_here, init=False)
    loop: asyncio.AbstractEventLoop = field(
        default_factory=asyncio.get_running_loop, init=False, repr=False
    )

    def __post_init__(self) -> None:
        self.done: asyncio.Future[None] = self.loop.create_future()

    @property
    def over(self) -> bool:
        """True if nobody waits for it: the caller has left, or it did not begin in time."""
        return self.done.done()

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
    """Few rows, which may be computed in one batch with those of others.

    Attributes:
        most_rows: Number of rows of such a batch.
    """

    function: Function
    rows: Array
    results: Array
    key: Hashable
    most_rows: int = 1

    def goes_with(self, other: "Small") -> bool:
        """Return whether the two may be computed as one batch."""
        return self.key == other.key


@dataclass(eq=False)
class Pace:
    """Speed of a function, measured in each turn.

    Attributes:
        rows_per_s: Rows a second of the last turn; 0: not known yet.
        least_rows: Number of rows below which fixed costs take most of the time of a turn, as in the
            inversion of a flow by many small steps.
    """

    rows_per_s: float = 0.0
    least_rows: int = 1
    _last: tuple[int, float] = (0, 0.0)

    def learn(self, rows: int, seconds: float) -> None:
        """Record the number of rows of a turn and its processor time in seconds."""
        (few, few_s), (many, many_s) = sorted([self._last, (rows, seconds)])
        if 0 < few < many:
            row_s = (many_s - few_s) / (many - few)
            fixed_s = few_s - row_s * few
            if fixed_s < row_s * many:
                self.least_rows = max(1, int(fixed_s / row_s))
            else:  # of more rows only the double is tried: all else is measured
                self.least_rows = max(self.least_rows, 2 * many)
        self._last = rows, seconds
        self.rows_per_s = rows / max(seconds, 1e-6)


@dataclass(eq=False)
class Large(Work):
    """Many rows, which are computed some at a time.

    Attributes:
        first_rows: Number of rows of its first turn, if its speed is not known.
        most_rows: Number of rows of a turn.
        quick_key: Key of `QuickBatches` for what may be quick enough for them; None for others.
    """

    compute: Callable[[int, int], None]
    rows: int
    pace: Pace
    first_rows: int
    most_rows: int
    quick_key: Hashable = None
    position: int = field(default=0, init=False)


def compute_together(batch: Sequence[Small], end: Callable[[Small, Exception | None], None]) -> int:
    """Compute small requests for the same function as one batch.

    Args:
        batch: Requests; those for which nobody waits any more are not computed.
        end: Function that is called with each request and its error.

    Returns:
        Number of rows that were computed.
    """
    wanted = [work for work in batch if not work.over]
    try:
        rows = _compute(wanted) if wanted else 0
    except Exception as error:  # noqa: BLE001 - belongs to the request that asked for it
        if len(batch) == 1:
            end(batch[0], error)
            return 0
        # One of them is at fault: the others shall not suffer.
        return sum(compute_together([work], end) for work in batch)
    for work in batch:
        end(work, None)
    return rows


def _compute(batch: Sequence[Small]) -> int:
    """Write the results of a batch and return its number of rows."""
    width = batch[0].results.shape[1]
    rows = batch[0].rows if len(batch) == 1 else np.concatenate([work.rows for work in batch])
    results = side_by_side(batch[0].function(rows), rows=len(rows), width=width)
    start = 0
    for work in batch:
        stop = start + len(work.rows)
        work.results[:] = results[start:stop]
        start = stop
    return start


def side_by_side(columns: tuple[Array, ...], *, rows: int, width: int) -> Array:
    """Join a function's columns to an array of shape (rows, width).

    Args:
        columns: Arrays of shape (rows,) or (rows, any).
        rows: Number of rows that the function was given.
        width: Numbers that each row becomes.

    Raises:
        ResultShapeError: The columns do not have that shape.
        ValueError: The columns do not fit each other.
    """
    joined: Array = columns[0] if len(columns) == 1 else np.column_stack(columns)
    if joined.ndim == 1:
        joined = joined[:, None]
    if joined.shape != (rows, width):
        raise ResultShapeError(joined.shape, rows=rows, width=width)
    return joined


@dataclass(slots=True)
class _Limit:
    """Number of rows of a function that are computed quickly; 0: not known."""

    rows: int = 0


class QuickBatches:
    """Queue of small requests for functions that are known to be quick.

    A switch to a thread and back, and the wait for the interpreter's lock before each small step
    there, take longer than the score of one row of a typical flow. Requests that come in one
    iteration of the event loop are computed together in the next; those for several functions are
    computed in one iteration each, in the order of `FairOrder`. The number of rows of a function
    that is quick is learnt from the processor time of each of its batches; functions that are not
    known to be quick are not taken.

    Args:
        metrics: Metrics that count the batches.
    """

    def __init__(self, metrics: EngineMetrics) -> None:
        self._metrics = metrics
        self._limit_of = lru_cache(MAX_KEYS)(lambda _key: _Limit())
        self._waiting: list[Small] = []
        self._order = FairOrder()

    def __len__(self) -> int:
        """Return the number of requests that wait."""
        return len(self._waiting)

    def takes(self, work: Small) -> bool:
        """Return whether to compute a request on the event loop."""
        return len(work.rows) <= self._limit_of(work.key).rows

    async def compute(self, work: Small) -> None:
        """Compute a request in a later iteration of the event loop."""
        if not self._waiting:
            work.loop.call_soon(self._compute_one)
        self._waiting.append(work)
        await work.done

    def learn(self, key: Hashable, rows: int, seconds: float) -> None:
        """Record the time of a batch in seconds; safe in any thread."""
        if rows == 0:
            return
        limit = self._limit_of(key)
        if seconds <= _QUICK_S:
            in_time = int(rows * _QUICK_S / max(seconds, 1e-6))
            limit.rows = max(limit.rows, min(_QUICK_GROWTH * rows, in_time, QUICK_ROWS))
        else:
            # Not 0 at once: a machine that does other work stretches a batch now and then.
            limit.rows //= 2

    def _compute_one(self) -> None:
        """Compute one batch; the event loop serves others before the next one."""
        first = self._order.first(self._waiting)
        limit = max(1, self._limit_of(first.key).rows)
        batch: list[Small] = []
        rest: list[Small] = []
        rows = 0
        for work in self._waiting:
            if work.goes_with(first) and (not batch or rows + len(work.rows) <= limit):
                batch.append(work)
                rows += len(work.rows)
            else:
                rest.append(work)
        self._waiting = rest
        began = time.thread_time()
        try:
            rows = compute_together(batch, _settle)
            seconds = time.thread_time() - began
            self._order.charge(first.owner, seconds)
            self.learn(first.key, rows, seconds)
            self._metrics.batch_rows.observe(rows)
        except BaseException:
            for work in batch:
                work.settle_here(EngineError())
            raise
        finally:
            if self._waiting:
                first.loop.call_soon(self._compute_one)


def _settle(work: Small, error: Exception | None) -> None:
    work.settle_here(error)
