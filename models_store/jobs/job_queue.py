"""Messages that a job waits. The job's row is the truth; a lost message costs a second or two.

Every API process and every worker has a thread that sends the messages of new jobs at once, and
sweeps: it looks for jobs that wait without a message, and sends the missing ones. So neither a
request nor the event loop waits for a broker that does not respond, and no process is needed: a
lost message, a broker that was wiped and a worker that died cost one interval, never a job.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from models_store.errors import StoreError
from models_store.jobs.jobs import Jobs

log = logging.getLogger(__name__)

QUEUE = "densityd"
TASK_NAME = "densityd.run"
_BACKLOG = 1000
_SWEEP_LIMIT = 1000


class _Lists(Protocol):
    """Client of Redis, as far as a queue is counted."""

    def ltrim(self, name: str, start: int, end: int) -> Any:  # noqa: ANN401 - the library leaves it open
        """Keep some items of a list."""

    def llen(self, name: str) -> Any:  # noqa: ANN401 - as above
        """Return the number of items of a list."""


def length_if_writable(client: _Lists) -> int:
    """Return the number of messages in the queue, of a server that lets somebody take them.

    A replica, and a server whose disk is full, count messages and give none away: workers must know that.

    Args:
        client: Client of Redis; its errors are raised.
    """
    client.ltrim(QUEUE, 0, -1)  # a write that changes nothing
    return int(client.llen(QUEUE))


class BrokerClient(Protocol):
    """A client of the broker that a single thread uses.

    Attributes:
        errors: Errors of its methods while the broker is unavailable.
    """

    errors: tuple[type[Exception], ...]

    def send(self, job_ids: Sequence[str], headers: Mapping[str, str]) -> None:
        """Send a message for each job, with these headers."""

    def count_queued(self) -> int:
        """Return the number of messages in the queue, as `length_if_writable`."""

    def close(self) -> None:
        """Close all connections."""


@dataclass(frozen=True)
class _Message:
    job_id: str
    headers: dict[str, str]
    sent: "Future[bool]" = field(default_factory=Future)


class JobQueue:
    """A thread that sends messages, best effort.

    Args:
        jobs: Jobs of all projects.
        client: Client of the broker; `stop` closes it.
        sweep_interval_s: Seconds between two sweeps; up to twice as long, at random, so that
            several processes do not sweep at the same moment.
        after_sweep: Called after each sweep, even a failed one.
        without_broker: Called after each sweep that found the broker away.
    """

    def __init__(
        self,
        jobs: Jobs,
        client: BrokerClient,
        *,
        sweep_interval_s: float = 1.0,
        after_sweep: Callable[[], None] = lambda: None,
        without_broker: Callable[[], None] = lambda: None,
    ) -> None:
        self._jobs = jobs
        self._client = client
        self._sweep_interval_s = sweep_interval_s
        self._after_sweep = after_sweep
        self._without_broker = without_broker
        self._messages: queue.Queue[_Message | None] = queue.Queue(_BACKLOG)
        self._announced: frozenset[str] = frozenset()
        self._broker_up = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="job-queue", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more and end the thread; takes as long as one call of the broker at most."""
        self._stopping.set()
        with suppress(queue.Full):  # then the thread is awake anyhow
            self._messages.put_nowait(None)
        if self._thread.is_alive():
            self._thread.join()
        self._client.close()

    @property
    def broker_up(self) -> bool:
        """True if the last call of the broker succeeded."""
        return self._broker_up

    def announce(
        self,
        job_id: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
        wait_s: float = 0.25,
    ) -> bool:
        """Send the message of a committed job; return True if it was sent within `wait_s` seconds.

        Never raises: the sweep sends what this does not.
        """
        headers = {"request_id": request_id, "traceparent": traceparent}
        message = _Message(job_id, {name: text for name, text in headers.items() if text})
        if not self._broker_up:
            return False
        try:
            self._messages.put_nowait(message)
            return message.sent.result(wait_s)
        except (queue.Full, TimeoutError):
            return False

    def _loop(self) -> None:
        next_sweep = time.monotonic()
        while not self._stopping.is_set():
            try:
                message = self._messages.get(timeout=max(0.0, next_sweep - time.monotonic()))
            except queue.Empty:
                self._attempt(self._sweep)
                self._follow_up()
                next_sweep = time.monotonic() + self._sweep_interval_s * random.uniform(1, 2)  # noqa: S311
                continue
            if message is not None:
                self._deliver([message, *self._waiting()])

    def _follow_up(self) -> None:
        """Call what follows each sweep; its errors, such as of a thread that cannot be started, end no thread."""
        try:
            self._after_sweep()
            if not self._broker_up:
                self._without_broker()
        except Exception:
            log.exception("what follows a sweep failed")

    def _waiting(self) -> Iterator[_Message]:
        """Take what waits behind a message; what they cost together, they share."""
        with suppress(queue.Empty):
            while (message := self._messages.get_nowait()) is not None:
                yield message

    def _attempt(self, action: Callable[..., None], *args: object) -> bool:
        """Call broker and database; return False if that failed, for a sweep to repeat."""
        try:
            action(*args)
        except self._client.errors as error:
            if self._broker_up:
                log.warning("the broker cannot be reached; workers look in the database: %s", error)
            self._broker_up = False
            return False
        except StoreError as error:
            log.warning("the queue cannot use the database: %s", error)
            return False
        except Exception:
            # The thread must survive unforeseen errors: without it no job would be announced.
            log.exception("sending messages failed")
            return False
        if not self._broker_up:
            log.info("the broker is back")
        self._broker_up = True
        return True

    def _deliver(self, messages: Sequence[_Message]) -> None:
        delivered = [message.job_id for message in messages if self._send(message)]
        if delivered:
            self._attempt(self._mark, delivered)

    def _send(self, message: _Message) -> bool:
        # While the broker is down only the sweep calls it, so that new jobs do not queue up here.
        sent = self._broker_up and self._attempt(
            self._client.send, [message.job_id], message.headers
        )
        message.sent.set_result(sent)
        return sent

    def _sweep(self) -> None:
        """Send as many messages as jobs wait without one in the queue."""
        waiting = self._jobs.claimable(_SWEEP_LIMIT)
        queued = self._client.count_queued()  # also if no job waits, to notice the broker's return
        if missing := waiting[queued:]:  # which ones does not matter: a message is for any job
            self._client.send(missing, {})
        self._announced &= {*waiting}
        if new := [job_id for job_id in waiting if job_id not in self._announced]:
            self._mark(new)

    def _mark(self, job_ids: list[str]) -> None:
        """Record that there are messages for some jobs; a later sweep does for those that are being changed."""
        self._announced |= {*self._jobs.mark_dispatched(job_ids)}
