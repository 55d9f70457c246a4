"""Port of a worker for those who watch it: liveness, readiness and metrics."""

import json
import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from workers.metrics import WorkerMetrics

log = logging.getLogger(__name__)

_TIMEOUT_S = 5.0


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
        class Handler(BaseHTTPRequestHandler):
            timeout = _TIMEOUT_S

            def do_GET(self) -> None:
                """Answer a request."""
                reason = unfit()
                match self.path.partition("?")[0]:
                    case "/livez":
                        self._send(HTTPStatus.OK, b'{"status":"ok"}')
                    case "/readyz" if reason is None:
                        self._send(HTTPStatus.OK, b'{"status":"ok"}')
                    case "/readyz":
                        body = {"status": "unavailable", "detail": reason}
                        self._send(HTTPStatus.SERVICE_UNAVAILABLE, json.dumps(body).encode())
                    case "/metrics":
                        metrics.takes_jobs.set(reason is None)
                        self._send(
                            HTTPStatus.OK,
                            generate_latest(metrics.registry),
                            CONTENT_TYPE_PLAIN_0_0_4,
                        )
                    case _:
                        self._send(HTTPStatus.NOT_FOUND, b"{}")

            def _send(
                self, status: HTTPStatus, body: bytes, media_type: str = "application/json"
            ) -> None:
                self.send_response(status)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                """Log nothing: whoever watches asks every few seconds."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.number = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="port", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
