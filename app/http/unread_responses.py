"""Responses that are sent whole, and count as long as their callers leave them unread."""

from starlette.types import Message, Scope, Send

from app.auth.callers import Caller
from app.http.body_memory import STREAMS_PART, BodyMemory
from app.problems.problem import Problem

_FREE_BYTES = 64 * 1024


class UnreadResponse:
    """Response to a caller who may read it slowly, or never.

    The kernel takes little of what is written. The rest of a response that is streamed waits to be made; one
    that was made whole is in memory until it was read.

    Args:
        scope: Scope of the request.
        send: Function that sends a message.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        """Send a message, of a whole response that is not small once there is room for it.

        Raises:
            Problem: `overloaded`: the project leaves too much unread. Nothing was sent.
        """
        if message["type"] == "http.response.start" and _is_large(message):
            self._start = message
            return
        start, self._start = self._start, None
        if start is None:
            await self._send(message)
            return
        caller: Caller | None = self._scope["state"].get("caller")
        if message.get("more_body", False) or not message.get("body") or caller is None:
            await self._send(start)
            await self._send(message)  # what nobody is known to ask for has the same bytes for all
            return
        memory: BodyMemory = self._scope["app"].state.body_memory
        with memory.of(caller.project).share() as share:
            if not share.may_hold(len(message["body"]), part=STREAMS_PART):
                detail = "Too many responses wait to be read. Read them, and try again."
                raise Problem("overloaded", detail)
            await self._send(start)
            await self._send({**message, "more_body": True})
            message["body"] = b""
            await self._send(message)  # once most of it was read


def _is_large(start: Message) -> bool:
    length = dict(start.get("headers", ())).get(b"content-length", b"0")
    return int(length) > _FREE_BYTES
