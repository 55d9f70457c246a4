"""A job's events as a stream of Server-Sent Events that nobody needs to guard against gaps."""

import asyncio
import logging
from collections.abc import Sequence

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.streaming import disconnected, send_piece
from models_store.errors import StoreError
from models_store.jobs import EventKind, JobEvent, Jobs

log = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
PAGE = 500
_PAGE_BYTES = 256 * 1024  # of their data; a message may have some kilobytes
_POLL_S = 0.5
_KEEP_ALIVE_S = 15.0
_RETRY = b"retry: 2000\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy that collects the stream would defeat it
}


class EventFeed:
    """The events of one job, read page by page without blocking the event loop.

    Args:
        jobs: where from.
        project: whose job.
        job_id: which.
        after: the number of the last event that the caller has.
    """

    def __init__(self, jobs: Jobs, project: str, job_id: str, *, after: int) -> None:
        self._jobs = jobs
        self._project = project
        self._job_id = job_id
        self._after = after

    async def read(self) -> tuple[list[JobEvent], bool]:
        """The next events, at most `PAGE`, and whether there will be none after them.

        Raises:
            StoreError: of the job or of the database; another try goes on from the same event.
        """
        events, ended = await asyncio.to_thread(self._read)
        if events:
            self._after = events[-1].seq
        return events, ended

    async def check(self) -> None:
        """See that there is such a job.

        Raises:
            StoreError: there is none, or the database cannot be asked.
        """
        await asyncio.to_thread(self._jobs.summary, self._project, self._job_id)

    def _read(self) -> tuple[list[JobEvent], bool]:
        # The state first: all events of a job that is final now are there to be read.
        job = self._jobs.summary(self._project, self._job_id)
        events = self._jobs.events(
            self._project, self._job_id, after=self._after, limit=PAGE, max_bytes=_PAGE_BYTES
        )
        last = events[-1].seq if events else self._after
        return events, job.final and last >= job.last_event


class EventStream(Response):
    """Events as they happen, until the job has ended, the caller leaves or the server stops.

    Args:
        first: what the feed's first `read` gave.
        feed: gives what comes after.
        stopping: set when the server stops.
    """

    def __init__(
        self, first: tuple[list[JobEvent], bool], feed: EventFeed, *, stopping: asyncio.Event
    ) -> None:
        super().__init__(media_type=MEDIA_TYPE, headers=_HEADERS)
        del self.headers["content-length"]
        self._first = first
        self._feed = feed
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the stream."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        ends = [
            asyncio.create_task(disconnected(receive)),
            asyncio.create_task(self._stopping.wait()),
        ]
        try:
            await self._follow(send, ends)
        finally:
            for end in ends:
                end.cancel()
        await send_piece(send, b"", more=False)

    async def _follow(self, send: Send, ends: Sequence["asyncio.Task[object]"]) -> None:
        events, ended = self._first
        await send_piece(send, _RETRY + b"".join(map(encode_event, events)))
        quiet_s = 0.0
        while not ended:
            pause_s = 0.0 if len(events) == PAGE else _POLL_S
            done, _ = await asyncio.wait(ends, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
            try:
                events, ended = await self._feed.read()
            except StoreError as error:
                log.warning("events cannot be read, trying again: %s", error)
                events = []
            quiet_s = 0.0 if events else quiet_s + pause_s
            if events:
                await send_piece(send, b"".join(map(encode_event, events)))
            elif quiet_s >= _KEEP_ALIVE_S:
                await send_piece(send, _KEEP_ALIVE)
                quiet_s = 0.0


def encode_event(event: JobEvent) -> bytes:
    """One event as it stands in the stream; JSON has no line breaks that could end it early."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.seq,
        EventKind(event.event).value.encode(),
        orjson.dumps(event.data),
    )
