"""Metrics of one worker."""

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector


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

    def observe_checkpoint(self, kind: str, seconds: float) -> None:
        """Count a checkpoint."""
        self.checkpoints.labels(kind).inc()
        self.checkpoint_seconds.labels(kind).inc(seconds)
