"""Raw routes for frequent requests, which are found without a search and read the request themselves."""

from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.unknown_parameters import refuse_unknown_parameters
from app.problems.problem import FieldError, Problem


class RawRoute(APIRoute):
    """Route whose function gets the request itself, without dependencies, parsing or a thread."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        parameters: dict[str, Any] = {}
        if scope["query_string"]:
            refuse_unknown_parameters(request, self)
            parameters = _parameters(request)
        response: Response = await self.endpoint(request, scope["path_params"]["ref"], **parameters)
        await response(scope, receive, send)


_CHOICES: dict[str, dict[str, str | bool]] = {
    "space": {"data": "data", "model": "model"},
    "extra": {"ignore": "ignore", "error": "error"},
    "parts": {"true": True, "false": False},
    "conditionals": {"true": True, "false": False},
    "explain": {"true": True, "false": False},
}


_NUMBERS: dict[str, tuple[int, int]] = {"samples": (1, 1000), "seed": (0, 2**63 - 1)}


def _parameters(request: Request) -> dict[str, Any]:
    """Return the parameters of a query, whose names are those of the route."""
    given: dict[str, Any] = {}
    errors = []
    for name, text in request.query_params.items():
        if name in _NUMBERS:
            least, most = _NUMBERS[name]
            # Neither a sign, nor digits of other scripts, nor more of them than a number has.
            if (
                text.isascii()
                and text.isdecimal()
                and len(text) <= 20
                and least <= int(text) <= most
            ):
                given[name] = int(text)
            else:
                words = f"It must be a whole number from {least} to {most}."
                errors.append(FieldError(words, parameter=name))
            continue
        choices = _CHOICES[name]
        if text in choices:
            given[name] = choices[text]
        else:
            words = " or ".join(f"`{choice}`" for choice in choices)
            errors.append(FieldError(f"It must be {words}.", parameter=name))
    if errors:
        raise Problem("validation", errors=errors)
    return given


class HotRoutes:
    """Middleware that serves the raw routes of a router.

    FastAPI tries its routes one after another, which takes longer than the score of one row. It
    still serves all other requests, refusals included.

    Args:
        app: Application that serves all other requests.
        router: Router with routes of the form `PREFIX/{ref}/VERB`.
    """

    def __init__(self, app: ASGIApp, *, router: APIRouter) -> None:
        """Wrap `app`."""
        self._app = app
        self._prefix = f"{router.prefix}/"
        self._routes = {
            (method, route.path.removeprefix(f"{router.prefix}/{{ref}}/")): route
            for route in router.routes
            if isinstance(route, RawRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path: str = scope.get("path", "")
        if path.startswith(self._prefix):
            ref, _, verb = path[len(self._prefix) :].partition("/")
            route = self._routes.get((str(scope.get("method")), verb))
            if ref and route is not None:
                scope["route"] = route
                scope["path_params"] = {"ref": ref}
                await route.handle(scope, receive, send)
                return
        await self._app(scope, receive, send)
