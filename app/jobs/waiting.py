"""Requests that wait until a job has ended."""

import asyncio
from contextlib import suppress

from fastapi import Request

from app.auth.callers import caller_of
from app.http.streaming import disconnected
from app.server.event_hub import EventFeed
from app.state import state_of

LONGEST_WAIT_S = 60


async def wait_for_end(request: Request, feed: EventFeed, *, seconds: float) -> None:
    """Wait until a job has ended, but not for ever; counts as an open event stream meanwhile.

    Args:
        request: Request that waits.
        feed: Feed of the job.
        seconds: Longest wait.

    Raises:
        Problem: `limit-open-requests`.
        StoreError: The job does not exist, or the database cannot be read.
    """
    state = state_of(request)
    state.open_streams.check(caller_of(request))  # what is refused reads nothing
    if await feed.skip():
        return
    woken = asyncio.Event()
    with (
        state.open_streams.hold(caller_of(request)),
        state.event_hub.follow(feed, woken) as topic,
    ):
        gone = asyncio.create_task(disconnected(request.receive))
        gone.add_done_callback(lambda _: woken.set())
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while not (topic.final or gone.done() or state.event_hub.stopped):
                        await woken.wait()
                        woken.clear()
        finally:
            gone.cancel()
