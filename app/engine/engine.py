"""Engine: one thread that computes for all requests, small ones in batches and large ones in turns."""

import logging
import math
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from prometheus_client import CollectorRegistry

from app.engine.batches import (
    MAX_KEYS,
    QUICK_ROWS,
    Array,
    EngineError,
    Function,
    Large,
    OverloadedError,
    Pace,
    QuickBatches,
    Small,
    compute_together,
    side_by_side,
)
from app.engine.fair_order import FairOrder
from app.metrics import EngineMetrics
from flows import turn_rows

__all__ = ["Engine", "OverloadedError", "Terms"]

log = logging.getLogger(__name__)

# A request of more rows is large, unless it is quick: it is computed alone, some rows at a time.
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


_DEFAULT_TERMS = Terms()


class Engine:
    """Runner of row-wise computations off the event loop, fair and with a bounded queue.

    There is no batching window: an idle engine begins at once, and requests that come while it
    computes wait. Small requests for the same function are then computed as one batch. Large
    requests are computed in turns of a few milliseconds, so that a request of one row waits for a
    chunk of a large one, not for all of it. Without small requests, turns are longer, which costs
    less. Projects share the time of the engine equally, see `FairOrder`.

    Batches that take less time than a switch to the thread and back are computed on the event loop
    itself, see `QuickBatches`.

    Args:
        max_waiting: Number of requests that may wait before more are refused; one project has half of
            the places.
        max_waiting_bytes: Memory in bytes that the rows of waiting requests may hold together.
        max_wait_s: Seconds after which a request that has not begun is refused.
        threads: CPU threads that one computation may use.
        metrics: Metrics that count requests and batches.

    Attributes:
        count: Function that is called with the number of rows of each `apply` that ends.
    """

    def __init__(
        self,
        *,
        max_waiting: int = 512,
        max_waiting_bytes: int = 512 * 2**20,
        max_wait_s: float = 30.0,
        threads: int = 1,
        metrics: EngineMetrics | None = None,
    ) -> None:
        self.count: Callable[[int], None] = lambda _rows: None
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._max_wait_s = max_wait_s
        self._threads = threads
        self._small: deque[Small] = deque()
        self._turns: deque[Large] = deque()
        self._waiting_bytes = 0
        self._pace_of = lru_cache(MAX_KEYS)(lambda _key: Pace())
        self._small_at = -math.inf
        self._changed = threading.Condition()
        self._stopping = False
        self._steps = 0
        self._order = FairOrder()
        self._metrics = metrics or EngineMetrics(CollectorRegistry())
        self._quick = QuickBatches(self._metrics)
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread; call this in the thread of the event loop."""
        torch.set_num_threads(self._threads)  # OpenMP's count belongs to the thread that sets it
        self._thread.start()

    def stop(self) -> None:
        """Refuse the requests that wait, and end the thread; idempotent."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        left: list[Small | Large] = [*self._small, *self._turns]
        for work in left:
            self._end(work, OverloadedError())

    @property
    def waiting(self) -> int:
        """Number of requests that are not finished."""
        return len(self._small) + len(self._turns) + len(self._quick)

    @property
    def alive(self) -> bool:
        """True if the thread runs, or was stopped."""
        return self._stopping or self._thread.is_alive()

    @property
    def standing(self) -> int | None:
        """Number of the step that is computed or due; None if there is nothing to compute."""
        return self._steps if self._small or self._turns else None

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
        key: Hashable,
        terms: Terms = _DEFAULT_TERMS,
    ) -> None:
        """Fill `results` with the columns that `function` makes of `rows`, row by row.

        Args:
            function: Function of rows; the result of a row must not depend on the rows beside it.
            rows: Array of shape (n, columns).
            results: Array of shape (n, width) for the function's columns side by side.
            key: Key of the function; those with equal keys give a row the same numbers.
            terms: Conditions of the request.

        Raises:
            OverloadedError: The queue is full, or the request waited too long.
            ResultShapeError: The function's columns do not have shape (n,) or (n, any), or their
                number is not that of `results`.
        """
        whole_key = key, rows.dtype, rows.shape[1]
        size_bytes = rows.nbytes + results.nbytes
        small = Small(size_bytes, function, rows, results, whole_key, terms.first_rows)
        if self._is_quick(small, terms):
            self._small_at = time.monotonic()
            await self._quick.compute(small)
        elif len(rows) <= min(_SMALL_ROWS, terms.first_rows):
            self._small_at = time.monotonic()
            await self._finished(small, terms)
        else:
            await self._finished(self._in_turns(small, terms.most_rows), terms)
        self.count(len(rows))

    def _is_quick(self, work: Small, terms: Terms) -> bool:
        """Return whether to compute a request on the event loop."""
        return len(work.rows) <= terms.most_rows and not self._stopping and self._quick.takes(work)

    def _in_turns(self, work: Small, most_rows: int) -> Large:
        """Return the same work, to be computed some rows at a time."""
        width = work.results.shape[1]

        def compute(start: int, stop: int) -> None:
            columns = work.function(work.rows[start:stop])
            work.results[start:stop] = side_by_side(columns, rows=stop - start, width=width)

        pace = self._pace(work.key)
        return Large(
            work.size_bytes,
            compute,
            len(work.rows),
            pace,
            work.most_rows,
            most_rows,
            quick_key=work.key,
        )

    async def run(
        self,
        compute: Callable[[int, int], None],
        *,
        rows: int,
        key: Hashable = None,
        size_bytes: int = 0,
        terms: Terms = _DEFAULT_TERMS,
    ) -> None:
        """Call `compute(start, stop)` on the engine's thread until it has covered `rows` rows.

        A cancelled caller stops it at the next chunk.

        Args:
            compute: Function that computes the rows from `start` to before `stop` and keeps the result.
            rows: Number of rows.
            key: Key of the computation; those with equal keys have the same speed; None: no other.
            size_bytes: Memory in bytes that the request holds, for the bound on the queue.
            terms: Conditions of the request.

        Raises:
            OverloadedError: The queue is full, or the request waited too long.
        """
        work = Large(size_bytes, compute, rows, self._pace(key), terms.first_rows, terms.most_rows)
        await self._finished(work, terms)

    async def _finished(self, work: Small | Large, terms: Terms) -> None:
        """Admit a request and wait for its end, or for the end of its time if it has not begun."""
        self._admit(work, admitted=terms.admitted)
        timer = None
        if not terms.admitted:
            # Not left to the thread, which may be busy for longer, or dead.
            wait_s = min(self._max_wait_s, terms.max_wait_s or self._max_wait_s)
            timer = work.loop.call_later(wait_s, self._refuse, work)
        try:
            await work.done
        finally:
            if timer is not None:
                timer.cancel()
            self._leave(work)

    def _leave(self, work: Small | Large) -> None:
        """Give back the place of a request that was refused or left before it began: others may have it."""
        with self._changed:
            if not work.begun:
                self._take_off(work)

    def _refuse(self, work: Small | Large) -> None:
        """Refuse a request whose time is over before it began, from its event loop."""
        if not work.begun:
            work.settle_here(OverloadedError())
            self._metrics.refused.inc()

    def _admit(self, work: Small | Large, *, admitted: bool) -> None:
        with self._changed:
            if self._stopping or not (admitted or self._has_room(work)):
                self._metrics.refused.inc()
                raise OverloadedError
            match work:
                case Small():
                    self._small.append(work)
                case Large():
                    self._turns.append(work)
            self._waiting_bytes += work.size_bytes
            self._changed.notify()
            self._count_waiting()

    def _has_room(self, work: Small | Large) -> bool:
        if self.waiting == 0:
            return True  # no single request is too large for an idle engine: its route bounds it
        most_of_one = self._max_waiting // 2
        return (
            self.waiting < self._max_waiting
            and self._waiting_bytes + work.size_bytes <= self._max_waiting_bytes
            and (self.waiting < most_of_one or self._waiting_of(work.owner) < most_of_one)
        )

    def _waiting_of(self, owner: str) -> int:
        return sum(work.owner == owner for queue in (self._small, self._turns) for work in queue)

    def _loop(self) -> None:
        torch.set_num_threads(self._threads)  # OpenMP's count belongs to the thread that sets it
        while self._wait():
            self._compute_next()

    def _compute_next(self) -> None:
        """Compute a batch and a turn; nothing of them is kept while there is no work."""
        if batch := self._next_batch():
            self._step(batch, partial(self._compute_batch, batch))
        if turn := self._next_turn():
            self._step([turn], partial(self._take_turn, turn))

    def _step(self, works: Sequence[Small | Large], compute: Callable[[], None]) -> None:
        """Run a computation; an error ends its requests, and no others."""
        began = time.monotonic()
        try:
            compute()
        except BaseException:  # the thread computes for everybody: nothing ends it
            log.exception("the engine failed at a computation")
            for work in works:
                with suppress(Exception):  # whatever it is, the caller has been woken
                    self._end(work, EngineError())
        finally:
            self._order.charge(works[0].owner, time.monotonic() - began)
            self._steps += 1

    def _wait(self) -> bool:
        """Wait until there is work; False once the engine stops."""
        with self._changed:
            while not (self._small or self._turns or self._stopping):
                self._changed.wait()
            return not self._stopping

    def _next_batch(self) -> list[Small]:
        """Return the next small requests of one function, in the order of the queue."""
        with self._changed:
            if not self._small:
                return []
            batch: list[Small] = []
            first = self._order.first(self._small)
            rows = 0
            for work in self._small:
                if not work.goes_with(first):
                    continue
                if batch and rows + len(work.rows) > first.most_rows:
                    break
                work.begun = True
                batch.append(work)
                rows += len(work.rows)
        return batch

    def _next_turn(self) -> Large | None:
        with self._changed:
            if not self._turns:
                return None
            turn = self._order.first(self._turns)
            turn.begun = True  # and so stays in the queue until its end
            return turn

    def _compute_batch(self, batch: list[Small]) -> None:
        began = time.thread_time()
        rows = compute_together(batch, self._end)
        self._quick.learn(batch[0].key, rows, time.thread_time() - began)
        self._metrics.batch_rows.observe(rows)

    def _take_turn(self, work: Large) -> None:
        try:
            finished = work.over or self._turn(work)
        except Exception as error:  # noqa: BLE001 - belongs to the request that asked for it
            self._end(work, error)
            return
        if finished:
            self._end(work, None)
            return
        with self._changed:
            self._turns.remove(work)
            self._turns.append(work)

    def _turn(self, work: Large) -> bool:
        began = time.thread_time()
        stop = min(work.position + self._turn_rows(work), work.rows)
        work.compute(work.position, stop)
        # Not by the clock: a turn that had to wait for a processor is not made shorter by fewer rows.
        seconds = time.thread_time() - began
        work.pace.learn(stop - work.position, seconds)
        if work.quick_key is not None and stop - work.position == work.rows <= QUICK_ROWS:
            self._quick.learn(work.quick_key, work.rows, seconds)
        self._metrics.batch_rows.observe(stop - work.position)
        work.position = stop
        return stop == work.rows

    def _turn_rows(self, work: Large) -> int:
        pace = work.pace
        if pace.rows_per_s == 0:
            return work.first_rows
        are_small_around = time.monotonic() - self._small_at < _SMALL_AROUND_S
        turn_s = _SHORT_TURN_S if are_small_around else _LONG_TURN_S
        rows = int(pace.rows_per_s * turn_s)
        if work.position > 0:  # a first turn tries anew whether fewer are worth it
            rows = max(rows, pace.least_rows)
        rows = min(rows, work.most_rows)
        if rows > _TILE_ROWS:
            rows -= rows % _TILE_ROWS
        return max(1, rows)

    def _pace(self, key: Hashable) -> Pace:
        return Pace() if key is None else self._pace_of(key)

    def _end(self, work: Small | Large, error: Exception | None) -> None:
        """Take a request off its queue, if it is still there, and wake its caller."""
        try:
            with self._changed:
                self._take_off(work)
        finally:
            work.settle(error)

    def _take_off(self, work: Small | Large) -> None:
        queue: deque[Any] = self._small if isinstance(work, Small) else self._turns
        if work in queue:
            queue.remove(work)
            self._waiting_bytes -= work.size_bytes
        self._count_waiting()

    def _count_waiting(self) -> None:
        self._metrics.waiting.set(len(self._small) + len(self._turns))
