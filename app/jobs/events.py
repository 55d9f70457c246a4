"""A job's events as a stream of Server-Sent Events."""

import asyncio
import logging

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.auth.key_checks import Lease
from app.auth.open_requests import OpenBound
from app.fairness.leaving import disconnected
from app.http.streaming import send_piece
from app.problems.problem import Problem
from app.root_path import rooted
from app.server.event_hub import EventFeed, EventHub, Topic
from models_store.errors import NotFoundError, StoreError

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
        lease: Lease = scope["state"]["lease"]
        woken = asyncio.Event()
        lease.on_end(woken.set)
        with self._hub.follow(self._feed, woken) as topic:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            gone = asyncio.create_task(disconnected(receive))
            gone.add_done_callback(lambda _: woken.set())
            try:
                await send_piece(send, _RETRY + first[0])
                if not first[1]:
                    await self._follow(send, topic, woken, ends=(gone, lease))
            finally:
                gone.cancel()
            await send_piece(send, b"", more=False)

    async def _follow(
        self,
        send: Send,
        topic: Topic,
        woken: asyncio.Event,
        *,
        ends: "tuple[asyncio.Task[None], Lease]",
    ) -> None:
        gone, lease = ends
        ended = False
        while not ended:
            if not self._feed.more and not await _woken(woken):
                await send_piece(send, _KEEP_ALIVE)
                continue
            if gone.done() or self._hub.stopped:
                return
            if lease.ended is not None:
                await send_piece(send, _closing(lease.ended))
                return
            ended = await self._send_news(send, topic)

    async def _send_news(self, send: Send, topic: Topic) -> bool:
        """Send new events; return whether there will be no more."""
        feed = self._feed
        news = None if feed.more else topic.since(feed.after)
        if news is not None:
            if news:
                feed.after = news[-1][0]
                await send_piece(send, b"".join(text for _, text in news))
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
            await send_piece(send, text)
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
