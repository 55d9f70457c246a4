"""Access to the service: every route that is not named as open needs a key."""

from fastapi import APIRouter
from starlette.types import ASGIApp, Message, Receive, Scope as AsgiScope, Send

from app.auth.audit import AuditedApp
from app.auth.callers import DEFAULT_PROJECT, Callers, authorization_of
from app.auth.loopback import is_local_name
from app.auth.rates import Headers, Rates
from app.limits import NOBODY, Caller, OpenBound, Threads, on_account_of
from app.problems.problem import Problem
from models_store.keys import Scope

_OPEN = frozenset(
    {
        *("/", "/livez", "/readyz", "/docs", "/guide", "/openapi.json", "/problems"),
        *("/v2/health/live", "/v2/health/ready"),
    }
)
_OPEN_BELOW = ("/guide/", "/problems/", "/static/")
_FOR_ADMINISTRATORS = frozenset({"/v1/audit"})
_KEYS = "/v1/keys"
# Of all projects: for administrators of the service.
_OF_THE_SERVICE = ("/metrics", "/v1/projects")
_MODELS, _INFER = "/v2/models/", "/infer"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Policy:
    """Scope that each request needs: the only place that says so.

    Args:
        questions: Router whose POST routes, `PREFIX/{ref}/VERB`, change nothing.
    """

    def __init__(self, questions: APIRouter) -> None:
        self._prefix = f"{questions.prefix}/"
        paths = [str(getattr(route, "path", "")) for route in questions.routes]
        self._verbs = frozenset(path.rpartition("/")[2] for path in paths)

    def needed(self, method: str, path: str) -> Scope | None:
        """Return the scope that a request needs; None if it is open to all."""
        if method in _SAFE:
            if path in _OPEN or path.startswith(_OPEN_BELOW):
                return None
            alone = path in _FOR_ADMINISTRATORS or _is_of_keys(path) or is_of_the_service(path)
            return Scope.ADMIN if alone else Scope.READ
        if path.startswith(self._prefix) and method == "POST":
            ref, _, verb = path[len(self._prefix) :].partition("/")
            if ref and verb in self._verbs:
                return Scope.READ
        if method == "POST" and path.startswith(_MODELS) and path.endswith(_INFER):
            return Scope.READ
        return Scope.ADMIN if _is_of_keys(path) or is_of_the_service(path) else Scope.WRITE


def is_of_the_service(path: str) -> bool:
    """Return whether a path tells of all projects, which is for administrators of the project `default`."""
    return any(path == first or path.startswith(f"{first}/") for first in _OF_THE_SERVICE)


def _is_of_keys(path: str) -> bool:
    return path == _KEYS or path.startswith(f"{_KEYS}/")


class AccessMiddleware:
    """Middleware that admits a request and puts its caller into the state, or raises a `Problem`.

    Args:
        app: Application that serves admitted requests.
        policy: Scope that each request needs.
        local: True if callers without a key must be on this machine; requests from pages of other
            sites, which its browsers may have open, are then refused.
    """

    def __init__(self, app: ASGIApp, *, policy: Policy, rates: Rates, local: bool) -> None:
        self._app = app
        self._policy = policy
        self._rates = rates
        self._local = local

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        threads: Threads = scope["app"].state.threads
        needed = self._policy.needed(scope["method"], scope["path"])
        if needed is None:
            with on_account_of(NOBODY, threads):
                await self._app(scope, receive, send)
            return
        caller, told = await self._admitted(scope, needed)
        open_requests: OpenBound = scope["app"].state.open_requests
        with open_requests.hold(caller), on_account_of(caller.project, threads):
            scope["state"]["caller"] = caller
            changes = needed is not Scope.READ and scope["method"] not in _SAFE
            app = AuditedApp(self._app, caller) if changes else self._app
            await app(scope, receive, _telling(send, told))

    async def _admitted(self, scope: AsgiScope, needed: Scope) -> tuple[Caller, Headers]:
        """Admit a request; return its caller, and what is left of its rate.

        Raises:
            Problem: The request is refused.
            DatabaseError: The keys cannot be read.
        """
        callers: Callers = scope["app"].state.callers
        caller = await callers.identify(authorization_of(scope), scope)
        if caller.key_id is None and self._local:
            _refuse_other_sites(scope)
        elif caller.is_person and not authorization_of(scope):
            _refuse_forged(scope)
        if not caller.scope.includes(needed):
            raise _forbidden(needed)
        if caller.project != DEFAULT_PROJECT and is_of_the_service(scope["path"]):
            raise Problem(
                "forbidden",
                f"This tells of all projects: it needs a key with scope `admin` of the project `{DEFAULT_PROJECT}`.",
            )
        return caller, self._rates.take(caller)


def _telling(send: Send, told: Headers) -> Send:
    """Wrap `send`: the response has these headers, too."""
    if not told:
        return send

    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *told]}
        await send(message)

    return tell


def _refuse_other_sites(scope: AsgiScope) -> None:
    """Refuse a request that a browser sends for the page of another site."""
    host = b"".join(_values(scope, b"host")).decode("latin-1")
    if not is_local_name(host):
        raise Problem(
            "foreign-site",
            "Without API keys, no public host name is served: create one with `densityd keys create`.",
        )
    if scope["method"] not in _SAFE:
        for origin in _values(scope, b"origin"):
            if origin.decode("latin-1").partition("://")[2] != host:
                raise Problem("foreign-site", "`Origin` is another site than `Host`.")


def _refuse_forged(scope: AsgiScope) -> None:
    """Refuse a change that a browser sends for the page of another site, with the cookie of a proxy."""
    if scope["method"] in _SAFE:
        return
    said = _values(scope, b"sec-fetch-site")
    if said:
        foreign = said not in ([b"same-origin"], [b"none"])
    else:  # an old browser, or one without TLS
        hosts = {b"".join(_values(scope, name)) for name in (b"host", b"x-forwarded-host")}
        foreign = any(
            origin.partition(b"://")[2] not in hosts for origin in _values(scope, b"origin")
        )
    if foreign:
        raise Problem("foreign-site", "The request comes from the page of another site.")


def _values(scope: AsgiScope, wanted: bytes) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == wanted]


def _forbidden(needed: Scope) -> Problem:
    challenge = f'Bearer realm="densityd", error="insufficient_scope", scope="{needed.value}"'
    return Problem(
        "forbidden",
        f"This needs a key with scope `{needed.value}`.",
        headers={"WWW-Authenticate": challenge},
    )
