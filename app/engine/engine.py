"""Engine: one thread that computes for all requests, small ones in batches and large ones in turns."""

import asyncio
import logging
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from app.engine.fair_order import FairOrder
from app.limits import owner_here
from app.metrics import EngineMetrics
from flows import CompiledFlow, turn_rows

log = logging.getLogger(__name__)

Array = NDArray[Any]
# From rows to the columns of their results: one array of as many entries or rows each.
Function = Callable[[Array], tuple[Array, ...]]

QUICK_ROWS = 1024
"""Most rows of a batch on the event loop, which may keep it for `_QUICK_S`."""
_QUICK_S = 0.0015
_QUICK_GROWTH = 4  # how much larger a batch may be than one that was quick
_MAX_KEYS = 10_000  # functions whose speed is known; the least recently used one is forgotten
# A request of more rows is large: it is computed alone, some rows at a time.
_SMALL_ROWS = 64
_TILE_ROWS = 64  # what kernels compute together; a part of a tile costs as much as all of it
# A turn of a large request, while small ones come and where none do.
_SHORT_TURN_S = 0.002
_LONG_TURN_S = 0.008
_SMALL_AROUND_S = 0.1  # after a small request, another one may come for so long
# Rows computed at a time may take so much memory while they are: it takes some 20 ms to fill, which
# bounds how long others wait for the first turn of a large flow.
_TURN_BYTES = 16 * 2**20
_MOST_ROWS = 8192
# Rows that a flow computes at a time while its speed is not known, or for small requests together.
_FIRST_ROWS = 256
_JOIN_S = 5.0  # a computation may not end; the end of the process does not wait for it
_NOTHING = np.empty((1, 0))


class OverloadedError(Exception):
    """Refusal of a request for which the engine has no time; nothing of it was computed."""


class ResultShapeError(Exception):
    """Error of a function whose columns do not have one entry for each row, which is a bug."""


@dataclass(frozen=True)
class Terms:
    """Conditions under which requests for a function are computed.

    Args:
        admitted: True for a request that continues, which is never refused.
        most_rows: Number of rows that may be computed at a time.
        first_rows: That number while nobody knows how long they take.
        small_rows: Most rows of a request that is computed together with others.
        least_rows: Number of rows of a turn, however long they take: of a function whose fixed costs are large.
    """

    admitted: bool = False
    most_rows: int = _MOST_ROWS
    first_rows: int = _FIRST_ROWS
    least_rows: int = 1
    small_rows: int = _SMALL_ROWS

    @staticmethod
    def of(flow: CompiledFlow, *, passes: int = 1, least_rows: int = 1) -> "Terms":
        """Return the conditions of a function that computes `passes` rows of a flow for each row."""
        return _terms_of(flow.row_bytes, max(flow.operations), passes, least_rows)


