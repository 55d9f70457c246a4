"""Events of a job, by the page and as a stream of Server-Sent Events, and waits for its end."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Literal

import orjson
from fastapi import Query, Request
from starlette.responses import Response, StreamingResponse

from app.auth.callers import caller_of, check_again
from app.http.streaming import unless_disconnected
from app.limits import in_thread
from app.problems.problem import Problem
from app.root_path import rooted
from app.server.event_hub import EventHub
from app.state import state_of
from models_store.errors import NotFoundError, StoreError
from models_store.job_states import EventSlice, JobEvent
from models_store.jobs.jobs import Jobs

log = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
LONGEST_WAIT_S = 60
PAGE = 500
KEEP_ALIVE_S = 15.0
"""Seconds after which a stream without events shows that it is there, and its key is looked at again."""
# Most events that a stream reads at a time: of one who does not read them they stay in memory.
_STREAMED = 100
_AGAIN_S = 0.5
_RETRY = b"retry: 2000\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy that collects the stream would defeat it
}

Format = Annotated[
    Literal["sse", "json"],
    Query(description="`sse` for a stream of Server-Sent Events, `json` for a page of events."),
]


async def hold_stream(request: Request, format: Format = "sse") -> AsyncIterator[None]:  # noqa: A002 - the parameter's public name
    """Count an open stream until the response has been sent.

    Raises:
        Problem: `limit-open-requests`.
    """
    if format == "json":
        yield
        return
    with state_of(request).open_streams.hold(caller_of(request)):
        yield


class EventFeed:
    """Feed of the events of one job, read page by page without blocking the event loop.

    Args:
        jobs: Jobs of all projects.
        after: Number of the last event that the caller has.
    """

    def __init__(self, jobs: Jobs, project: str, job_id: str, *, after: int) -> None:
        self.job_id = job_id
        self.after = after
        self._jobs = jobs
        self._project = project

    async def page(self) -> EventSlice:
        """Return the next events, at most `PAGE`.

        Raises:
            StoreError: The events cannot be read; another try continues from the same event.
        """
        return await in_thread(self._read, PAGE)

    async def text(self) -> tuple[bytes, EventSlice]:
        """Return the next events as Server-Sent Events, fewer at a time; raises as `page`."""

        def read() -> tuple[bytes, EventSlice]:
            page = self._read(_STREAMED)
            return b"".join(map(_encoded, page.events)), page

        return await in_thread(read)

    def _read(self, limit: int) -> EventSlice:
        page = self._jobs.event_page(self._project, self.job_id, after=self.after, limit=limit)
        if page.events:
            self.after = page.events[-1].seq
        return page


async def stream_events(request: Request, feed: EventFeed) -> Response:
    """Return a stream of a job's events until it has ended or is deleted, or caller or server leave.

    The response is 204 if the job has ended and the caller has all its events. FastAPI's own streams
    of events can answer nothing else, and do not ask for the key again.

    Raises:
        StoreError: The job does not exist, or its events cannot be read.
    """
    text, page = await feed.text()
    if page.ended and not text:
        return Response(status_code=204)
    first = _RETRY + text
    stream = _followed(request, feed, state_of(request).event_hub, first, page)
    return StreamingResponse(stream, media_type=MEDIA_TYPE, headers=_HEADERS)


async def _followed(
    request: Request, feed: EventFeed, hub: EventHub, text: bytes, page: EventSlice
) -> AsyncIterator[bytes]:
    checked = time.monotonic()
    with hub.follow(feed.job_id) as woken:
        while True:
            if text:
                yield text
            if page.ended or hub.stopped:
                return
            if not page.more and not await _woken(woken):
                yield _KEEP_ALIVE
            if time.monotonic() - checked >= KEEP_ALIVE_S:
                checked = time.monotonic()
                try:
                    await check_again(request.scope)
                except Problem as problem:
                    content = {"type": rooted(problem.type.uri), "detail": problem.detail}
                    yield b"event: closed\ndata: %s\n\n" % orjson.dumps(content)
                    return
            text, page = await _next(feed, page)


async def _next(feed: EventFeed, page: EventSlice) -> tuple[bytes, EventSlice]:
    """Return the events after a page; what cannot be read now is tried again soon."""
    try:
        return await feed.text()
    except NotFoundError:
        return b"", EventSlice([], more=False, final=True)  # the job was deleted
    except StoreError as error:
        log.warning("events cannot be read, trying again: %s", error)
        await asyncio.sleep(_AGAIN_S)
        return b"", replace(page, more=True)


async def _woken(woken: asyncio.Event) -> bool:
    """Wait until the stream is woken; return False when a keep-alive is due."""
    try:
        async with asyncio.timeout(KEEP_ALIVE_S):
            await woken.wait()
    except TimeoutError:
        return False
    woken.clear()
    return True


async def wait_for_end(request: Request, project: str, job_id: str, *, seconds: float) -> None:
    """Wait until a job has ended, but not for ever; counts as an open event stream meanwhile.

    Raises:
        Problem: `limit-open-requests`.
        StoreError: The job does not exist, or the database cannot be read.
        ClientDisconnect: The caller has left.
    """
    state = state_of(request)

    async def wait() -> None:
        with state.event_hub.follow(job_id) as woken:
            while not (await in_thread(state.jobs.summary, project, job_id)).final:
                if state.event_hub.stopped:
                    return
                await woken.wait()
                woken.clear()

    with state.open_streams.hold(caller_of(request)), suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await unless_disconnected(request.receive, wait())


def _encoded(event: JobEvent) -> bytes:
    """Return an event as a Server-Sent Event; JSON has no line breaks that could end it."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.seq,
        event.event.value.encode(),
        orjson.dumps(event.data),
    )
