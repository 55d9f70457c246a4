"""Scores in front of the router: most requests are one row without a query, and the search takes a tenth of each."""

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send


class ScoresFirst:
    """Middleware that gives requests without a query to the functions of a router as they are.

    These read the body themselves, and all their parameters but the reference have defaults. FastAPI
    serves all else, such as requests with parameters to read, and refusals.

    Args:
        app: Application that serves all other requests.
        router: Router with POST routes of the form `PREFIX/{ref}/VERB`.
    """

    def __init__(self, app: ASGIApp, *, router: APIRouter) -> None:
        self._app = app
        self._prefix = f"{router.prefix}/"
        routes = [route for route in router.routes if isinstance(route, APIRoute)]
        self._routes = {route.path.rpartition("/")[2]: route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path: str = scope.get("path", "")
        if path.startswith(self._prefix) and scope["method"] == "POST":
            ref, _, verb = path[len(self._prefix) :].partition("/")
            route = self._routes.get(verb)
            if ref and route is not None and not scope["query_string"]:
                scope["route"] = route
                scope["path_params"] = {"ref": ref}
                response = await route.endpoint(Request(scope, receive, send), ref)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
