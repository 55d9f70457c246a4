"""HEAD on every route that has GET: the same answer without its body, and without its work."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEAD = "is_head"
_JSON = "application/json"


class HeadMiddleware:
    """Serves HEAD as GET, and ends the work on the answer where its body would begin.

    Routes that would work hard for the body end earlier, with `end_head`. The length of JSON is left
    out: nobody made it.
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
    """Return whether the caller asked with HEAD, though the route sees a GET."""
    return _HEAD in request.scope.get("state", {})


def end_head(
    request: HTTPConnection, *, media_type: str = _JSON, headers: Mapping[str, str] | None = None
) -> None:
    """Answer a HEAD here and now; a GET goes on.

    Args:
        request: Request, of which all is checked that a GET would be refused for.
        media_type: Type of the body that a GET would get.
        headers: Further headers of its answer.
    """
    if is_head(request):
        raise _HeadEndedError(media_type, headers or {})


def _without_length(message: Message) -> Message:
    """Leave out the length of JSON, which is that of a body of less."""
    if message["type"] == "http.response.start":
        headers = MutableHeaders(raw=list(message.get("headers", ())))
        if headers.get("content-type", "").startswith(_JSON):
            del headers["content-length"]
        return {**message, "headers": headers.raw}
    return message


class _HeadSentError(Exception):
    """Nothing more is to be sent."""


class _HeadEndedError(Exception):
    """The answer to a HEAD is known; there is no need of the work on its body."""

    def __init__(self, media_type: str, headers: Mapping[str, str]) -> None:
        self.media_type = media_type
        self.headers = headers
        super().__init__(media_type)
