"""HEAD on every route that has GET: the same answer without its body."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Serves HEAD as GET, and ends the work on the answer where its body would begin."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
                return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            raise _HeadSentError

        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive, send_head)
        except _HeadSentError:
            pass
        finally:
            if "route" in inner:
                scope["route"] = inner["route"]  # for the log and the metrics


class _HeadSentError(Exception):
    """Nothing more is to be sent."""
