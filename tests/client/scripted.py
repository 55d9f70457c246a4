"""A server on a real socket that gives the answers of a script, and keeps what it was asked; bodies for it."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any


@dataclass(frozen=True)
class Reply:
    """One answer; `cut` bytes of its body are promised and never come."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0


DROP = Reply(status=0)
"""Read the request, then close the connection without a word."""


def a_problem(status: int, **headers: str) -> Reply:
    """An error as the service gives it."""
    content = {"type": "/problems/overloaded", "title": "The server is busy", "status": status}
    body = json.dumps({**content, "detail": "Too much."}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, body, {"Content-Type": "application/problem+json", **named})


def a_json(value: Any, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(value).encode(), named)


@dataclass(frozen=True)
class Asked:
    """One request."""

    line: str
    headers: dict[str, str]
    body: bytes


def read_body(stream: BufferedIOBase, headers: dict[str, str]) -> bytes:
    """Read a body of known length, or one in chunks."""
    if headers.get("transfer-encoding") != "chunked":
        return stream.read(int(headers.get("content-length", 0)))
    body = b""
    while size := int(stream.readline(), 16):
        body += stream.read(size)
        stream.readline()
    stream.readline()
    return body


class ScriptedServer:
    """Gives each request the next answer; the last one again and again."""

    def __init__(self, port: int = 0) -> None:
        self.asked: list[Asked] = []
        self.replies: Sequence[Reply] = ()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                outer._answer(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - the base's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = read_body(handler.rfile, headers)
        reply = self.replies[min(len(self.asked), len(self.replies) - 1)]
        self.asked.append(Asked(f"{handler.command} {handler.path}", headers, body))
        handler.close_connection = reply is DROP or reply.cut > 0
        if reply is DROP:
            return
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if reply.status != 204:
            handler.send_header("Content-Length", str(len(reply.body) + reply.cut))
        handler.end_headers()
        handler.wfile.write(reply.body)


DATASET: dict[str, object] = {
    "id": "ds_1", "name": None, "rows": 6, "bytes": 1, "sha256": "a", "columns": [],
    "column_count": 0, "warnings": [],
    "description": None, "tags": {}, "created_at": "2026-11-24T15:27:00Z",
}  # fmt: skip
JOB: dict[str, object] = {
    "id": "job_1", "kind": "training", "state": "succeeded", "attempt": 1, "started_at": None,
    "created_at": "2026-11-24T15:27:00Z", "finished_at": None, "progress": None, "metrics": None,
    "model": {"name": "m", "version": 1}, "cancel_requested": False,
    "error": None, "request": {}, "newer": True, "description": None, "tags": {}, "priority": 0,
    "resources": {}, "dataset_id": None, "role": None, "parent_id": None, "result": None,
    "next_attempt_at": None,
}  # fmt: skip
VERSION: dict[str, object] = {
    "name": "m", "version": 1, "family": "maf", "dim": 2, "columns": ["a", "b"], "flow": {},
    "preprocessing": {}, "parameters": 4, "metrics": {}, "aliases": [], "types": None,
    "context_columns": [], "held_out": None, "description": None, "tags": {}, "verdict": None,
    "lineage": {
        "job_id": None, "dataset_id": None, "dataset_sha256": None, "target": None,
        "code_version": "1", "seed": None,
    },
    "checkpoint": {"sha256": "a", "bytes": 1}, "created_at": "2026-11-24T15:27:00Z",
}  # fmt: skip
