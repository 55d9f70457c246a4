"""The engine: one thread that computes for all requests; small ones together, large ones in turns."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Rows = NDArray[Any]
# From rows to the columns of their results: one array of as many entries or rows each.
Function = Callable[[Rows], tuple[Rows, ...]]

# A request of more rows is large: it is computed alone, some rows at a time.
_SMALL_ROWS = 64
# Rows of small requests that are computed together.
_BATCH_ROWS = 256
_FIRST_ROWS = 256
_MAX_ROWS = 8192
_SHARED_S = 0.002
_ALONE_S = 0.005


class OverloadedError(Exception):
    """More work waits than the engine will get to in time; nothing of this request was done."""


class Engine:
    """Runs row-wise computations off the event loop, fairly, with a bounded queue.

    There is no window: an idle engine begins at once, and what comes while it computes waits and
    collects. Small requests for the same function are then computed as one batch, each row's
    result going to its own request. Large requests, and small ones beside them, take turns: each
    turn of a large one computes as many rows as fit in a couple of milliseconds, so a request
    of one row waits for a chunk of a large one, not for the whole of it.

    Args:
        max_waiting: requests that may wait before more are refused.
        max_waiting_bytes: memory that the rows of waiting requests may hold together.
        max_wait_s: a request that has not begun after this long is refused.
        threads: CPU threads that one computation may use.
    """

    def __init__(
        self,
        *,
        max_waiting: int = 512,
        max_waiting_bytes: int = 512 * 2**20,
        max_wait_s: float = 30.0,
        threads: int = 1,
    ) -> None:
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._max_wait_s = max_wait_s
        self._threads = threads
        self._small: deque[_Small] = deque()
        self._turns: deque[_Large] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Refuse what waits and end the thread; idempotent."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def waiting(self) -> int:
        """Requests that are not finished."""
        return len(self._small) + len(self._turns)

    async def apply(
        self,
        function: Function,
        rows: Rows,
        results: Rows,
        *,
        key: Hashable,
        max_wait_s: float | None = None,
        admitted: bool = False,
    ) -> None:
        """Fill `results` with what `function` makes of `rows`, row by row.

        Args:
            function: no row's result may depend on the rows beside it.
            rows: of shape (n, columns).
            results: of shape (n, width): the function's columns side by side.
            key: functions of equal keys are the same: their requests may be computed together.
            max_wait_s: of this request; None: the engine's own.
            admitted: it goes on with what was begun before, so it is never refused.

        Raises:
            OverloadedError: the queue is full, or the request waited too long.
        """
        size_bytes = rows.nbytes + results.nbytes
        if len(rows) > _SMALL_ROWS:

            def compute(start: int, stop: int) -> None:
                results[start:stop] = np.column_stack(function(rows[start:stop]))

            await self.run(
                compute,
                rows=len(rows),
                size_bytes=size_bytes,
                max_wait_s=max_wait_s,
                admitted=admitted,
            )
            return
        deadline = self._deadline(max_wait_s, admitted=admitted)
        whole_key = key, rows.dtype, rows.shape[1]
        work = _Small(size_bytes, deadline, function, rows, results, whole_key)
        self._admit(work, admitted=admitted)
        await self._done(work)

    async def run(
        self,
        compute: Callable[[int, int], None],
        *,
        rows: int,
        size_bytes: int = 0,
        max_wait_s: float | None = None,
        admitted: bool = False,
    ) -> None:
        """Call `compute(start, stop)` on the engine's thread until it has covered `rows` rows.

        A cancelled caller stops it at the next chunk.

        Args:
            compute: does the rows from `start` to before `stop` and keeps the result.
            rows: how many there are.
            size_bytes: what the request holds in memory, for the bound on the queue.
            max_wait_s: of this request; None: the engine's own.
            admitted: it goes on with what was begun before, so it is never refused.

        Raises:
            OverloadedError: the queue is full, or the request waited too long.
        """
        work = _Large(size_bytes, self._deadline(max_wait_s, admitted=admitted), compute, rows)
        self._admit(work, admitted=admitted)
        await self._done(work)

    def _deadline(self, max_wait_s: float | None, *, admitted: bool) -> float:
        if admitted:
            return math.inf
        wait_s = self._max_wait_s if max_wait_s is None else min(max_wait_s, self._max_wait_s)
        return time.monotonic() + wait_s

    def _admit(self, work: "_Small | _Large", *, admitted: bool) -> None:
        with self._changed:
            if self._stopping or not (admitted or self._has_room(work.size_bytes)):
                raise OverloadedError
            match work:
                case _Small():
                    self._small.append(work)
                case _Large():
                    self._turns.append(work)
            self._waiting_bytes += work.size_bytes
            self._changed.notify()

    async def _done(self, work: "_Work") -> None:
        try:
            await work.done
        except asyncio.CancelledError:
            work.abandoned = True
            raise

    def _has_room(self, size_bytes: int) -> bool:
        if self.waiting == 0:
            return True  # no single request is too large for an idle engine: its route bounds it
        return (
            self.waiting < self._max_waiting
            and self._waiting_bytes + size_bytes <= self._max_waiting_bytes
        )

    def _loop(self) -> None:
        torch.set_num_threads(self._threads)  # OpenMP's count belongs to the thread that sets it
        while self._wait():
            if batch := self._next_batch():
                self._compute_batch(batch)
            if self._turns:
                self._take_turn(self._turns[0])

    def _wait(self) -> bool:
        """Until there is work; False once the engine stops."""
        with self._changed:
            while self.waiting == 0 and not self._stopping:
                self._changed.wait()
            if not self._stopping:
                return True
            refused: list[_Small | _Large] = [*self._small, *self._turns]
        for work in refused:
            self._end(work, OverloadedError())
        return False

    def _next_batch(self) -> "list[_Small]":
        """Small requests for the function of the first of them, as they stand in the queue."""
        with self._changed:
            if not self._small:
                return []
            key, rows, batch = self._small[0].key, 0, []
            for work in self._small:
                if work.key == key:
                    batch.append(work)
                    rows += len(work.rows)
                if rows >= _BATCH_ROWS:
                    break
        return batch

    def _compute_batch(self, batch: "list[_Small]") -> None:
        wanted = [work for work in batch if self._is_wanted(work)]
        if not wanted:
            return
        try:
            rows = wanted[0].rows if len(wanted) == 1 else np.concatenate([w.rows for w in wanted])
            results = np.column_stack(wanted[0].function(rows))
        except Exception as error:  # noqa: BLE001 - belongs to the request that asked for it
            if len(wanted) == 1:
                self._end(wanted[0], error)
                return
            for work in wanted:  # one of them is at fault: the others shall not suffer
                self._compute_batch([work])
            return
        start = 0
        for work in wanted:
            stop = start + len(work.rows)
            work.results[:] = results[start:stop]
            start = stop
            self._end(work, None)

    def _is_wanted(self, work: "_Small") -> bool:
        """Whether to compute it; if not, it is ended."""
        if work.abandoned:
            self._end(work, None)
        elif time.monotonic() > work.deadline:
            self._end(work, OverloadedError())
        else:
            return True
        return False

    def _take_turn(self, work: "_Large") -> None:
        try:
            finished = work.abandoned or self._turn(work)
        except Exception as error:  # noqa: BLE001 - belongs to the request that asked for it
            self._end(work, error)
            return
        if finished:
            self._end(work, None)
            return
        with self._changed:
            self._turns.rotate(-1)

    def _turn(self, work: "_Large") -> bool:
        started = time.monotonic()
        if work.position == 0 and started > work.deadline:
            raise OverloadedError
        stop = min(work.position + work.chunk_rows, work.rows)
        work.compute(work.position, stop)
        elapsed = max(time.monotonic() - started, 1e-6)
        wanted_s = _SHARED_S if self.waiting > 1 else _ALONE_S
        speed = (stop - work.position) / elapsed
        work.chunk_rows = max(1, min(_MAX_ROWS, int(speed * wanted_s)))
        work.position = stop
        return stop == work.rows

    def _end(self, work: "_Small | _Large", error: Exception | None) -> None:
        with self._changed:
            match work:
                case _Small():
                    self._small.remove(work)
                case _Large():
                    self._turns.remove(work)
            self._waiting_bytes -= work.size_bytes
        work.settle(error)


@dataclass(eq=False)
class _Work:
    """What a request waits for."""

    size_bytes: int
    deadline: float
    abandoned: bool = field(default=False, init=False)
    loop: asyncio.AbstractEventLoop = field(
        default_factory=asyncio.get_running_loop, init=False, repr=False
    )

    def __post_init__(self) -> None:
        self.done: asyncio.Future[None] = self.loop.create_future()

    def settle(self, error: Exception | None) -> None:
        """Wake the request, from the engine's thread."""
        try:
            self.loop.call_soon_threadsafe(self._settle, error)
        except RuntimeError:  # the event loop is closed: nobody waits any more
            log.debug("a result came after the event loop had closed")

    def _settle(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


@dataclass(eq=False)
class _Small(_Work):
    """Rows that may be computed together with those of others."""

    function: Function
    rows: Rows
    results: Rows
    key: Hashable


@dataclass(eq=False)
class _Large(_Work):
    """Rows that are computed some at a time."""

    compute: Callable[[int, int], None]
    rows: int
    position: int = field(default=0, init=False)
    chunk_rows: int = field(default=_FIRST_ROWS, init=False)
