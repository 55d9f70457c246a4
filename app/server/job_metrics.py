"""Metrics of jobs, workers and what the process depends on, made at each look of Prometheus."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from models_store.database.revisions import head_revision
from models_store.errors import StoreError
from models_store.files.disks import free_bytes
from models_store.jobs.figures import Figure, JobFigures

log = logging.getLogger(__name__)

_KEPT_S = 5.0
_STORED_KEPT_S = 60.0  # sums of all files


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
        self._known: list[Figure] | None = None
        self._stored: list[Figure] = []
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
        for figure in (
            Figure(
                "dependency_seconds",
                "Time that the last look at a dependency took.",
                ("dependency",),
                {(name,): seconds for name, seconds in dict(self._looks).items()},
            ),
            Figure(
                "dependency_up",
                "1 if the last look found that a dependency can be used.",
                ("dependency",),
                {(name,): ok for name, ok in self._found().items()},
            ),
            Figure(
                "free_bytes",
                "Free bytes of a disk: that of the store or of the copies of its files, and of the data.",
                ("disk",),
                dict(self._free()),
            ),
            Figure(
                "jobs_known",
                "1 if the rows of jobs could be read.",
                (),
                {(): float(figures is not None)},
            ),
            *(figures or ()),
        ):
            yield _family(figure)

    def _free(self) -> Iterator[tuple[tuple[str], int]]:
        for name, folder in self._disks.items():
            with suppress(OSError):  # the dependency is told to be away
                yield (name,), free_bytes(folder)

    def _read(self) -> list[Figure] | None:
        with self._lock:
            if time.monotonic() - self._read_at < _KEPT_S:
                return self._known
            try:
                found = self._figures.read()
                if time.monotonic() - self._stored_read_at >= _STORED_KEPT_S:
                    self._stored = self._figures.stored(max_bytes=self._max_bytes)
                    self._stored_read_at = time.monotonic()
                self._known = [*found, *self._stored]
            except StoreError as error:
                log.warning("the figures of jobs cannot be read: %s", error)
                self._known = None
            self._read_at = time.monotonic()
            return self._known


def _family(figure: Figure) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"densityd_{figure.name}", figure.text, labels=figure.labels)
    for key, value in figure.values.items():
        family.add_metric(key, float(value))
    return family
