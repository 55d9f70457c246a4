"""Spans and metrics of an attempt, made of what its trainer reports, which has no network itself."""

import time
from collections.abc import Sequence

from models_store.process.traces import TRACES
from workers.metrics import WorkerMetrics
from workers.protocol import EpochDone, Interrupted

_UNITS = ("epoch", "iteration", "part")


class AttemptReports:
    """Spans and metrics of an attempt.

    Args:
        kind: Kind of the job.
        metrics: Metrics of the worker.
    """

    def __init__(self, kind: str, metrics: WorkerMetrics) -> None:
        self._kind = kind
        self._metrics = metrics
        self._since = time.time()

    def started(self) -> None:
        """Record the start of the trainer."""
        self._record("start", {})

    def advanced(self, messages: Sequence[EpochDone | Interrupted]) -> None:
        """Record epochs, iterations or parts that have ended, as one span, and their checkpoints."""
        last = messages[-1]
        unit = next((unit for unit in _UNITS if unit in last.metrics), "batch")
        self._record(f"{unit}s", {f"densityd.{unit}": last.metrics.get(unit, 0)})
        for message in messages:
            if message.checkpoint is not None and message.checkpoint.seconds is not None:
                seconds = message.checkpoint.seconds
                self._metrics.observe_checkpoint(self._kind, seconds)
                TRACES.record("checkpoint", began=time.time() - seconds)

    def ended(self) -> None:
        """Record the time from the last report to the end of the trainer."""
        self._record("end", {})

    def _record(self, name: str, attributes: dict[str, int]) -> None:
        TRACES.record(name, began=self._since, attributes=attributes)
        self._since = time.time()
