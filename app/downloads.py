"""A file as an answer, whole or in ranges."""

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from app.problems import Problem

_REFUSALS = {400: "bad-request", 416: "range"}


class Download(FileResponse):
    """Starlette's, which says in plain text what is wrong with a `Range`; this one in our way."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file.

        Raises:
            Problem: `bad-request` or `range`, before anything is sent.
        """

        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _REFUSALS:
                raise _refusal(message)
            await send(message)

        await super().__call__(scope, receive, send_unless_refused)


def _refusal(message: Message) -> Problem:
    slug = _REFUSALS[message["status"]]
    if slug == "bad-request":
        return Problem(slug, "The `Range` header is not one of ranges of bytes.")
    headers = Headers(raw=message["headers"])
    return Problem(slug, headers={"Content-Range": headers["content-range"]})
