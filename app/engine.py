"""The engine: one thread that computes for all requests, a chunk at a time, in turns."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

log = logging.getLogger(__name__)

_FIRST_ROWS = 256
_MAX_ROWS = 8192
_SHARED_S = 0.002
_ALONE_S = 0.005


class OverloadedError(Exception):
    """More work waits than the engine will get to in time; nothing of this request was done."""


class Engine:
    """Runs row-wise computations off the event loop, fairly, with a bounded queue.

    Requests take turns: each turn computes as many rows as fit in a couple of milliseconds, so
    a request of one row waits for a chunk of a large one, not for the whole of it.

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
        self._turns: deque[_Work] = deque()
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
        return len(self._turns)

    async def run(
        self,
        compute: Callable[[int, int], None],
        *,
        rows: int,
        size_bytes: int = 0,
        admitted: bool = False,
    ) -> None:
        """Call `compute(start, stop)` on the engine's thread until it has covered `rows` rows.

        A cancelled caller stops it at the next chunk.

        Args:
            compute: does the rows from `start` to before `stop` and keeps the result.
            rows: how many there are.
            size_bytes: what the request holds in memory, for the bound on the queue.
            admitted: it goes on with what was begun before, so it is never refused.

        Raises:
            OverloadedError: the queue is full, or the request waited too long.
        """
        deadline = math.inf if admitted else time.monotonic() + self._max_wait_s
        work = _Work(compute, rows, size_bytes, deadline)
        with self._changed:
            if self._stopping or not (admitted or self._has_room(size_bytes)):
                raise OverloadedError
            self._turns.append(work)
            self._waiting_bytes += size_bytes
            self._changed.notify()
        try:
            await work.done
        except asyncio.CancelledError:
            work.abandoned = True
            raise

    def _has_room(self, size_bytes: int) -> bool:
        if not self._turns:
            return True  # no single request is too large for an idle engine: its route bounds it
        return (
            len(self._turns) < self._max_waiting
            and self._waiting_bytes + size_bytes <= self._max_waiting_bytes
        )

    def _loop(self) -> None:
        torch.set_num_threads(self._threads)  # OpenMP's count belongs to the thread that sets it
        while (work := self._next()) is not None:
            try:
                finished = work.abandoned or self._turn(work)
            except Exception as error:  # noqa: BLE001 - belongs to the request that asked for it
                self._end(work, error)
            else:
                if finished:
                    self._end(work, None)
                else:
                    with self._changed:
                        self._turns.rotate(-1)

    def _next(self) -> "_Work | None":
        with self._changed:
            while not self._turns and not self._stopping:
                self._changed.wait()
            if not self._stopping:
                return self._turns[0]
            refused = list(self._turns)
        for work in refused:
            self._end(work, OverloadedError())
        return None

    def _turn(self, work: "_Work") -> bool:
        started = time.monotonic()
        if work.position == 0 and started > work.deadline:
            raise OverloadedError
        stop = min(work.position + work.chunk_rows, work.rows)
        work.compute(work.position, stop)
        elapsed = max(time.monotonic() - started, 1e-6)
        wanted_s = _SHARED_S if len(self._turns) > 1 else _ALONE_S
        speed = (stop - work.position) / elapsed
        work.chunk_rows = max(1, min(_MAX_ROWS, int(speed * wanted_s)))
        work.position = stop
        return stop == work.rows

    def _end(self, work: "_Work", error: Exception | None) -> None:
        with self._changed:
            self._turns.remove(work)
            self._waiting_bytes -= work.size_bytes
        work.settle(error)


@dataclass(eq=False)
class _Work:
    compute: Callable[[int, int], None]
    rows: int
    size_bytes: int
    deadline: float
    position: int = 0
    chunk_rows: int = _FIRST_ROWS
    abandoned: bool = False
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

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
