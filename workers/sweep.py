"""Looks for jobs that wait without a message, and hints at them again.

Every worker and every API process does this, so none is needed: a lost message, a broker that
was wiped and a worker that died cost one interval, never a job.
"""

import logging
import random
import threading
from collections.abc import Callable

from celery import Celery  # type: ignore[import-untyped]  # celery ships no types
from kombu.exceptions import OperationalError

from models_store.errors import DatabaseError
from models_store.jobs.jobs import Jobs
from workers.celery_app import QUEUE, TASK

log = logging.getLogger(__name__)

_MOST_HINTS = 100


class Sweep:
    """One loop in a thread of its own.

    Args:
        jobs: what waits.
        app: where hints go.
        interval_s: shortest time between two looks.
        alive: called after each look, for health checks.
    """

    def __init__(
        self, jobs: Jobs, app: Celery, *, interval_s: float, alive: Callable[[], None]
    ) -> None:
        self._jobs = jobs
        self._app = app
        self._interval_s = interval_s
        self._alive = alive
        self._stopping = threading.Event()
        self._broker_answers = True
        self._announced: frozenset[str] = frozenset()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the look that may be under way."""
        self._stopping.set()
        self._thread.join()

    def once(self) -> int:
        """Send as many hints as jobs wait and messages are missing; return how many.

        Raises:
            DatabaseError: the database is away.
            OperationalError: the broker is away.
        """
        waiting = self._jobs.claimable(_MOST_HINTS)
        if not waiting:
            self._announced = frozenset()
            return 0
        with self._app.connection_for_write() as connection:
            # As a library error if it fails; a message that is in the queue already will do.
            connection.ensure_connection(max_retries=1, interval_start=0)
            queued = connection.default_channel.client.llen(QUEUE)
            missing = waiting[: max(0, len(waiting) - queued)]
            with self._app.amqp.Producer(connection) as producer:
                for job_id in missing:
                    self._app.send_task(TASK, (job_id,), producer=producer, retry=False)
        new = [job_id for job_id in waiting if job_id not in self._announced]
        if new:
            self._jobs.mark_dispatched(new)
        self._announced = frozenset(waiting)
        return len(missing)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s * random.uniform(1, 2)):  # noqa: S311
            self._look()
            self._alive()

    def _look(self) -> None:
        try:
            sent = self.once()
        except DatabaseError as error:
            log.warning("the sweep cannot read the database: %s", error)
        except OperationalError as error:
            if self._broker_answers:
                log.warning("no hint can be sent, jobs wait in the database: %s", error)
            self._broker_answers = False
        except Exception:
            # This thread must outlive whatever it meets.
            log.exception("the sweep failed")
        else:
            if sent and not self._broker_answers:
                log.warning("hints can be sent again")
            self._broker_answers = self._broker_answers or sent > 0
