"""Entrance of every request: who may come in, where to, how it ended; scores go straight to the engine."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.auth.admission import Admission
from app.auth.audit import AuditedApp
from app.engine.engine import OverloadedError
from app.http.exchange import CLIENT_LEFT, Answer, Exchange
from app.http.packed_bodies import unpack
from app.limits import NOBODY, charge_to
from app.metrics import Metrics
from app.problems.problem import Problem, problem_of, problem_of_lack, problem_response
from app.server.startup import Shutdown
from models_store.errors import StoreError
from models_store.keys import Scope as KeyScope
from models_store.process.logs import REQUEST_ID, TRACEPARENT, AccessLog
from models_store.process.traces import TRACES
from tabular.errors import TablesError

log = logging.getLogger(__name__)

Scorer = Callable[[Exchange, str], Awaitable[Response]]
"""Function that answers a request for numbers of a model, by its reference."""

_PACKED_BYTES = 4096  # of a response: fewer are sent as they are
# Whoever puts a key into a path has no use for it, but it need not be in the log.
_KEY_SECRET = re.compile(r"(key_[0-9a-f]{32})\.[0-9a-f]+")
_MODELS, _INFERENCE = "/v1/models/", "/v2/models/"
_QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics"})
PACKING: dict[str, Any] = {
    "minimum_size": _PACKED_BYTES,
    "compresslevel": 1,
    "exclude_content_types": (
        *DEFAULT_EXCLUDED_CONTENT_TYPES,
        # Floats hardly get smaller, and take time to.
        "application/octet-stream",
        "application/vnd.apache.arrow.stream",
        "application/vnd.apache.parquet",
        "application/x-npy",
    ),
}
"""Settings of the compression of responses."""


class Entrance:
    """Middleware that lets requests in, answers those for scores, and passes all others on.

    A score without a query passes `__call__`, `_serve` and `_score` here, then its function in
    `app.scoring.short_way`.

    Args:
        app: Application of all routes.
        scorers: Functions of scores by the template of their path.
        max_packed_bytes: Most compressed bytes of a body.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        scorers: Mapping[str, Scorer],
        admission: Admission,
        metrics: Metrics,
        shutdown: Shutdown,
        max_packed_bytes: int,
    ) -> None:
        self._app = app
        self._scorers = {path.rpartition("/")[2]: (path, call) for path, call in scorers.items()}
        self._admission = admission
        self._metrics = metrics
        self._shutdown = shutdown
        self._max_packed_bytes = max_packed_bytes
        self._access_log = AccessLog(log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, which is a task with a context of its own."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        exchange = Exchange(scope, receive, send, last=self._shutdown.draining)
        REQUEST_ID.set(exchange.request_id)
        TRACEPARENT.set(exchange.traceparent)
        self._metrics.open_requests += 1
        try:
            if TRACES.on and scope["path"] not in _QUIET_ROUTES:
                await self._serve_traced(exchange)
            else:
                await self._serve(exchange)
        finally:
            self._metrics.open_requests -= 1
            self._record(exchange, seconds=time.perf_counter() - began)

    async def _serve(self, exchange: Exchange) -> None:
        """Answer a request, or tell what is wrong with it."""
        scope = exchange.scope
        scorer = self._scorer_of(scope)
        try:
            if scorer is None:
                await self._pass_on(exchange)
            else:
                exchange.route, call, exchange.ref = scorer
                await self._score(exchange, call, exchange.ref)
        except ClientDisconnect:
            exchange.status = CLIENT_LEFT
        except (Exception, asyncio.CancelledError) as error:
            problem = _problem(error)
            # Too late for another response: the server cuts the connection. A cancelled request is
            # answered only where the server cancels it, which is when it stops.
            stops = self._shutdown.stopping.is_set()
            if exchange.started or (isinstance(error, asyncio.CancelledError) and not stops):
                exchange.status = problem.status
                raise
            path = str(scope["path"])
            response = problem_response(problem, request_id=exchange.request_id, path=path)
            await response(scope, exchange.receive, exchange.send)

    def _scorer_of(self, scope: Scope) -> tuple[str, Scorer, str] | None:
        """Return the path's template, the function and the reference of a request for scores without a query."""
        path: str = scope["path"]
        if scope["method"] != "POST" or scope["query_string"]:
            return None
        if not path.startswith((_MODELS, _INFERENCE)):
            return None
        ref, _, verb = path[len(_MODELS) :].partition("/")
        template, call = self._scorers.get(verb, ("", None))
        if call is None or not ref or not template.startswith(path[: len(_MODELS)]):
            return None
        return template, call, ref

    async def _score(self, exchange: Exchange, call: Scorer, ref: str) -> None:
        """Answer a request for scores."""
        state = exchange.state
        caller = await self._admission.admit(exchange, KeyScope.READ)
        state.open_requests.take(caller)
        try:
            charge_to(caller.project, state.threads)
            if b"content-encoding" in exchange.head:
                unpack(exchange, max_bytes=self._max_packed_bytes)
            response = await call(exchange, ref)
            if isinstance(response, Answer) and len(response.body) < _PACKED_BYTES:
                await exchange.answer(response)
            else:
                packed = GZipMiddleware(response, **PACKING)
                await packed(exchange.scope, exchange.receive, exchange.send)
        finally:
            state.open_requests.give_back(caller)

    async def _pass_on(self, exchange: Exchange) -> None:
        """Have the routes answer a request."""
        scope, state, app = exchange.scope, exchange.state, self._app
        method, path = scope["method"], scope["path"]
        needed = self._admission.policy.needed(method, path)
        if needed is None:
            charge_to(NOBODY, state.threads)
            await app(scope, exchange.receive, exchange.send)
            return
        caller = await self._admission.admit(exchange, needed)
        with state.open_requests.hold(caller):
            charge_to(caller.project, state.threads)
            unpack(exchange, max_bytes=self._max_packed_bytes)
            if self._admission.policy.changes(method, needed):
                app = AuditedApp(app, exchange)
            await app(scope, exchange.receive, exchange.send)

    async def _serve_traced(self, exchange: Exchange) -> None:
        """Answer a request inside a span of its own, which is named after its route once that is known."""
        scope = exchange.scope
        method = str(scope["method"])[:16]
        attributes = {
            "http.request.method": method,
            "url.scheme": scope["scheme"],
            "densityd.request_id": exchange.request_id,
        }
        parent = exchange.traceparent
        with TRACES.span(method, traceparent=parent, kind="server", attributes=attributes) as span:
            exchange.traceparent = TRACEPARENT.get()  # jobs of the request hang on it
            try:
                await self._serve(exchange)
            finally:
                route = _route_of(exchange)
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", exchange.status)
                if exchange.caller is not None:
                    span.set_attribute("densityd.project", exchange.caller.project)

    def _record(self, exchange: Exchange, *, seconds: float) -> None:
        """Count and log a request that has ended."""
        scope, status, caller = exchange.scope, exchange.status, exchange.caller
        route, method, path = _route_of(exchange), str(scope["method"]), str(scope["path"])
        self._metrics.observe(method=method, route=route, status=status, seconds=seconds)
        verb = "answered"
        if exchange.started and not exchange.complete:
            self._metrics.observe_broken(route=route, by_caller=status == CLIENT_LEFT)
            verb = "broke off its response:"
        if caller is not None and (model := _model_of(exchange)) is not None:
            self._metrics.observe_model(
                project=caller.project, model=model, status=status, seconds=seconds
            )
        level = logging.DEBUG if route in _QUIET_ROUTES else logging.INFO
        shown = _KEY_SECRET.sub(r"\1.***", path) if "key_" in path else path
        fields = {} if caller is None else {"key_id": caller.key_id, "project": caller.project}
        self._access_log.write(
            level, f"{method[:16]} {shown[:200]} {verb} {status} in {seconds:.4f} s", fields
        )


def _route_of(exchange: Exchange) -> str:
    """Return the template of a request's path, which is known of scores before the router looks for it."""
    return str(getattr(exchange.scope.get("route"), "path", exchange.route))


def _model_of(exchange: Exchange) -> str | None:
    """Return the name of the model that a request computed with, without an alias or a version."""
    scope = exchange.scope
    if scope["method"] != "POST" or not scope["path"].startswith(_MODELS):
        return None
    ref: str | None = exchange.ref or scope.get("path_params", {}).get("ref")
    return None if ref is None else ref.partition("@")[0].partition(":")[0]


def _problem(error: BaseException) -> Problem:
    problem = error if isinstance(error, Problem) else error.__cause__
    if isinstance(problem, Problem):
        return problem
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
