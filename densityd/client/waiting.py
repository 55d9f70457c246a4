"""Waiting for a job: when to look again, and when to stop."""

import time

from densityd.client.errors import ClientError, TransportError
from densityd.client.records import Job

RECONNECT_S = 1.0
"""Between two streams of events of which the first brought nothing."""

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0
_ABSENCE_S = 60.0


class WaitTimeoutError(ClientError):
    """A job takes longer than somebody wants to wait; it goes on."""

    def __init__(self, job: Job, timeout_s: float) -> None:
        super().__init__(f"{job.id} is still {job.state} after {timeout_s:g} s; it goes on")
        self.job = job


class JobFailedError(ClientError):
    """A job that was waited for has failed or was cancelled."""

    def __init__(self, job: Job) -> None:
        why = "" if job.error is None else f": {job.error.code}: {job.error.detail}"
        super().__init__(f"{job.id} {job.state}{why}")
        self.job = job


class Watch:
    """What a wait for one job knows.

    Args:
        timeout_s: the longest wait; None: until the job has ended.
        check: whether a job that failed or was cancelled is an error.
    """

    def __init__(self, *, timeout_s: float | None, check: bool) -> None:
        self._began = self._heard = time.monotonic()
        self._timeout_s = timeout_s
        self._check = check
        self._pause_s = _FIRST_PAUSE_S

    def heard(self, job: Job) -> bool:
        """Whether the wait is over, now that the job looks like this.

        Raises:
            JobFailedError: it did not succeed.
            WaitTimeoutError: it takes too long.
        """
        self._heard = time.monotonic()
        if job.final:
            if self._check and job.state != "succeeded":
                raise JobFailedError(job)
            return True
        if self._timeout_s is not None and self._heard - self._began >= self._timeout_s:
            raise WaitTimeoutError(job, self._timeout_s)
        return False

    def missed(self, error: TransportError) -> None:
        """There was no answer: a service that restarts is waited for.

        Raises:
            TransportError: there has been none for a minute.
        """
        if time.monotonic() - self._heard > _ABSENCE_S:
            raise error

    def pause_s(self) -> float:
        """Seconds until the next look."""
        pause_s = self._pause_s
        self._pause_s = min(_LONGEST_PAUSE_S, 1.3 * pause_s)
        if self._timeout_s is None:
            return pause_s
        left_s = self._began + self._timeout_s - time.monotonic()
        return max(0.0, min(pause_s, left_s))
