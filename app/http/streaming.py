"""Streamed responses to callers who may be slow or gone."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from threading import Event
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.fairness.leaving import disconnected

_Result = TypeVar("_Result")
Piece = bytes | memoryview


async def unless_disconnected(request: Request, work: Awaitable[_Result]) -> _Result:
    """Return the result of `work`, which is cancelled when the caller leaves.

    Raises:
        ClientDisconnect: The caller has left.
    """
    gone = asyncio.create_task(disconnected(request.receive))
    try:
        return await _unless_gone(gone, work)
    finally:
        gone.cancel()


async def _unless_gone(gone: "asyncio.Task[None]", work: Awaitable[_Result]) -> _Result:
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        await asyncio.wait({task})  # a generator is closed only once it does not run
        del task  # its error refers to this frame, and must not find itself in it


async def unless_left_waiting(
    request: Request, start: Callable[[Callable[[], None]], Awaitable[_Result]]
) -> _Result:
    """Return the result of work in a thread, which is dropped when the caller leaves before it has begun.

    What has begun goes on: it may have stored something.

    Args:
        request: Request whose body has been read.
        start: Function that starts the work, which calls the argument of this function first.

    Raises:
        ClientDisconnect: The caller has left.
    """
    begun, left = Event(), Event()

    def begin() -> None:
        begun.set()
        if left.is_set():
            raise ClientDisconnect

    gone = asyncio.create_task(disconnected(request.receive))
    work = asyncio.ensure_future(start(begin))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            left.set()  # first: of the two threads one sees what the other has set
            if not begun.is_set():
                raise ClientDisconnect
        return await work
    finally:
        gone.cancel()
        work.cancel()
        await asyncio.wait({work})
        del work  # its error refers to this frame, and must not find itself in it


async def ahead(items: AsyncGenerator[_Result, None]) -> AsyncGenerator[_Result, None]:
    """Yield the same items; the next one is made while one is used."""
    pending = asyncio.ensure_future(anext(items, None))
    try:
        while (item := await pending) is not None:
            pending = asyncio.ensure_future(anext(items, None))
            given = [item]
            del item  # a caller may read it slowly, and the next one may come late
            yield given.pop()
    finally:
        pending.cancel()
        await asyncio.wait({pending})
        del pending  # its error refers to this frame, and must not find itself in it
        await items.aclose()


class StreamedResponse(Response):
    """Response with chunks that are made while it is sent; at most two are in memory at once.

    Args:
        pieces: Chunks of the body, closed in every case. Empty ones are not sent.
        media_type: Media type of the body.
        headers: Further headers, with a Content-Length where the size is known.
        status_code: Status of the response.
        filling: Task that still reads the request, from which the chunks are made; it ends when the
            caller leaves, and is cancelled with the response.
        held: Resource that is released once the response has been sent; None for none.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[Piece, None],
        *,
        media_type: str,
        headers: Mapping[str, str],
        status_code: int = 200,
        filling: "asyncio.Task[None] | None" = None,
        held: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        super().__init__(status_code=status_code, media_type=media_type, headers=headers)
        if "Content-Length" not in headers:
            del self.headers["content-length"]
        self._pieces = pieces
        self._filling = filling
        self._held = held or nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the response; a caller who leaves ends the work on it."""
        gone = asyncio.create_task(self._gone(receive))
        try:
            async with self._held:
                await self._send(send, gone)
        finally:
            gone.cancel()
            if self._filling is not None:
                self._filling.cancel()

    async def _send(self, send: Send, gone: "asyncio.Task[None]") -> None:
        async with aclosing(self._pieces) as pieces:
            start = {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
            try:
                # An error of it is still told as a problem; it may wait for memory until then.
                first = await _unless_gone(gone, anext(pieces, b""))
            except ClientDisconnect:
                await send(start)  # a change is recorded when its response begins
                raise
            await send(start)
            if first:
                await send_piece(send, first)
            async for piece in pieces:
                if gone.done():
                    raise ClientDisconnect
                if piece:
                    await send_piece(send, piece)
            await send_piece(send, b"", more=False)

    async def _gone(self, receive: Receive) -> None:
        if self._filling is not None:
            await asyncio.wait({self._filling})
        await disconnected(receive)


async def send_piece(send: Send, piece: Piece, *, more: bool = True) -> None:
    """Send a chunk of a body."""
    await send({"type": "http.response.body", "body": piece, "more_body": more})
