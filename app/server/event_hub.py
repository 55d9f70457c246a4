"""Events of the jobs that are followed, read for all who follow them."""

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import orjson

from app.limits import in_thread
from models_store.errors import StoreError
from models_store.job_states import EventKind, EventPlace, EventSlice, JobEvent
from models_store.jobs.jobs import Jobs

log = logging.getLogger(__name__)

News = dict[str, list[tuple[int, bytes]]]
"""Numbers and texts of the new events of jobs."""

PAGE = 500
STREAMED = 100
"""Most events that a stream reads at a time: one who does not read them has them in memory."""
_PAGE_BYTES = 256 * 1024  # of their data; a message may have some kilobytes
_STREAMED_BYTES = 64 * 1024
_NEWS_BYTES = 64 * 1024  # of the data of a job's events in a poll
_POLL_S = 0.5
_READS_A_POLL = 32


class EventFeed:
    """Feed of the events of one job, read page by page without blocking the event loop.

    Args:
        jobs: Jobs of all projects.
        project: Project that owns the job.
        job_id: Id of the job.
        after: Number of the last event that the caller has.

    Attributes:
        more: True if there were more events than the page of the last read.
    """

    def __init__(self, jobs: Jobs, project: str, job_id: str, *, after: int) -> None:
        self.job_id = job_id
        self.after = after
        self.more = False
        self._jobs = jobs
        self._project = project

    async def read(self) -> tuple[list[JobEvent], bool]:
        """Return the next events, at most `PAGE`, and whether there will be none after them.

        Raises:
            StoreError: The events cannot be read; another try continues from the same event.
        """
        page = await in_thread(self._page, PAGE, _PAGE_BYTES)
        self._pass(page)
        return page.events, page.ended

    async def read_text(self) -> tuple[bytes, bool]:
        """Return the next events, at most `STREAMED`, as Server-Sent Events, and whether none will follow.

        Raises:
            StoreError: The events cannot be read; another try continues from the same event.
        """

        def read() -> tuple[EventSlice, bytes]:
            page = self._page(STREAMED, _STREAMED_BYTES)
            return page, b"".join(map(encode_event, page.events))

        page, text = await in_thread(read)
        self._pass(page)
        return text, page.ended

    async def check(self) -> bool:
        """Return True if the caller has all events of the job, and there will be no more.

        Raises:
            StoreError: The job does not exist, or the database cannot be read.
        """
        place = await self._place()
        return place is not None and place.final and place.last <= self.after

    async def skip(self) -> bool:
        """Pass over the events so far; return True if there will be no more, and raise as `check`."""
        place = await self._place()
        self.after = 0 if place is None else place.last
        return place is None or place.final

    def _page(self, limit: int, max_bytes: int) -> EventSlice:
        return self._jobs.event_page(
            self._project, self.job_id, after=self.after, limit=limit, max_bytes=max_bytes
        )

    def _pass(self, page: EventSlice) -> None:
        self.more = page.more
        if page.events:
            self.after = page.events[-1].seq

    async def _place(self) -> EventPlace | None:
        await in_thread(self._jobs.summary, self._project, self.job_id)
        return (await in_thread(self._jobs.event_places, [self.job_id])).get(self.job_id)


class EventHub:
    """Reader of the events of jobs that streams follow, once for all streams of a job.

    One transaction every half second finds the jobs with new events and reads these, for any number
    of streams, and the events of a job are encoded once. It belongs to one event loop.

    Args:
        jobs: Jobs of all projects.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._topics: dict[str, Topic] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events")
        self.stopped = False

    @contextmanager
    def follow(self, feed: EventFeed, woken: asyncio.Event) -> "Iterator[Topic]":
        """Follow a job as long as the context lasts.

        Args:
            feed: Feed of an existing job, which has read the events so far.
            woken: Event that is set whenever there is something new.
        """
        topic = self._topics.get(feed.job_id)
        if topic is None:
            topic = self._topics[feed.job_id] = Topic(feed.after)
        topic.woken.add(woken)
        if feed.after < topic.last:
            woken.set()  # the others were woken before this one came
        try:
            yield topic
        finally:
            topic.woken.discard(woken)
            if not topic.woken and self._topics.get(feed.job_id) is topic:
                del self._topics[feed.job_id]

    async def run(self, stopping: asyncio.Event) -> None:
        """Look for new events until the server stops."""
        try:
            while not stopping.is_set():
                await self._look_again()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_S):
                        await stopping.wait()
        finally:
            self.stopped = True
            for topic in self._topics.values():
                topic.wake()
            self._thread.shutdown(wait=False)

    async def _look_again(self) -> None:
        if not self._topics:
            return
        try:
            await self._look()
        except StoreError as error:
            log.warning("events cannot be read, trying again: %s", error)
        except Exception:  # all streams live on this
            log.exception("events cannot be read, trying again")

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        known = {job_id: topic.last for job_id, topic in self._topics.items()}
        places, news = await loop.run_in_executor(self._thread, self._read, known)
        for job_id, last in known.items():
            topic = self._topics.get(job_id)
            if topic is None or topic.last != last:
                continue  # not followed any more, or again and from another event
            if job_id in news:
                topic.news, topic.last = news[job_id], news[job_id][-1][0]
                # Those who have waited longest come first the next time.
                self._topics[job_id] = self._topics.pop(job_id)
            place = places.get(job_id)  # None if the job was deleted
            if place is not None and place.last < last:
                # A caller names any event as its last one: others lack what came meanwhile.
                topic.go_back(place.last)
            topic.final = place is None or (place.final and topic.last >= place.last)
            if job_id in news or topic.final:
                topic.wake()

    def _read(self, known: dict[str, int]) -> tuple[dict[str, EventPlace], News]:
        places, news = self._jobs.event_news(
            known, most=_READS_A_POLL, limit=PAGE, max_bytes=_NEWS_BYTES
        )
        encoded = {
            job_id: [(event.seq, encode_event(event)) for event in events]
            for job_id, events in news.items()
        }
        return places, encoded


class Topic:
    """Job that streams follow.

    Attributes:
        last: Number of the newest event that was read.
        news: Numbers and texts of the newest events, of which each stream sends those that it lacks.
        final: True if there are no events after `last`.
        woken: Events that wake the streams.
    """

    def __init__(self, last: int) -> None:
        self.last = last
        self.news: list[tuple[int, bytes]] = []
        self.final = False
        self.woken: set[asyncio.Event] = set()

    def pass_over(self, last: int) -> None:
        """Leave out the events up to one that a stream has read by itself, many at a time."""
        if last > self.last:
            self.news, self.last = [], last
            self.wake()  # those who lack some of them read for themselves, too

    def go_back(self, last: int) -> None:
        """Begin anew at the newest event, where a stream began after one that there is not yet."""
        self.news, self.last = [], last
        self.wake()  # each reads for itself what it lacks

    def wake(self) -> None:
        """Wake all streams of the job."""
        for woken in self.woken:
            woken.set()

    def since(self, after: int) -> list[tuple[int, bytes]] | None:
        """Return the events after one; None if some of them are not in memory any more."""
        if self.last <= after:
            return []
        if not self.news or self.news[0][0] > after + 1:
            return None
        return [event for event in self.news if event[0] > after]


def encode_event(event: JobEvent) -> bytes:
    """Return an event as a Server-Sent Event; JSON has no line breaks that could end it."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.seq,
        EventKind(event.event).value.encode(),
        orjson.dumps(event.data),
    )
