"""Metrics of jobs, workers and what the process depends on, made at each look of Prometheus."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from models_store.database.revisions import head_revision
from models_store.errors import StoreError
from models_store.files.disks import free_bytes
from models_store.jobs.figures import Figures, JobFigures, Stored

log = logging.getLogger(__name__)

_KEPT_S = 5.0
_STORED_KEPT_S = 60.0  # sums of all files

Key = TypeVar("Key", bound=tuple[str, ...])


class JobMetrics(Collector):
    """Collector of figures that rows tell, the same from every process; read once in five seconds.

    Args:
        looks: Seconds that the last look at each dependency took, filled in by who looks.
        found: Function that returns what that look found: True for each dependency that can be used.
        disks: Folders whose disks fill up, by name.
        max_bytes: Bytes that a project may store that has no limit of its own.
    """

    def __init__(
        self,
        figures: JobFigures,
        looks: Mapping[str, float],
        *,
        found: Callable[[], Mapping[str, bool]] = dict,
        disks: Mapping[str, Path] | None = None,
        max_bytes: int = 0,
    ) -> None:
        self._figures = figures
        self._looks = looks
        self._found = found
        self._disks = disks or {}
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._known: Figures | None = None
        self._stored: dict[str, Stored] = {}
        self._read_at = self._stored_read_at = float("-inf")
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
        yield _labelled(
            "densityd_dependency_up",
            "1 if the last look found that a dependency can be used.",
            ["dependency"],
            {(name,): ok for name, ok in self._found().items()},
        )
        yield _labelled(
            "densityd_free_bytes",
            "Free bytes of a disk: that of the store or of the copies of its files, and of the data.",
            ["disk"],
            dict(self._free()),
        )
        up = GaugeMetricFamily("densityd_jobs_known", "1 if the rows of jobs could be read.")
        up.add_metric([], float(figures is not None))
        yield up
        if figures is not None:
            yield from _of_jobs(figures)
            yield from _of_projects(self._stored, self._max_bytes)

    def _free(self) -> Iterator[tuple[tuple[str], int]]:
        for name, folder in self._disks.items():
            with suppress(OSError):  # the dependency is told to be away
                yield (name,), free_bytes(folder)

    def _read(self) -> Figures | None:
        with self._lock:
            if time.monotonic() - self._read_at < _KEPT_S:
                return self._known
            try:
                self._known = self._figures.read()
                if time.monotonic() - self._stored_read_at >= _STORED_KEPT_S:
                    self._stored = self._figures.stored()
                    self._stored_read_at = time.monotonic()
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
    yield _labelled(
        "densityd_jobs_failed",
        "Jobs that failed in the last hour, by the reason.",
        ["code"],
        {(code,): count for code, count in figures.failed.items()},
    )
    yield _labelled(
        "densityd_webhook_deliveries",
        "Deliveries that three attempts failed at, and those given up in the last hour.",
        ["state"],
        {(state,): count for state, count in figures.deliveries.items()},
    )
    yield _labelled(
        "densityd_webhooks_disabled", "Disabled webhooks.", [], {(): figures.webhooks_disabled}
    )
    if figures.backed_up_at is not None:
        yield _labelled(
            "densityd_backup_timestamp_seconds",
            "End of the last back-up that lacked nothing, in seconds since 1970.",
            [],
            {(): figures.backed_up_at.timestamp()},
        )


def _of_projects(stored: Mapping[str, Stored], max_bytes: int) -> Iterator[Metric]:
    for name, text, values in (
        (
            "stored_bytes",
            "Bytes of the files of the hundred largest projects.",
            {(project,): of_it.bytes for project, of_it in stored.items()},
        ),
        (
            "max_bytes",
            "Bytes that these projects may store.",
            {(project,): of_it.max_bytes or max_bytes for project, of_it in stored.items()},
        ),
    ):
        yield _labelled(f"densityd_project_{name}", text, ["project"], values)


def _labelled(
    name: str, text: str, labels: list[str], values: Mapping[Key, float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), float(value))
    return family
