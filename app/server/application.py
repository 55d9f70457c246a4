"""Application whose requests meet the middlewares of the service alone before its routes."""

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send


class Application(FastAPI):
    """FastAPI without its own outermost layers.

    They answer errors, bound bodies and look for telemetry, which `RequestMiddleware` and
    `BodyMiddleware` do here, and cost a score of one row a twentieth of its time.
    """

    def build_middleware_stack(self) -> ASGIApp:
        """Return the routes, below the middlewares that were added."""
        routes = AsyncExitStackMiddleware(self.router)
        app: ASGIApp = ExceptionMiddleware(routes, handlers=self.exception_handlers)
        for middleware in reversed(self.user_middleware):
            app = middleware.cls(app, *middleware.args, **middleware.kwargs)
        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)
