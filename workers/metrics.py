"""Metrics of one worker, and what its attempts add to them and to the traces."""

import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from models_store.process.traces import TRACES
from workers.protocol import EpochDone, Interrupted

_UNITS = ("epoch", "iteration", "part")


class WorkerMetrics:
    """Metrics of one worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.attempts = Counter(
            "densityd_worker_attempts_total",
            "Attempts at jobs that have ended.",
            ["kind", "ending"],
            registry=self.registry,
        )
        self.seconds = Counter(
            "densityd_worker_attempt_seconds_total",
            "Time of the attempts that have ended.",
            ["kind"],
            registry=self.registry,
        )
        self.checkpoint_seconds = Counter(
            "densityd_worker_checkpoint_seconds_total",
            "Time that trainers took to store checkpoints.",
            ["kind"],
            registry=self.registry,
        )
        self.checkpoints = Counter(
            "densityd_worker_checkpoints_total",
            "Checkpoints that trainers stored.",
            ["kind"],
            registry=self.registry,
        )
        self.running = Gauge(
            "densityd_worker_jobs_running", "Jobs that the worker runs.", registry=self.registry
        )
        self.slots = Gauge(
            "densityd_worker_slots", "Jobs that the worker may run.", registry=self.registry
        )
        self.takes_jobs = Gauge(
            "densityd_worker_takes_jobs",
            "1 if the worker takes jobs, 0 if it lacks what they need.",
            registry=self.registry,
        )

    def observe_attempt(self, kind: str, ending: str, seconds: float) -> None:
        """Count an attempt that has ended."""
        self.attempts.labels(kind, ending).inc()
        self.seconds.labels(kind).inc(seconds)


class AttemptReports:
    """Spans and metrics of an attempt, made of what its trainer reports, which has no network itself."""

    def __init__(self, kind: str, metrics: WorkerMetrics) -> None:
        self._kind = kind
        self._metrics = metrics
        self._since = time.time()

    def record(self, name: str, attributes: dict[str, int] | None = None) -> None:
        """Record the time since the last record as a span."""
        TRACES.record(name, began=self._since, attributes=attributes or {})
        self._since = time.time()

    def advanced(self, messages: Sequence[EpochDone | Interrupted]) -> None:
        """Record epochs, iterations or parts that have ended, as one span, and their checkpoints."""
        last = messages[-1]
        unit = next((unit for unit in _UNITS if unit in last.metrics), "batch")
        self.record(f"{unit}s", {f"densityd.{unit}": last.metrics.get(unit, 0)})
        for message in messages:
            if message.checkpoint is not None and message.checkpoint.seconds is not None:
                seconds = message.checkpoint.seconds
                self._metrics.checkpoints.labels(self._kind).inc()
                self._metrics.checkpoint_seconds.labels(self._kind).inc(seconds)
                TRACES.record("checkpoint", began=time.time() - seconds)
