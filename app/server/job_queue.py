"""Hints to the workers that a job waits. The job's row is the truth; a lost hint costs a second.

One thread sends: hints of new jobs as they come, and every second or two whatever hints are
missing. So neither a request nor the event loop ever waits for a broker that does not answer.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

import redis
from celery import Celery  # type: ignore[import-untyped]  # celery ships no types
from kombu.exceptions import KombuError

from models_store.errors import StoreError
from models_store.jobs.jobs import Jobs

log = logging.getLogger(__name__)

QUEUE = "densityd"
TASK = "densityd.run"
_TIMEOUT_S = 1.0
_BACKLOG = 1000
_SWEEP_LIMIT = 1000
_BROKER_ERRORS = (KombuError, redis.RedisError, OSError)


@dataclass(frozen=True)
class _Hint:
    job_id: str
    headers: dict[str, str]
    sent: "Future[bool]" = field(default_factory=Future)


class JobQueue:
    """Sends hints through Celery's broker, best effort.

    Args:
        broker_url: the broker as redis-py spells it.
        celery_broker_url: the same as Celery spells it.
        jobs: tells which jobs wait, and is told which of them were announced.
        sweep_interval_s: seconds between two looks for jobs without a hint; up to twice as long,
            at random, so that several processes do not look at the same moment.
    """

    def __init__(
        self,
        jobs: Jobs,
        *,
        broker_url: str,
        celery_broker_url: str,
        sweep_interval_s: float = 1.0,
    ) -> None:
        self._jobs = jobs
        self._sweep_interval_s = sweep_interval_s
        self._celery = _celery_client(celery_broker_url)
        self._redis = redis.Redis.from_url(
            broker_url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=None,
        )
        self._hints: queue.Queue[_Hint | None] = queue.Queue(_BACKLOG)
        self._broker_up = True
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="job-queue", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more and end the thread; takes as long as one call to the broker at most."""
        self._stopping.set()
        with suppress(queue.Full):  # then the thread is awake anyhow
            self._hints.put_nowait(None)
        if self._thread.is_alive():
            self._thread.join()
        self._redis.close()
        self._celery.close()

    @property
    def broker_up(self) -> bool:
        """Whether the broker took the last call."""
        return self._broker_up

    def hint(
        self,
        job_id: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
        wait_s: float = 0.25,
    ) -> bool:
        """Announce a committed job; True if the broker has taken the hint within `wait_s`.

        Never raises: the sweep announces whatever this does not.
        """
        headers = {"request_id": request_id, "traceparent": traceparent}
        hint = _Hint(job_id, {name: text for name, text in headers.items() if text})
        if not self._broker_up:
            return False
        try:
            self._hints.put_nowait(hint)
            return hint.sent.result(wait_s)
        except (queue.Full, TimeoutError):
            return False

    def _loop(self) -> None:
        next_sweep = time.monotonic()
        while not self._stopping.is_set():
            try:
                hint = self._hints.get(timeout=max(0.0, next_sweep - time.monotonic()))
            except queue.Empty:
                self._attempt(self._sweep)
                next_sweep = time.monotonic() + self._sweep_interval_s * random.uniform(1, 2)  # noqa: S311
                continue
            if hint is not None:
                self._announce(hint)

    def _attempt(self, action: Callable[..., None], *args: object) -> bool:
        """Do something with broker and database; whatever fails is tried again by a sweep."""
        try:
            action(*args)
        except _BROKER_ERRORS as error:
            if self._broker_up:
                log.warning("the broker cannot be reached; jobs wait in the database: %s", error)
            self._broker_up = False
            return False
        except StoreError as error:
            log.warning("the queue cannot use the database: %s", error)
            return False
        except Exception:
            # The thread must outlive what nobody foresaw: without it no job would be announced.
            log.exception("announcing jobs failed")
            return False
        if not self._broker_up:
            log.info("the broker is back")
        self._broker_up = True
        return True

    def _announce(self, hint: _Hint) -> None:
        # While the broker is down the sweep alone calls it, so that new jobs do not queue up here.
        sent = self._broker_up and self._attempt(self._send, hint.job_id, hint.headers)
        hint.sent.set_result(sent)
        if sent:
            self._attempt(self._jobs.mark_dispatched, [hint.job_id])

    def _sweep(self) -> None:
        """Send as many hints as there are waiting jobs without one in the queue."""
        waiting = self._jobs.claimable(_SWEEP_LIMIT)
        queued = int(self._redis.llen(QUEUE))  # also when nothing waits: it tells a broker's return
        missing = waiting[queued:]  # which is which does not matter: a hint is for any job
        for job_id in missing:
            self._send(job_id, {})
        if missing:
            self._jobs.mark_dispatched(missing)

    def _send(self, job_id: str, headers: dict[str, str]) -> None:
        self._celery.send_task(TASK, args=(job_id,), queue=QUEUE, headers=headers, retry=False)


def _celery_client(broker_url: str) -> Celery:
    client = Celery("densityd-api", broker=broker_url, set_as_current=False)
    client.conf.update(
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        broker_pool_limit=1,
        broker_connection_timeout=_TIMEOUT_S,
        broker_transport_options={
            "socket_timeout": _TIMEOUT_S,
            "socket_connect_timeout": _TIMEOUT_S,
            "retry_on_timeout": False,
            # Kombu's own loop around a connection that cannot be made: one attempt.
            "max_retries": 1,
            "interval_start": 0.0,
            "interval_step": 0.0,
            "interval_max": 0.0,
        },
    )
    return client
