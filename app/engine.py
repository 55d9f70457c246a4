"""The engine: one thread that computes for all requests; small ones together, large ones in turns."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable

import numpy as np
import torch
from prometheus_client import CollectorRegistry

from app.engine_work import Function, Large, OverloadedError, Rows, Small, compute_together
from app.metrics import EngineMetrics
from app.quick_batches import QuickBatches

__all__ = ["Engine", "OverloadedError"]

# A request of more rows is large: it is computed alone, some rows at a time.
_SMALL_ROWS = 64
# Rows of small requests that are computed together.
_BATCH_ROWS = 256
_FIRST_ROWS = 256  # of a function whose speed is not known
_MAX_ROWS = 8192
_TILE_ROWS = 64  # what kernels compute together; a part of a tile costs as much as all of it
_MAX_KEYS = 10_000
# A turn of a large request, while small ones come and where none do.
_SHORT_TURN_S = 0.002
_LONG_TURN_S = 0.008
_SMALL_AROUND_S = 0.1  # after a small request, another one may come for so long


class Engine:
    """Runs row-wise computations off the event loop, fairly, with a bounded queue.

    There is no window: an idle engine begins at once, and what comes while it computes waits and
    collects. Small requests for the same function are then computed as one batch, each row's
    result going to its own request. Large requests, and small ones beside them, take turns: each
    turn of a large one computes as many rows as fit in a couple of milliseconds, so a request
    of one row waits for a chunk of a large one, not for the whole of it. Where no small ones come,
    turns are longer, which costs less.

    Batches that take less than the way to the thread and back are computed on the event loop
    itself, see `QuickBatches`.

    Args:
        max_waiting: requests that may wait before more are refused.
        max_waiting_bytes: memory that the rows of waiting requests may hold together.
        max_wait_s: a request that has not begun after this long is refused.
        threads: CPU threads that one computation may use.
        metrics: what happens is counted there.
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
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._max_wait_s = max_wait_s
        self._threads = threads
        self._small: deque[Small] = deque()
        self._turns: deque[Large] = deque()
        self._waiting_bytes = 0
        self._rows_per_s: dict[Hashable, float] = {}
        self._small_at = -math.inf
        self._changed = threading.Condition()
        self._stopping = False
        self._metrics = metrics or EngineMetrics(CollectorRegistry())
        self._quick = QuickBatches(self._metrics)
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread; called where the event loop runs."""
        torch.set_num_threads(self._threads)  # OpenMP's count belongs to the thread that sets it
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
        return len(self._small) + len(self._turns) + len(self._quick)

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
                key=key,
                size_bytes=size_bytes,
                max_wait_s=max_wait_s,
                admitted=admitted,
            )
            return
        deadline = self._deadline(max_wait_s, admitted=admitted)
        whole_key = key, rows.dtype, rows.shape[1]
        work = Small(size_bytes, deadline, function, rows, results, whole_key)
        self._small_at = time.monotonic()
        if not self._stopping and self._quick.takes(work):
            self._quick.add(work)
        else:
            self._admit(work, admitted=admitted)
        await work.done

    async def run(
        self,
        compute: Callable[[int, int], None],
        *,
        rows: int,
        key: Hashable = None,
        size_bytes: int = 0,
        max_wait_s: float | None = None,
        admitted: bool = False,
    ) -> None:
        """Call `compute(start, stop)` on the engine's thread until it has covered `rows` rows.

        A cancelled caller stops it at the next chunk.

        Args:
            compute: does the rows from `start` to before `stop` and keeps the result.
            rows: how many there are.
            key: computations of equal keys are as fast; None: of no other.
            size_bytes: what the request holds in memory, for the bound on the queue.
            max_wait_s: of this request; None: the engine's own.
            admitted: it goes on with what was begun before, so it is never refused.

        Raises:
            OverloadedError: the queue is full, or the request waited too long.
        """
        deadline = self._deadline(max_wait_s, admitted=admitted)
        work = Large(size_bytes, deadline, compute, rows, key, self._rows_per_s.get(key, 0.0))
        self._admit(work, admitted=admitted)
        await work.done

    def _deadline(self, max_wait_s: float | None, *, admitted: bool) -> float:
        if admitted:
            return math.inf
        wait_s = self._max_wait_s if max_wait_s is None else min(max_wait_s, self._max_wait_s)
        return time.monotonic() + wait_s

    def _admit(self, work: Small | Large, *, admitted: bool) -> None:
        with self._changed:
            if self._stopping or not (admitted or self._has_room(work.size_bytes)):
                self._metrics.refused.inc()
                raise OverloadedError
            match work:
                case Small():
                    self._small.append(work)
                case Large():
                    self._turns.append(work)
            self._waiting_bytes += work.size_bytes
            self._metrics.waiting.inc()
            self._changed.notify()

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
                began = time.thread_time()
                rows = compute_together(batch, self._end)
                self._metrics.batch_rows.observe(rows)
                self._quick.learn(batch[0].key, rows, time.thread_time() - began)
            if self._turns:
                self._take_turn(self._turns[0])

    def _wait(self) -> bool:
        """Until there is work; False once the engine stops."""
        with self._changed:
            while not (self._small or self._turns or self._stopping):
                self._changed.wait()
            if not self._stopping:
                return True
            refused: list[Small | Large] = [*self._small, *self._turns]
        for work in refused:
            self._end(work, OverloadedError())
        return False

    def _next_batch(self) -> list[Small]:
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

    def _take_turn(self, work: Large) -> None:
        try:
            finished = work.abandoned or self._turn(work)
        except Exception as error:  # noqa: BLE001 - belongs to the request that asked for it
            self._end(work, error)
            return
        if finished:
            self._remember(work)
            self._end(work, None)
            return
        with self._changed:
            self._turns.rotate(-1)

    def _turn(self, work: Large) -> bool:
        started = time.monotonic()
        if work.position == 0 and started > work.deadline:
            raise OverloadedError
        stop = min(work.position + self._turn_rows(work), work.rows)
        work.compute(work.position, stop)
        self._metrics.batch_rows.observe(stop - work.position)
        elapsed = max(time.monotonic() - started, 1e-6)
        work.rows_per_s = (stop - work.position) / elapsed
        work.position = stop
        return stop == work.rows

    def _turn_rows(self, work: Large) -> int:
        if work.rows_per_s == 0:
            return _FIRST_ROWS
        are_small_around = time.monotonic() - self._small_at < _SMALL_AROUND_S
        rows = int(work.rows_per_s * (_SHORT_TURN_S if are_small_around else _LONG_TURN_S))
        if rows > _TILE_ROWS:
            rows -= rows % _TILE_ROWS
        return max(1, min(_MAX_ROWS, rows))

    def _remember(self, work: Large) -> None:
        if work.key is not None and work.rows_per_s > 0:
            if len(self._rows_per_s) >= _MAX_KEYS:
                self._rows_per_s.clear()
            self._rows_per_s[work.key] = work.rows_per_s

    def _end(self, work: Small | Large, error: Exception | None) -> None:
        with self._changed:
            match work:
                case Small():
                    self._small.remove(work)
                case Large():
                    self._turns.remove(work)
            self._waiting_bytes -= work.size_bytes
            self._metrics.waiting.dec()
        if isinstance(error, OverloadedError):
            self._metrics.refused.inc()
        work.settle(error)
