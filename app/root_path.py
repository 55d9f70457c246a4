"""Path of a proxy below which the service lies, such as ``/densityd``."""

from contextvars import ContextVar

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_root: ContextVar[str] = ContextVar("root_path", default="")


def rooted(path: str) -> str:
    """Return a path of the service as its callers see it, for a link in a response."""
    return _root.get() + path


class RootPathMiddleware:
    """Middleware that takes the root path off requests whose proxy has left it on.

    All that comes after it, keys and routes included, knows the paths of the service alone.

    Args:
        app: Application to serve.
        root_path: Path that begins with a slash and does not end with one.
    """

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        self._app = app
        self._root = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        app = self._app
        if scope["type"] == "http":
            _root.set(self._root)  # a request is a task, with a context of its own
            path = str(scope["path"])
            if path == self._root:
                app = RedirectResponse(f"{self._root}/", status_code=308)
            elif path.startswith(f"{self._root}/"):
                raw_path = scope["raw_path"].removeprefix(self._root.encode())
                scope = {**scope, "path": path.removeprefix(self._root), "raw_path": raw_path}
        await app(scope, receive, send)
