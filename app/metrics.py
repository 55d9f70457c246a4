"""Prometheus metrics of one API process."""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

METRICS_MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Variable with the folder that holds the metrics of all API processes of a port, if there are several."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_BUCKETS_MODEL_S = (0.005, 0.025, 0.1, 0.5, 2.5, 10, 60)
MOST_LABELS = 200
"""Values of a set of labels that projects choose; all further ones share ``other``."""
_BUCKETS_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class ModelMetrics:
    """Metrics of the models in memory."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.hits = Counter(
            "densityd_model_cache_hits_total",
            "Uses of a model that was in memory or on its way there.",
            registry=registry,
        )
        self.loads = Counter(
            "densityd_model_loads_total", "Models read into memory.", registry=registry
        )
        self.load_failures = Counter(
            "densityd_model_load_failures_total",
            "Models that could not be read, or whose file was not the one registered.",
            registry=registry,
        )
        self.load_seconds = Histogram(
            "densityd_model_load_seconds",
            "Time to read, check, compile and warm up a model.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self.evictions = Counter(
            "densityd_model_evictions_total", "Models that made room for others.", registry=registry
        )
        self.loaded = Gauge(
            "densityd_models_loaded",
            "Models in memory.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.bytes = Gauge(
            "densityd_models_loaded_bytes",
            "Memory of the models' weights.",
            multiprocess_mode="livesum",
            registry=registry,
        )


class EngineMetrics:
    """Metrics of the computations for requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge(
            "densityd_engine_waiting",
            "Scores and samples that wait or are computed.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.batch_rows = Histogram(
            "densityd_engine_batch_rows",
            "Rows computed at a time: of small requests together, or of a chunk of a large one.",
            buckets=_BUCKETS_ROWS,
            registry=registry,
        )
        self.refused = Counter(
            "densityd_engine_refused_total",
            "Scores and samples that were refused because too much waited.",
            registry=registry,
        )


class RankMetrics:
    """Metrics of the ranks of scored rows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ranks = Counter(
            "densityd_rank_total",
            "Rows scored, by the tenth of the held-out ranks that they are in; the least likely ones are in 0."
            f" Models after the first {MOST_LABELS} of a process are `other`.",
            ["project", "model", "decile"],
            registry=registry,
        )
        self._models: set[tuple[str, str]] = set()

    def count(self, project: str, model: str, ranks: list[int]) -> None:
        """Count rows of a model by their ranks."""
        if len(self._models) < MOST_LABELS:
            self._models.add((project, model))
        if (project, model) not in self._models:
            project = model = "other"
        for decile, count in enumerate(ranks):
            self._ranks.labels(project, model, str(decile)).inc(count)


class Metrics:
    """Metrics of `/metrics`; each application has its own registry.

    Attributes:
        open_requests: Number of requests in progress.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.models = ModelMetrics(self.registry)
        self.engine = EngineMetrics(self.registry)
        self.ranks = RankMetrics(self.registry)
        self._requests = Counter(
            "densityd_http_requests_total",
            "Requests that were responded to.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "densityd_http_request_seconds",
            "Time from a request's headers to the end of its response.",
            ["method", "route"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._broken = Counter(
            "densityd_http_broken_answers_total",
            "Responses of which the headers were sent and the rest was not, by who broke them off.",
            ["route", "by"],
            registry=self.registry,
        )
        self._model_failures = Counter(
            "densityd_model_request_failures_total",
            "Requests to models that were refused or failed.",
            ["project", "model", "status"],
            registry=self.registry,
        )
        self._model_seconds = Histogram(
            "densityd_model_request_seconds",
            "Time from the headers of a request to a model to the end of its response, of the first"
            " models that were asked for.",
            ["project", "model"],
            buckets=_BUCKETS_MODEL_S,
            registry=self.registry,
        )
        self._models: set[tuple[str, str]] = set()
        self._of_models: dict[tuple[str, str], Histogram] = {}
        self._of_requests: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.open_requests = 0
        self._shared = SHARED_METRICS in os.environ
        self._in_flight = Gauge(
            "densityd_http_requests_in_flight",
            "Requests in progress.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )

    def observe(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            method: Method of the request; unknown ones share a label.
            route: the route's template, never the path itself.
            status: Status of the response, or of the error that broke it off; 499 when the caller left first.
            seconds: Duration of the request.
        """
        method = method if method in _METHODS else "other"
        key = method, route, status
        known = self._of_requests.get(key)
        if known is None:  # looking labels up costs more than counting
            known = self._of_requests[key] = (
                self._requests.labels(method, route, str(status)),
                self._seconds.labels(method, route),
            )
        if self._shared:  # another process may render
            self._in_flight.set(self.open_requests)
        counter, histogram = known
        counter.inc()
        histogram.observe(seconds)

    def observe_model(self, *, project: str, model: str, status: int, seconds: float) -> None:
        """Count one request to a model.

        Args:
            model: Name of the model, which the project has unless the status is 404.
            seconds: Duration of the request.
        """
        pair = project, model
        known = self._of_models.get(pair)
        if known is None:
            pair = self.bounded(project, model, is_there=status != 404)
            known = self._of_models[pair] = self._model_seconds.labels(*pair)
        known.observe(seconds)
        if status >= 400:
            self._model_failures.labels(*pair, f"{status // 100}xx").inc()

    def bounded(self, project: str, model: str, *, is_there: bool = True) -> tuple[str, str]:
        """Return the labels of a project's model: its own if it is one of the first, else those of all others."""
        pair = project, model
        if pair not in self._models:
            if not is_there or len(self._models) >= MOST_LABELS:
                return "other", "other"
            self._models.add(pair)
        return pair

    def observe_broken(self, *, route: str, by_caller: bool) -> None:
        """Count one response that was interrupted after its headers.

        Args:
            route: template of the route.
            by_caller: the caller left; otherwise the rest could not be made.
        """
        self._broken.labels(route, "caller" if by_caller else "service").inc()

    def render(self) -> bytes:
        """Return the metrics in the text format of Prometheus, of all processes of the port."""
        self._in_flight.set(self.open_requests)
        folder = os.environ.get(SHARED_METRICS)
        if folder is None or not Path(folder).is_dir():
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # of prometheus_client
        return generate_latest(registry)
