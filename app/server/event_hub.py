"""Watch over the jobs that are followed."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from models_store.job_states import EventPlace
from models_store.jobs.jobs import Jobs

log = logging.getLogger(__name__)

_POLL_S = 0.5


class EventHub:
    """One query every half second, which wakes those who follow a job that has new events.

    What is new each reads for itself. A hub belongs to one event loop.

    Args:
        jobs: Jobs of all projects.

    Attributes:
        stopped: True once the server stops; who is woken then follows no longer.
    """

    def __init__(self, jobs: Jobs) -> None:
        self.stopped = False
        self._jobs = jobs
        self._followers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._places: dict[str, EventPlace | None] = {}

    @contextmanager
    def follow(self, job_id: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set when the job has new events, has ended, or was deleted."""
        woken = asyncio.Event()
        self._followers[job_id].add(woken)
        try:
            yield woken
        finally:
            self._followers[job_id].discard(woken)
            if not self._followers[job_id]:
                del self._followers[job_id]
                self._places.pop(job_id, None)

    async def run(self, stopping: asyncio.Event) -> None:
        """Look for new events until the server stops."""
        try:
            while not stopping.is_set():
                await self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_S):
                        await stopping.wait()
        finally:
            self.stopped = True
            for job_id in self._followers:
                self._wake(job_id)

    async def _look(self) -> None:
        followed = list(self._followers)
        if not followed:
            return
        try:
            places = await asyncio.to_thread(self._jobs.event_places, followed)
        except Exception as error:  # noqa: BLE001  all streams live on this
            log.warning("events cannot be read, trying again: %s", error)
            return
        for job_id in self._followers.keys() & followed:
            place = places.get(job_id)  # None if the job was deleted
            if job_id not in self._places or self._places[job_id] != place:
                self._places[job_id] = place
                self._wake(job_id)

    def _wake(self, job_id: str) -> None:
        for woken in self._followers[job_id]:
            woken.set()
