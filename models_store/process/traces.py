"""Traces by OpenTelemetry: off unless the variables of OpenTelemetry name a collector."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from typing import Any, Literal

from models_store.process.logs import TRACEPARENT

log = logging.getLogger(__name__)

SpanKind = Literal["internal", "server", "consumer"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
# A collector that does not answer must not keep a process from ending.
_LAST_S = 2.0
_NOTHING: AbstractContextManager[None] = nullcontext()


class Traces:
    """Spans of this process, sent to a collector by OTLP over HTTP in a thread of their own.

    Spans that a slow collector does not take are dropped; nothing waits for it.
    """

    def __init__(self) -> None:
        self._provider: Any = None
        self._tracer: Any = None

    @property
    def on(self) -> bool:
        """True if spans are made."""
        return self._tracer is not None

    def configure(self, process: str) -> None:
        """Send spans from now on, if the environment names a collector; called once, at the entry.

        Sampling, headers, limits and the rest follow the variables of OpenTelemetry.

        Args:
            process: Name of the process, such as ``api``; the service is ``densityd-api`` unless
                ``OTEL_SERVICE_NAME`` names it.
        """
        if not _wanted():
            return
        try:
            # Late: an extra, and a fifth of a second.
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ImportError as error:
            log.warning("no traces are sent, install densityd[traces]: %s", error)
            return
        own = {"service.name": f"densityd-{process}", "service.version": version("densityd")}
        named = Resource.create(own).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("densityd")

    def span(
        self,
        name: str,
        *,
        traceparent: str | None = None,
        kind: SpanKind = "internal",
        attributes: dict[str, Any] | None = None,
    ) -> AbstractContextManager[Any]:
        """Return a context that is a span of its own; it gives the span, None while traces are off.

        Args:
            name: Name of the span, one of few.
            traceparent: W3C trace context of the parent; None: the span of the context around it.
            kind: Kind of the span.
            attributes: Attributes of the span.
        """
        if self._tracer is None:
            return _NOTHING
        return self._span(name, traceparent, kind, attributes)

    def record(self, name: str, *, began: float, attributes: dict[str, Any] | None = None) -> None:
        """Record a span that ends now, inside the present one.

        Args:
            name: Name of the span.
            began: Its beginning, as `time.time` tells it.
            attributes: Attributes of the span.
        """
        if self._tracer is not None:
            start = int(began * 1e9)
            span = self._tracer.start_span(name, start_time=start, attributes=attributes)
            span.end(max(start, time.time_ns()))

    def describe(self, attributes: dict[str, Any]) -> None:
        """Add attributes to the present span."""
        if self._tracer is not None:
            from opentelemetry import trace  # noqa: PLC0415 - of the extra

            trace.get_current_span().set_attributes(attributes)

    def close(self) -> None:
        """Send what is left, within two seconds."""
        provider, self._provider, self._tracer = self._provider, None, None
        if provider is not None:
            last = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
            last.start()
            last.join(_LAST_S)

    @contextmanager
    def _span(
        self,
        name: str,
        traceparent: str | None,
        kind: SpanKind,
        attributes: dict[str, Any] | None,
    ) -> Iterator[Any]:
        from opentelemetry import trace  # noqa: PLC0415 - of the extra
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        context = None
        if traceparent is not None:
            context = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
        with self._tracer.start_as_current_span(
            name, context, trace.SpanKind[kind.upper()], attributes
        ) as span:
            carrier: dict[str, str] = {}
            TraceContextTextMapPropagator().inject(carrier)
            token = TRACEPARENT.set(carrier.get("traceparent", traceparent))
            try:
                yield span
            finally:
                TRACEPARENT.reset(token)


def _wanted() -> bool:
    """Return whether the environment names a collector, and does not turn traces off."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    return exporters.strip() == "otlp" and any(map(os.environ.get, _ENDPOINTS))


TRACES = Traces()
"""Traces of this process."""
