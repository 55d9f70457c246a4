"""Port of a worker for those who watch it: liveness, readiness and metrics."""

import json
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from workers.metrics import WorkerMetrics


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 5.0

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Log nothing: whoever watches asks every few seconds."""


class Port:
    """HTTP server of a worker, in threads of its own.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0: any.
        metrics: Metrics of the worker.
        unfit: Function that returns the reason for which the worker takes no jobs, or None.

    Attributes:
        number: Port that it listens on.

    Raises:
        OSError: The address cannot be listened on.
    """

    def __init__(
        self, host: str, port: int, *, metrics: WorkerMetrics, unfit: Callable[[], str | None]
    ) -> None:
        render = make_wsgi_app(metrics.registry)

        def answer(environ: dict[str, Any], start: Any) -> Iterable[bytes]:  # noqa: ANN401 - of WSGI
            path, reason = environ["PATH_INFO"], unfit()
            if path == "/metrics":
                metrics.takes_jobs.set(reason is None)
                rendered: Iterable[bytes] = render(environ, start)
                return rendered
            status, body = "200 OK", {"status": "ok"}
            if path == "/readyz" and reason is not None:
                status = "503 Service Unavailable"
                body = {"status": "unavailable", "detail": reason}
            elif path not in {"/livez", "/readyz"}:
                status, body = "404 Not Found", {}
            start(status, [("Content-Type", "application/json")])
            return [json.dumps(body).encode()]

        self._server = make_server(host, port, answer, _Server, _Handler)
        self.number = int(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, name="port", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