@lru_cache(1024)
def _terms_of(row_bytes: int, operations: int, passes: int, least_rows: int) -> Terms:
    most = max(1, min(_MOST_ROWS, _TURN_BYTES // max(1, passes * row_bytes)))
    first = turn_rows(_FIRST_ROWS, operations) // passes
    first = max(1, min(most, max(first, least_rows)))
    small = min(_SMALL_ROWS, first)
    return Terms(most_rows=most, first_rows=first, least_rows=least_rows, small_rows=small)


_USUAL, _ADMITTED = Terms(), Terms(admitted=True)


@dataclass(eq=False)
class Speed:
    """Speed of a function, learnt from the processor time of each computation.

    Not by the clock: one that had to wait for a processor is not made faster by fewer rows.

    Attributes:
        rows_per_s: Rows a second of the last one; 0: not known yet.
        quick_rows: Number of rows that the event loop computes in passing; 0: none that is known.
        least_rows: Number of rows below which fixed costs take most of the time, as in the inversion
            of a flow by many small steps.
    """

    rows_per_s: float = 0.0
    quick_rows: int = 0
    least_rows: int = 1
    _last: tuple[int, float] = (0, 0.0)

    def learn(self, rows: int, seconds: float) -> None:
        """Record a computation; safe in any thread."""
        if seconds <= _QUICK_S:
            in_time = int(rows * _QUICK_S / max(seconds, 1e-6))
            quick = min(_QUICK_GROWTH * rows, in_time, QUICK_ROWS)
            self.quick_rows = max(self.quick_rows, quick)
        elif rows <= self.quick_rows:
            # Not 0 at once: a machine that does other work stretches a batch now and then.
            self.quick_rows //= 2
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


class Work:
    """Rows that a request waits for.

    Attributes:
        begun: True once its computation has begun.
        owner: Project that the time is charged to.
        is_small: True if it is computed together with others for the same function.
    """

    __slots__ = (
        "begun",
        "done",
        "function",
        "is_small",
        "key",
        "loop",
        "owner",
        "position",
        "results",
        "rows",
        "speed",
        "terms",
    )

    def __init__(
        self,
        function: Function,
        rows: Array,
        results: Array,
        key: Hashable,
        speed: Speed,
        terms: Terms,
    ) -> None:
        self.function, self.rows, self.results = function, rows, results
        self.key, self.speed, self.terms = key, speed, terms
        self.is_small = len(rows) <= terms.small_rows
        self.position, self.begun, self.owner = 0, False, owner_here()
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()

    def settle(self, error: Exception | None) -> None:
        """Wake the request, from its event loop."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Engine:
    """Runner of row-wise computations off the event loop, fair and with a bounded queue.

    There is no batching window: an idle engine begins at once, and requests that come while it
    computes wait. Small requests for the same function are then computed as one batch. Large
    requests are computed in turns of a few milliseconds, so that a request of one row waits for a
    chunk of a large one, not for all of it. Without small requests, turns are longer, which costs
    less. Projects share the time of the engine equally, see `FairOrder`.

    A switch to the thread and back, and the wait for the interpreter's lock before each small step
    there, take longer than the score of one row of a typical flow. So what is known to be quick is
    computed on the event loop itself: requests that come in one iteration together in the next.

    Args:
        max_waiting: Number of requests that may wait before more are refused; one project has half of
            the places.
        max_wait_s: Seconds after which a request that has not begun is refused.
        threads: CPU threads that one computation may use.
        metrics: Metrics that count requests and batches.

    Attributes:
        count: Function that is called with the project and the number of rows of each `apply` that ends.
    """

    def __init__(
        self,
        *,
        max_waiting: int = 512,
        max_wait_s: float = 30.0,
        threads: int = 1,
        metrics: EngineMetrics | None = None,
    ) -> None:
        self.count: Callable[[str, int], None] = lambda _owner, _rows: None
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._threads = threads
        self._metrics = metrics or EngineMetrics(CollectorRegistry())
        self._speed_of = lru_cache(_MAX_KEYS)(lambda _key: Speed())
        self._small_at = -math.inf
        self._queue: list[Work] = []  # of the thread
        self._order = FairOrder()
        self._quick: list[Work] = []  # of the event loop
        self._quick_order = FairOrder()
        self._changed = threading.Condition()
        self._stopping = False
        self._steps = 0
        self._after_large = False
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread; call this in the thread of the event loop."""
        # Read by PyTorch when it is loaded, which a model may need later.
        os.environ["OMP_NUM_THREADS"] = str(self._threads)
        self._thread.start()

    def stop(self) -> None:
        """Refuse the requests that wait, and end the thread; idempotent."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        for work in list(self._queue):
            self._end(work, OverloadedError())

    @property
    def waiting(self) -> int:
        """Number of requests that are not finished."""
        return len(self._queue) + len(self._quick)

    @property
    def alive(self) -> bool:
        """True if the thread runs, or was stopped."""
        return self._stopping or self._thread.is_alive()

    @property
    def standing(self) -> int | None:
        """Number of the step that is computed or due; None if there is nothing to compute."""
        return self._steps if self._queue else None

    def stack(self) -> str:
        """Return the stack of the thread, for the log."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "" if frame is None else "".join(traceback.format_stack(frame))

    async def apply(
        self,
        function: Function,
        rows: Array,
        results: Array,
        *,
        key: Hashable = None,
        terms: Terms = _USUAL,
        max_wait_s: float | None = None,
    ) -> None:
        """Fill `results` with the columns that `function` makes of `rows`, row by row.

        A caller who is cancelled stops it at the next chunk.

        Args:
            function: Function of rows; the result of a row must not depend on the rows beside it.
            rows: Array of shape (n, columns).
            results: Array of shape (n, width) for the function's columns side by side.
            key: Key of the function; those with equal keys give a row the same numbers. None: there
                is no other.
            terms: Conditions of the function.
            max_wait_s: Seconds after which the request is refused if it has not begun; None: the
                engine's limit.

        Raises:
            OverloadedError: The queue is full, or the request waited too long.
            ResultShapeError: The function's columns do not have shape (n,) or (n, any), or their
                number is not that of `results`.
        """
        whole_key = object() if key is None else (key, rows.dtype, rows.shape[1])
        speed = Speed() if key is None else self._speed_of(whole_key)
        work = Work(function, rows, results, whole_key, speed, terms)
        is_quick = len(rows) <= min(speed.quick_rows, terms.most_rows) and not self._stopping
        if is_quick or work.is_small:
            self._small_at = time.monotonic()
        if is_quick:
            if not self._quick:
                work.loop.call_soon(self._compute_quick)
            self._quick.append(work)
            await work.done
        else:
            await self._finished(work, max_wait_s)
        self.count(work.owner, len(rows))

    async def run(
        self,
        compute: Callable[[], object],
        *,
        admitted: bool = False,
        max_wait_s: float | None = None,
    ) -> None:
        """Call a function on the engine's thread, as one turn; see `apply`.

        Raises:
            OverloadedError: The queue is full, or the request waited too long.
        """

        def once(_: Array) -> tuple[Array]:
            compute()
            return (_NOTHING,)

        terms = _ADMITTED if admitted else _USUAL
        await self._finished(Work(once, _NOTHING, _NOTHING, object(), Speed(), terms), max_wait_s)

    async def _finished(self, work: Work, max_wait_s: float | None) -> None:
        """Admit a request and wait for its end, or for the end of its time if it has not begun."""
        terms = work.terms
        with self._changed:
            if self._stopping or not (terms.admitted or self._has_room(work.owner)):
                self._metrics.refused.inc()
                raise OverloadedError
            self._queue.append(work)
            self._changed.notify()
            self._metrics.waiting.set(len(self._queue))
        timer = None
        if not terms.admitted:
            # Not left to the thread, which may be busy for longer, or dead.
            wait_s = min(self._max_wait_s, max_wait_s or self._max_wait_s)
            timer = work.loop.call_later(wait_s, self._refuse, work)
        try:
            await work.done
        finally:
            if timer is not None:
                timer.cancel()
            if not work.begun:  # refused, or left: others may have its place
                self._take_off(work)

    def _has_room(self, owner: str) -> bool:
        most_of_one = max(1, self._max_waiting // 2)
        return self.waiting < self._max_waiting and (
            self.waiting < most_of_one
            or sum(work.owner == owner for work in self._queue) < most_of_one
        )

    def _refuse(self, work: Work) -> None:
        """Refuse a request whose time is over before it began, from its event loop."""
        if not work.begun:
            work.settle(OverloadedError())
            self._metrics.refused.inc()

    def _loop(self) -> None:
        while self._step():  # nothing of one is kept while the thread waits for the next
            pass

    def _step(self) -> bool:
        """Compute a batch or a turn; return False once the engine stops."""
        works = self._next()
        if not works:
            return False
        began = time.monotonic()
        try:
            if works[0].is_small:
                self._compute_batch(works, self._end)
            else:
                self._take_turn(works[0])
        except Exception as error:  # whatever it is, others are still served
            log.exception("the engine failed at a computation")
            for work in works:
                with suppress(Exception):
                    self._end(work, error)
        self._order.charge(works[0].owner, time.monotonic() - began)
        self._steps += 1
        return True

    def _next(self) -> list[Work]:
        """Wait for a large request, or small ones of one function, in turn; none once the engine stops."""
        with self._changed:
            while not (self._queue or self._stopping):
                self._changed.wait()
            if self._stopping:
                return []
            others = [work for work in self._queue if work.is_small == self._after_large]
            first = self._order.first(others or self._queue)
            self._after_large = not first.is_small
            works = [first]
            if first.is_small:
                small = [work for work in self._queue if work.is_small]
                works, _ = _split(small, first, most_rows=first.terms.first_rows)
            for work in works:
                work.begun = True
        return works

    def _compute_batch(self, batch: list[Work], end: "_End") -> float:
        """Compute small requests of one function; return the seconds of the processor."""
        began = time.thread_time()
        rows = _compute_together(batch, end)
        seconds = time.thread_time() - began
        if rows:
            batch[0].speed.learn(rows, seconds)
        self._metrics.batch_rows.observe(rows)
        return seconds

    def _take_turn(self, work: Work) -> None:
        """Compute some rows of a large request, which then stands behind those that came meanwhile."""
        start, stop = work.position, min(work.position + self._turn_rows(work), len(work.rows))
        if not work.done.done():
            began = time.thread_time()
            try:
                work.results[start:stop] = _joined(work, work.rows[start:stop])
            except Exception as error:  # noqa: BLE001 - belongs to the request that asked for it
                self._end(work, error)
                return
            work.speed.learn(stop - start, time.thread_time() - began)
            self._metrics.batch_rows.observe(stop - start)
            work.position = stop
        if work.done.done() or stop == len(work.rows):
            self._end(work, None)
            return
        with self._changed:
            self._queue.remove(work)
            self._queue.append(work)

    def _turn_rows(self, work: Work) -> int:
        speed = work.speed
        if speed.rows_per_s == 0:
            return work.terms.first_rows
        are_small_around = time.monotonic() - self._small_at < _SMALL_AROUND_S
        rows = int(speed.rows_per_s * (_SHORT_TURN_S if are_small_around else _LONG_TURN_S))
        if work.position > 0:  # a first turn tries anew whether fewer are worth it
            rows = max(rows, speed.least_rows)
        rows = min(max(rows, work.terms.least_rows), work.terms.most_rows)
        if rows > _TILE_ROWS:
            rows -= rows % _TILE_ROWS
        return max(1, rows)

    def _compute_quick(self) -> None:
        """Compute one batch on the event loop, which serves others before the next one."""
        first = self._quick_order.first(self._quick)
        batch, self._quick = _split(self._quick, first, most_rows=first.speed.quick_rows)
        if self._quick:
            first.loop.call_soon(self._compute_quick)
        self._quick_order.charge(first.owner, self._compute_batch(batch, Work.settle))

    def _end(self, work: Work, error: Exception | None) -> None:
        """Take a request off the queue, if it is still there, and wake its caller, from the thread."""
        try:
            self._take_off(work)
        finally:
            try:
                work.loop.call_soon_threadsafe(work.settle, error)
            except RuntimeError:  # the event loop is closed: nobody waits any more
                log.debug("a result came after the event loop had closed")

    def _take_off(self, work: Work) -> None:
        with self._changed:
            if work in self._queue:
                self._queue.remove(work)
            self._metrics.waiting.set(len(self._queue))


_End = Callable[[Work, Exception | None], None]


def _split(works: Sequence[Work], first: Work, *, most_rows: int) -> tuple[list[Work], list[Work]]:
    """Return the works of the same function as `first` that one batch computes, and all others."""
    batch: list[Work] = []
    others: list[Work] = []
    rows = 0
    for work in works:
        if work.key == first.key and (not batch or rows + len(work.rows) <= most_rows):
            batch.append(work)
            rows += len(work.rows)
        else:
            others.append(work)
    return batch, others


def _compute_together(batch: Sequence[Work], end: _End) -> int:
    """Compute small requests for the same function, unless nobody waits for them any more.

    Args:
        end: Function that is called with each request and its error.

    Returns:
        Number of rows that were computed.
    """
    wanted = [work for work in batch if not work.done.done()]
    rows = 0
    if wanted:
        try:
            rows = _write_results(wanted)
        except Exception as error:  # noqa: BLE001 - belongs to the request that asked for it
            if len(batch) == 1:
                end(batch[0], error)
                return 0
            # One of them is at fault: the others shall not suffer.
            return sum(_compute_together([work], end) for work in batch)
    for work in batch:
        end(work, None)
    return rows


def _write_results(batch: Sequence[Work]) -> int:
    """Write the results of a batch and return its number of rows."""
    first = batch[0]
    rows = first.rows if len(batch) == 1 else np.concatenate([work.rows for work in batch])
    results = _joined(first, rows)
    start = 0
    for work in batch:
        stop = start + len(work.rows)
        work.results[:] = results[start:stop]
        start = stop
    return start


def _joined(work: Work, rows: Array) -> Array:
    """Return the columns that the function of a request makes of rows, side by side.

    Raises:
        ResultShapeError: They do not fit the results.
        ValueError: They do not fit each other.
    """
    columns = work.function(rows)
    joined: Array = columns[0] if len(columns) == 1 else np.column_stack(columns)
    if joined.ndim == 1:
        joined = joined[:, None]
    wanted = len(rows), work.results.shape[1]
    if joined.shape != wanted:
        raise ResultShapeError(f"columns of shape {joined.shape} were made, not {wanted}")
    return joined
