"""Access to the service: every route that is not named as open needs a key."""

from fastapi import APIRouter

from app.auth.callers import DEFAULT_PROJECT, Callers
from app.auth.loopback import is_local_name
from app.auth.rates import Rates
from app.http.exchange import Exchange
from app.limits import Caller
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

    @staticmethod
    def changes(method: str, needed: Scope) -> bool:
        """Return whether a request may change something, which is then audited."""
        return needed is not Scope.READ and method not in _SAFE

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


class Admission:
    """Admission of requests, by their callers and what these may do.

    Args:
        policy: Scope that each request needs.
        local: True if callers without a key must be on this machine; requests from pages of other
            sites, which its browsers may have open, are then refused.
    """

    def __init__(self, policy: Policy, rates: Rates, *, local: bool) -> None:
        self.policy = policy
        self._rates = rates
        self._local = local

    async def admit(self, exchange: Exchange, needed: Scope) -> Caller:
        """Return the caller of a request, who may send it.

        Raises:
            Problem: The request is refused.
            DatabaseError: The keys cannot be read.
        """
        callers: Callers = exchange.state.callers
        caller = callers.at_hand(exchange) or await callers.identify(
            exchange.values(b"authorization"), exchange.scope
        )
        if caller.key_id is None and self._local:
            _refuse_other_sites(exchange)
        elif caller.is_person and b"authorization" not in exchange.head:
            _refuse_forged(exchange)
        if not caller.scope.includes(needed):
            raise _forbidden(needed)
        if caller.project != DEFAULT_PROJECT and is_of_the_service(exchange.scope["path"]):
            raise Problem(
                "forbidden",
                f"This tells of all projects: it needs a key with scope `admin` of the project `{DEFAULT_PROJECT}`.",
            )
        exchange.caller, exchange.rate_headers = caller, self._rates.take(caller)
        return caller


def _refuse_other_sites(exchange: Exchange) -> None:
    """Refuse a request that a browser sends for the page of another site."""
    host = b"".join(exchange.values(b"host")).decode("latin-1")
    if not is_local_name(host):
        raise Problem(
            "foreign-site",
            "Without API keys, no public host name is served: create one with `densityd keys create`.",
        )
    if exchange.scope["method"] not in _SAFE:
        for origin in exchange.values(b"origin"):
            if origin.decode("latin-1").partition("://")[2] != host:
                raise Problem("foreign-site", "`Origin` is another site than `Host`.")


def _refuse_forged(exchange: Exchange) -> None:
    """Refuse a change that a browser sends for the page of another site, with the cookie of a proxy."""
    if exchange.scope["method"] in _SAFE:
        return
    fetch_sites = exchange.values(b"sec-fetch-site")
    if fetch_sites:
        foreign = fetch_sites not in ([b"same-origin"], [b"none"])
    else:  # an old browser, or one without TLS
        hosts = {b"".join(exchange.values(name)) for name in (b"host", b"x-forwarded-host")}
        origins = exchange.values(b"origin")
        foreign = any(origin.partition(b"://")[2] not in hosts for origin in origins)
    if foreign:
        raise Problem("foreign-site", "The request comes from the page of another site.")


def _forbidden(needed: Scope) -> Problem:
    challenge = f'Bearer realm="densityd", error="insufficient_scope", scope="{needed.value}"'
    return Problem(
        "forbidden",
        f"This needs a key with scope `{needed.value}`.",
        headers={"WWW-Authenticate": challenge},
    )
