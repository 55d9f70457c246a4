"""The broker as the API sees it: a message wakes a worker that is idle."""

import logging
import time

import redis
from celery import Celery  # type: ignore[import-untyped]  # celery ships no types
from kombu.exceptions import KombuError

from models_store.broker import CPU_QUEUE, GPU_QUEUE, TASK, celery_options
from models_store.job_states import Accelerator, Job
from models_store.settings import StoreSettings

log = logging.getLogger(__name__)

_TIMEOUT_S = 1.0
_REST_S = 5.0  # after a failure, for which no request waits for the broker
_KEPT_S = 60.0  # a message that nobody took by then has nothing to say
_AWAY = (KombuError, redis.RedisError, OSError)
_ONE_ATTEMPT = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}


class Broker:
    """Client of the broker; safe to share between threads."""

    def __init__(self, settings: StoreSettings) -> None:
        options = celery_options(settings.resolved_broker_url, timeout_s=_TIMEOUT_S)
        options["broker_transport_options"] |= _ONE_ATTEMPT
        self._celery = Celery("densityd-api", set_as_current=False, fixups=[])
        self._celery.conf.update(options)
        self._rests_until = 0.0

    def announce(self, job: Job) -> None:
        """Send a message that a job waits; without a broker workers find it all the same, a little later."""
        if time.monotonic() < self._rests_until:
            return
        queue = GPU_QUEUE if job.accelerator is Accelerator.REQUIRED else CPU_QUEUE
        try:
            self._celery.send_task(TASK, queue=queue, expires=_KEPT_S, retry=False)
        except _AWAY as error:
            self._rests_until = time.monotonic() + _REST_S
            log.warning("the broker cannot be reached; workers look in the database: %s", error)

    def ping(self) -> str | None:
        """Return why the broker cannot be used, or None if it responds, within some seconds."""
        try:
            with self._celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=_TIMEOUT_S)
                connection.default_channel.client.ping()
        except _AWAY as error:
            return str(error)
        return None

    def close(self) -> None:
        """Close all connections."""
        self._celery.close()
