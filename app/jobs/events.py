"""A job's events as a stream of Server-Sent Events."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.auth.callers import check_again
from app.http.streaming import disconnected
from app.limits import OpenBound
from app.problems.problem import Problem
from app.root_path import rooted
from app.server.event_hub import EventFeed, EventHub, Topic
from models_store.errors import NotFoundError, StoreError

SendText = Callable[..., Awaitable[None]]

log = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
_AGAIN_S = 0.5
_KEEP_ALIVE_S = 15.0
_RETRY = b"retry: 2000\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy that collects the stream would defeat it
}


class EventStream(Response):
    """Stream of a job's events until it has ended or is deleted, or caller or server leave.

    Args:
        feed: Feed of the events.
        hub: Hub that wakes the stream when there are more events.
        streams: Bound on the number of open streams.
    """

    def __init__(
        self,
        feed: EventFeed,
        *,
        hub: EventHub,
        streams: OpenBound,
    ) -> None:
        super().__init__(media_type=MEDIA_TYPE, headers=_HEADERS)
        del self.headers["content-length"]
        self._feed = feed
        self._hub = hub
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, or 204 if the job has ended and the caller has all its events.

        Raises:
            Problem: `limit-open-requests`, before anything is read or sent.
            StoreError: The job does not exist, or its events cannot be read; nothing is sent.
        """
        with self._streams.hold(scope["state"]["caller"]):
            text, ended = await self._feed.read_text()
            if ended and not text:
                await Response(status_code=204)(scope, receive, send)
            else:
                await self._stream(scope, receive, send, first=(text, ended))

    async def _stream(
        self, scope: Scope, receive: Receive, send: Send, *, first: tuple[bytes, bool]
    ) -> None:
        woken = asyncio.Event()

        async def send_text(text: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": text, "more_body": more})

        with self._hub.follow(self._feed, woken) as topic:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            gone = asyncio.create_task(disconnected(receive))
            gone.add_done_callback(lambda _: woken.set())
            try:
                await send_text(_RETRY + first[0])
                if not first[1]:
                    await self._follow(scope, send_text, topic, woken, gone=gone)
            except Problem as problem:  # of the key
                await send_text(_closing(problem))
            finally:
                gone.cancel()
            await send_text(b"", more=False)

    async def _follow(
        self,
        scope: Scope,
        send_text: SendText,
        topic: Topic,
        woken: asyncio.Event,
        *,
        gone: "asyncio.Task[None]",
    ) -> None:
        ended = False
        checked = time.monotonic()
        while not ended:
            quiet = not self._feed.more and not await _woken(woken)
            if time.monotonic() - checked >= _KEEP_ALIVE_S:
                checked = time.monotonic()
                await check_again(scope)
            if quiet:
                await send_text(_KEEP_ALIVE)
                continue
            if gone.done() or self._hub.stopped:
                return
            ended = await self._send_news(send_text, topic)

    async def _send_news(self, send_text: SendText, topic: Topic) -> bool:
        """Send new events; return whether there will be no more."""
        feed = self._feed
        news = None if feed.more else topic.since(feed.after)
        if news is not None:
            if news:
                feed.after = news[-1][0]
                await send_text(b"".join(text for _, text in news))
            return topic.final and feed.after >= topic.last
        try:
            text, ended = await feed.read_text()
        except NotFoundError:
            return True  # the job was deleted
        except StoreError as error:
            log.warning("events cannot be read, trying again: %s", error)
            feed.more = True
            await asyncio.sleep(_AGAIN_S)
            return False
        topic.pass_over(feed.after)
        if text:
            await send_text(text)
        return ended


async def _woken(woken: asyncio.Event) -> bool:
    """Wait until the stream is woken; return False when a keep-alive is due."""
    try:
        async with asyncio.timeout(_KEEP_ALIVE_S):
            await woken.wait()
    except TimeoutError:
        return False
    woken.clear()
    return True


def _closing(problem: Problem) -> bytes:
    """Return the event `closed`, which explains an early end and has no id of the job's events."""
    content = {"type": rooted(problem.type.uri), "detail": problem.detail}
    return b"event: closed\ndata: %s\n\n" % orjson.dumps(content)
