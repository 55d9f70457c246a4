"""Batches of a millisecond, computed on the event loop itself."""

import time
from collections.abc import Hashable

from app.engine.batches import EngineError, Small, compute_together
from app.metrics import EngineMetrics

# A batch may keep the event loop for so long.
_QUICK_S = 0.0015
_MAX_ROWS = 256
# How much larger a batch may be than one that was quick.
_GROWTH = 4
_MAX_KEYS = 10_000


class QuickBatches:
    """Small requests for functions that are known to be quick.

    The way to a thread and back costs a few switches of it, and a thread that computes in many
    small steps waits for the interpreter's lock before each of them: for a row of a usual flow
    that is more than the score itself. What comes in one turn of the event loop is computed
    together in the next. How many rows of a function are quick is learnt from each batch of it, by
    processor time, whoever computed it; of one that is not known or not quick this takes nothing.

    Args:
        metrics: batches are counted there.
    """

    def __init__(self, metrics: EngineMetrics) -> None:
        self._metrics = metrics
        self._limits: dict[Hashable, int] = {}
        self._waiting: list[Small] = []

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def takes(self, work: Small) -> bool:
        """Whether to compute it here."""
        return len(work.rows) <= self._limits.get(work.key, 0)

    def add(self, work: Small) -> None:
        """Compute it in the next turn of the event loop."""
        if not self._waiting:
            work.loop.call_soon(self._compute)
        self._waiting.append(work)

    def learn(self, key: Hashable, rows: int, seconds: float) -> None:
        """Note how long a batch took. From any thread."""
        if rows == 0:
            return
        limit = self._limits.get(key, 0)
        if seconds <= _QUICK_S:
            limit = max(limit, min(_GROWTH * rows, _MAX_ROWS))
        else:
            limit //= (
                2  # not 0 at once: a machine that does other work stretches a batch now and then
            )
        if len(self._limits) >= _MAX_KEYS:
            self._limits.clear()
        self._limits[key] = limit

    def _compute(self) -> None:
        """One batch; the event loop serves others before the next one."""
        key = self._waiting[0].key
        limit = self._limits.get(key, 1)
        batch: list[Small] = []
        rest: list[Small] = []
        rows = 0
        for work in self._waiting:
            if work.key == key and (not batch or rows + len(work.rows) <= limit):
                batch.append(work)
                rows += len(work.rows)
            else:
                rest.append(work)
        self._waiting = rest
        if rest:
            rest[0].loop.call_soon(self._compute)
        began = time.thread_time()
        try:
            rows = compute_together(batch, _settle)
            self.learn(key, rows, time.thread_time() - began)
            self._metrics.batch_rows.observe(rows)
        except BaseException:
            for work in batch:
                work.settle_here(EngineError())
            raise


def _settle(work: Small, error: Exception | None) -> None:
    work.settle_here(error)
