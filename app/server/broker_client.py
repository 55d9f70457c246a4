"""The API's client of the broker."""

from collections.abc import Mapping, Sequence

import redis
from celery import Celery  # type: ignore[import-untyped]  # celery ships no types
from kombu.exceptions import KombuError

from app.server.redis_client import redis_client
from models_store.jobs.job_queue import QUEUE, TASK_NAME, length_if_writable
from models_store.settings import StoreSettings

_TIMEOUT_S = 1.0


class ApiBrokerClient:
    """A client that keeps its connections, and fails within seconds while the broker is unavailable."""

    errors: tuple[type[Exception], ...] = (KombuError, redis.RedisError, OSError)

    def __init__(self, settings: StoreSettings) -> None:
        self._celery = _create_celery(settings)
        self._redis = redis_client(
            settings.resolved_broker_url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=None,
        )

    def send(self, job_ids: Sequence[str], headers: Mapping[str, str]) -> None:
        """Send a message for each job, with these headers."""
        for job_id in job_ids:
            self._celery.send_task(
                TASK_NAME, (job_id,), queue=QUEUE, headers={**headers}, retry=False
            )

    def count_queued(self) -> int:
        """Return the number of messages in the queue."""
        return length_if_writable(self._redis)

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()
        self._celery.close()


def _create_celery(settings: StoreSettings) -> Celery:
    client = Celery("densityd-api", broker=settings.celery_broker_url, set_as_current=False)
    client.conf.update(
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        broker_use_ssl=settings.celery_broker_tls,
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
            **settings.celery_broker_options,
        },
    )
    return client
