"""Routes for frequent requests: one without a query costs no dependencies, no parsing and no thread."""

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class ThinRoute(APIRoute):
    """Route that FastAPI documents, and serves where there are parameters to read.

    A request without a query is given to the function as it is: it reads the body itself, and all its
    parameters but the reference have defaults.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["query_string"] or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        response: Response = await self.endpoint(request, scope["path_params"]["ref"])
        await response(scope, receive, send)
