"""HEAD on every route that has GET: the same response without its body and its work."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEAD = "is_head"
_JSON = "application/json"


class HeadMiddleware:
    """Middleware that serves HEAD as GET, and ends the work where the body would begin.

    Routes that do much work for the body end earlier, with `end_head`. The length of JSON is left
    out, since the body was not made.
    """

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
                await send(_without_length(message))
                return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            raise _HeadSentError

        scope.setdefault("state", {})[_HEAD] = True
        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive, send_head)
        except _HeadSentError:
            pass
        except _HeadEndedError as ended:
            response = Response(media_type=ended.media_type, headers=ended.headers)
            del response.headers["content-length"]
            await response(scope, receive, send)
        finally:
            if "route" in inner:
                scope["route"] = inner["route"]  # for the log and the metrics


def is_head(request: HTTPConnection) -> bool:
    """Return True if the method was HEAD, though the route sees a GET."""
    return _HEAD in request.scope.get("state", {})


def end_head(
    request: HTTPConnection, *, media_type: str = _JSON, headers: Mapping[str, str] | None = None
) -> None:
    """Respond to a HEAD at once; a GET continues.

    Args:
        request: Request that has passed all checks of a GET.
        media_type: Type of the body that a GET would get.
        headers: Further headers of the response.
    """
    if is_head(request):
        raise _HeadEndedError(media_type, headers or {})


def _without_length(message: Message) -> Message:
    """Leave out the length of JSON, which may be that of a shorter body."""
    if message["type"] == "http.response.start":
        headers = MutableHeaders(raw=list(message.get("headers", ())))
        if headers.get("content-type", "").startswith(_JSON):
            del headers["content-length"]
        return {**message, "headers": headers.raw}
    return message


class _HeadSentError(Exception):
    """End of the response to a HEAD."""


class _HeadEndedError(Exception):
    """Response to a HEAD that needs no more work."""

    def __init__(self, media_type: str, headers: Mapping[str, str]) -> None:
        self.media_type = media_type
        self.headers = headers
        super().__init__(media_type)
