"""The wait for a job: when to fetch it again, when to stop, and its events as they come."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from densityd.client.call import parse_json
from densityd.client.errors import ClientError, TransportError
from densityd.client.records import Event, Job

RECONNECT_S = 1.0
"""Pause between two streams of events if the first brought none."""

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0
_ABSENCE_S = 60.0


class WaitTimeoutError(ClientError):
    """A job takes longer than the caller's timeout; it continues."""

    def __init__(self, job: Job, timeout_s: float) -> None:
        super().__init__(f"{job.id} is still {job.state} after {timeout_s:g} s; it continues")
        self.job = job


class JobFailedError(ClientError):
    """A job that was waited for has failed or was cancelled."""

    def __init__(self, job: Job) -> None:
        reason = "" if job.error is None else f": {job.error.code}: {job.error.detail}"
        super().__init__(f"{job.id} {job.state}{reason}")
        self.job = job


class Watch:
    """The state of a wait for one job.

    Args:
        timeout_s: Longest wait in seconds; None for no limit.
        check: Raise an error if the job failed or was cancelled.
    """

    def __init__(self, *, timeout_s: float | None, check: bool) -> None:
        self._began = self._responded = time.monotonic()
        self._timeout_s = timeout_s
        self._check = check
        self._pause_s = _FIRST_PAUSE_S

    def is_over(self, job: Job) -> bool:
        """Return True if the wait is over in this state of the job.

        Raises:
            JobFailedError: The job did not succeed.
            WaitTimeoutError: The job takes too long.
        """
        self._responded = time.monotonic()
        if job.final:
            if self._check and job.state != "succeeded":
                raise JobFailedError(job)
            return True
        if self._timeout_s is not None and self._responded - self._began >= self._timeout_s:
            raise WaitTimeoutError(job, self._timeout_s)
        return False

    def miss(self, error: TransportError) -> None:
        """Note that there was no response; a restart of the service is tolerated.

        Raises:
            TransportError: There has been none for a minute, or the wait is over.
        """
        if self.left_s() <= 0:
            raise error

    def left_s(self) -> float:
        """Return the seconds for which a response is waited for."""
        left_s = self._responded + _ABSENCE_S - time.monotonic()
        if self._timeout_s is None:
            return left_s
        return min(left_s, self._began + self._timeout_s - time.monotonic())

    def pause_s(self) -> float:
        """Return the seconds until the next request."""
        pause_s = self._pause_s
        self._pause_s = min(_LONGEST_PAUSE_S, 1.3 * pause_s)
        if self._timeout_s is None:
            return pause_s
        left_s = self._began + self._timeout_s - time.monotonic()
        return max(0.0, min(pause_s, left_s))


class EventDecoder:
    """An incremental decoder of a stream of events; comments and `retry` fields are skipped."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events that `data` completes."""
        self._buffer += data
        while (end := self._buffer.find(b"\n\n")) >= 0:
            block = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            if (event := _parse(block)) is not None:
                yield event


def _parse(block: bytes) -> Event | None:
    fields = {}
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        fields[name] = value.removeprefix(b" ")
    if b"data" not in fields or b"id" not in fields:
        return None  # an event without an id is about the stream, not the job
    number, kind = fields.get(b"id", b"").decode(), fields.get(b"event", b"").decode()
    return Event.read({"id": number, "event": kind, "data": parse_json(fields[b"data"])})


@contextmanager
def shown_progress(
    on_progress: Callable[[Job], object] | None,
) -> Iterator[Callable[[Job], object] | None]:
    """Give what is called with a job while it runs: what the caller wants, or a progress bar if rich is there."""
    if on_progress is not None or find_spec("rich") is None:
        yield on_progress
        return
    from densityd.client.progress import ProgressBar  # noqa: PLC0415 - it belongs to an extra

    with ProgressBar() as bar:
        yield bar
