"""Metrics of jobs, workers and what the process depends on, made at each look of Prometheus."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from models_store.database.revisions import head_revision
from models_store.errors import StoreError
from models_store.jobs.figures import Figures, JobFigures

log = logging.getLogger(__name__)

_KEPT_S = 5.0

Key = TypeVar("Key", bound=tuple[str, ...])


class JobMetrics(Collector):
    """Collector of figures that rows tell, the same from every process; read once in five seconds.

    Args:
        figures: Reader of the rows.
        looks: Seconds that the last look at each dependency took, filled in by who looks.
    """

    def __init__(self, figures: JobFigures, looks: Mapping[str, float]) -> None:
        self._figures = figures
        self._looks = looks
        self._lock = threading.Lock()
        self._known: Figures | None = None
        self._read_at = float("-inf")
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Return nothing: so the registry does not read the rows when it is made."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; without a database, those of jobs are left out."""
        figures = self._read()
        build = {"version": version("densityd"), "schema": head_revision()}
        yield InfoMetricFamily("densityd_build", "Version of the code.", value=build)
        yield _labelled(
            "densityd_dependency_seconds",
            "Time that the last look at a dependency took.",
            ["dependency"],
            {(name,): seconds for name, seconds in dict(self._looks).items()},
        )
        up = GaugeMetricFamily("densityd_jobs_known", "1 if the rows of jobs could be read.")
        up.add_metric([], float(figures is not None))
        yield up
        if figures is not None:
            yield from _of_jobs(figures)

    def _read(self) -> Figures | None:
        with self._lock:
            if time.monotonic() - self._read_at < _KEPT_S:
                return self._known
            try:
                self._known = self._figures.read()
            except StoreError as error:
                log.warning("the figures of jobs cannot be read: %s", error)
                self._known = None
            self._read_at = time.monotonic()
            return self._known


def _of_jobs(figures: Figures) -> Iterator[Metric]:
    yield _labelled(
        "densityd_jobs",
        "Jobs that wait or run.",
        ["state", "kind", "accelerator"],
        figures.unfinished,
    )
    yield _labelled(
        "densityd_jobs_oldest_waiting_seconds",
        "Age of the oldest job that waits.",
        ["accelerator"],
        {(wanted,): seconds for wanted, seconds in figures.oldest_s.items()},
    )
    yield _labelled(
        "densityd_jobs_lease_expired",
        "Running jobs whose worker went silent.",
        [],
        {(): figures.expired},
    )
    yield _labelled(
        "densityd_jobs_rows_per_second",
        "Rows that running jobs compute in a second.",
        ["kind"],
        {(kind,): rate for kind, rate in figures.rows_per_second.items()},
    )
    for name, text in (
        ("jobs", "Jobs that ended in the last hour."),
        ("attempts", "Attempts of the jobs that ended in the last hour."),
        (
            "wait_seconds",
            "Time that the jobs which ended in the last hour had waited for a worker.",
        ),
        ("run_seconds", "Time that the jobs which ended in the last hour had run for."),
    ):
        values = {key: getattr(ended, name) for key, ended in figures.ended.items()}
        yield _labelled(f"densityd_jobs_ended_{name}", text, ["state", "kind"], values)
    yield _labelled(
        "densityd_workers",
        "Workers that gave a sign of life in the last minute.",
        ["device", "takes_jobs"],
        {(device, str(fit).lower()): count for (device, fit), count in figures.workers.items()},
    )


def _labelled(
    name: str, text: str, labels: list[str], values: Mapping[Key, float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), float(value))
    return family
