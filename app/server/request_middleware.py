"""Outermost middleware of every request: its id, security headers, access log, metrics and errors."""

import asyncio
import logging
import re
import time
from contextlib import AbstractContextManager, nullcontext
from random import Random
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.engine.engine import OverloadedError
from app.limits import Caller
from app.metrics import Metrics
from app.problems.problem import Problem, problem_of, problem_of_lack, problem_response
from app.server.startup import Shutdown
from models_store.errors import StoreError
from models_store.process.logs import REQUEST_ID, TRACEPARENT
from models_store.process.traces import TRACES
from tabular.errors import TablesError

log = logging.getLogger(__name__)

CLIENT_LEFT = 499
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
# Whoever puts a key into a path has no use for it, but it need not be in the log.
_KEY_SECRET = re.compile(r"(key_[0-9a-f]{32})\.[0-9a-f]+")
_MODELS = ("/v1/models/", "/v2/models/")
_QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics"})
_SECURITY_HEADERS = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
_ids = Random()  # noqa: S311  ids tell requests apart; nothing rests on their being secret


class RequestMiddleware:
    """Middleware that identifies, answers errors of, logs and counts every request."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, shutdown: Shutdown) -> None:
        self._app = app
        self._shutdown = shutdown
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _identify(scope)
        tracked = _TrackedResponse(send, request_id, last=self._shutdown.draining)
        began = time.perf_counter()
        logged = REQUEST_ID.set(request_id)
        self._metrics.in_flight.inc()
        state = scope["state"]
        with _span_of(scope) as span:
            if span is not None:
                state["traceparent"] = TRACEPARENT.get()  # jobs of the request hang on it
            traced = TRACEPARENT.set(state["traceparent"])
            try:
                await self._serve(scope, receive, tracked)
            finally:
                self._metrics.in_flight.dec()
                self._record(scope, tracked, seconds=time.perf_counter() - began)
                if span is not None:
                    _describe(span, scope, status=tracked.status)
                TRACEPARENT.reset(traced)
                REQUEST_ID.reset(logged)

    async def _serve(self, scope: Scope, receive: Receive, tracked: "_TrackedResponse") -> None:
        """Call the application, and answer the errors that it raises."""
        try:
            await self._app(scope, receive, tracked.send)
        except ClientDisconnect:
            tracked.status = CLIENT_LEFT
        except (Exception, asyncio.CancelledError) as error:
            problem = _problem(error)
            # Too late for another response: the server cuts the connection. A cancelled request is
            # answered only where the server cancels it, which is when it stops.
            stops = self._shutdown.stopping.is_set()
            if tracked.started or (isinstance(error, asyncio.CancelledError) and not stops):
                tracked.status = problem.status
                raise
            path = str(scope["path"])
            response = problem_response(problem, request_id=tracked.request_id, path=path)
            await response(scope, receive, tracked.send)

    def _record(self, scope: Scope, tracked: "_TrackedResponse", *, seconds: float) -> None:
        route = _route_of(scope)
        method = str(scope["method"])
        self._metrics.observe(method=method, route=route, status=tracked.status, seconds=seconds)
        level = logging.DEBUG if route in _QUIET_ROUTES else logging.INFO
        verb = "answered"
        if tracked.started and not tracked.complete:
            self._metrics.observe_broken(route=route, by_caller=tracked.status == CLIENT_LEFT)
            verb = "broke off its response:"
        path = _KEY_SECRET.sub(r"\1.***", str(scope["path"]))[:200]
        caller: Caller | None = scope["state"].get("caller")
        model = _model_of(scope)
        if caller is not None and model is not None:
            self._metrics.observe_model(
                project=caller.project, model=model, status=tracked.status, seconds=seconds
            )
        extra = {} if caller is None else {"key_id": caller.key_id, "project": caller.project}
        values = method[:16], path, verb, tracked.status, seconds
        log.log(level, "%s %s %s %d in %.4f s", *values, extra=extra)


class _TrackedResponse:
    """Response of a request: adds the common headers and records how it ended.

    Attributes:
        status: Status of the response, or of the error that ended it.
        started: True once its headers were sent.
        complete: True once all of it was sent.
    """

    def __init__(self, send: Send, request_id: str, *, last: bool) -> None:
        self._send = send
        self._last = last  # of its connection
        self.request_id = request_id
        self.status = CLIENT_LEFT
        self.started = False
        self.complete = False

    async def send(self, message: Message) -> None:
        """Pass an ASGI message on."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            given = {name for name, _ in headers}
            headers.append((b"x-request-id", self.request_id.encode()))
            headers += [header for header in _SECURITY_HEADERS if header[0] not in given]
            if self._last:
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True


def _route_of(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "unmatched")


def _model_of(scope: Scope) -> str | None:
    """Return the name of the model that a request computed with, without an alias or a version."""
    if not scope["path"].startswith(_MODELS) or scope["method"] != "POST":
        return None
    ref: str | None = scope.get("path_params", {}).get("ref")
    return None if ref is None else ref.partition("@")[0].partition(":")[0]


def _span_of(scope: Scope) -> AbstractContextManager[Any]:
    """Return a context that is the span of a request; of those that only watch none is made."""
    if not TRACES.on or scope["path"] in _QUIET_ROUTES:
        return nullcontext()
    method = str(scope["method"])[:16]
    attributes = {
        "http.request.method": method,
        "url.scheme": scope["scheme"],
        "densityd.request_id": scope["state"]["request_id"],
    }
    parent = scope["state"]["traceparent"]
    return TRACES.span(method, traceparent=parent, kind="server", attributes=attributes)


def _describe(span: Any, scope: Scope, *, status: int) -> None:  # noqa: ANN401 - of an extra
    """Name the span of a request that has ended after its route, which is known by now."""
    route = _route_of(scope)
    span.update_name(f"{str(scope['method'])[:16]} {route}")
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    caller: Caller | None = scope["state"].get("caller")
    if caller is not None:
        span.set_attribute("densityd.project", caller.project)


def _problem(error: BaseException) -> Problem:
    told = error if isinstance(error, Problem) else error.__cause__
    if isinstance(told, Problem):
        return told
    if isinstance(error, asyncio.CancelledError):
        return Problem("stopping")
    if isinstance(error, (StoreError, TablesError)):
        return problem_of(error)
    if isinstance(error, OverloadedError):
        return Problem("overloaded")
    if (lack := problem_of_lack(error)) is not None:
        log.error("no thread or process can be started; raise the limit of processes or threads")
        return lack
    log.error("unexpected error", exc_info=error)
    return Problem("internal")


def _identify(scope: Scope) -> str:
    """Choose the request's id, and keep a valid trace context; both are in the request's state."""
    headers = dict(reversed(scope["headers"]))  # of one that comes twice, the first counts
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    traceparent = headers.get(b"traceparent", b"").decode("latin-1")
    request_id = given if _REQUEST_ID.fullmatch(given) else f"{_ids.getrandbits(128):032x}"
    state = scope.setdefault("state", {})
    state["request_id"] = request_id
    state["traceparent"] = traceparent if _TRACEPARENT.fullmatch(traceparent) else None
    return request_id
