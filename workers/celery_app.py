"""The Celery application of a worker.

A message says that a job waits, and nothing depends on its arrival. So nothing here acknowledges
late, stores results, or restores lost messages: the sweep sends another message.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis
from celery import Celery  # type: ignore[import-untyped]  # celery ships no types
from celery.worker.consumer import Consumer  # type: ignore[import-untyped]
from celery.worker.state import maybe_shutdown  # type: ignore[import-untyped]
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.exceptions import KombuError

from models_store.jobs.job_queue import QUEUE, TASK_NAME, length_if_writable
from models_store.settings import StoreSettings

log = logging.getLogger(__name__)

_SOCKET_TIMEOUT_S = 5
_CONNECT_TIMEOUT_S = 2
_HEALTH_CHECK_S = 4
_RETRY_FIRST_S = 0.2
_RETRY_STEP_S = 0.4
_RETRY_MOST_S = 2.0


class PromptConsumer(Consumer):  # type: ignore[misc]  # celery ships no types
    """A consumer that tries to reach a lost broker every two seconds.

    Celery's own back-off grows to half a minute, and a job that waits that long looks lost. Bytes
    in the queue that are not a message cost a reconnection, not the worker; so does a key of another
    type that has the queue's name, which a sweep deletes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Celery's signature
        super().__init__(*args, **kwargs)
        broken = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
        self.connection_errors += (*broken, redis.ResponseError)

    def ensure_connected(self, conn: Connection) -> Connection:
        """Wait for the broker without limit; ends when the worker stops."""

        def report(error: BaseException, _interval_s: float) -> None:
            if self.broker_connection_retry_attempt == 0:
                log.warning("waiting for the broker: %s", error)
            self.broker_connection_retry_attempt += 1

        conn.ensure_connection(  # type: ignore[no-untyped-call]  # kombu is partly typed
            report,
            None,
            interval_start=_RETRY_FIRST_S,
            interval_step=_RETRY_STEP_S,
            interval_max=_RETRY_MOST_S,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        self.broker_connection_retry_attempt = 0
        return conn


def create_celery(settings: StoreSettings) -> Celery:
    """Return the application for the broker of the settings; nothing is connected yet."""
    app = Celery("densityd", broker=settings.celery_broker_url, set_as_current=False, fixups=[])
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        # The unnamed exchange routes by queue name, so no binding is lost with the broker's memory.
        task_queues=[Queue(QUEUE, Exchange(""), routing_key=QUEUE)],  # type: ignore[no-untyped-call]
        task_default_queue=QUEUE,
        task_default_exchange="",
        task_default_routing_key=QUEUE,
        task_create_missing_queues=False,
        broker_use_ssl=settings.celery_broker_tls,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_CONNECT_TIMEOUT_S,
        broker_transport_options={
            # The sweep finds jobs whose message was lost, sooner than any timeout.
            "ack_emulation": False,
            "socket_timeout": _SOCKET_TIMEOUT_S,
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            "socket_keepalive": True,
            "retry_on_timeout": True,
            "health_check_interval": _HEALTH_CHECK_S,
            **settings.celery_broker_options,
        },
        worker_consumer="workers.celery_app:PromptConsumer",
        worker_pool="threads",
        worker_prefetch_multiplier=1,
        worker_enable_prefetch_count_reduction=False,
        # Concerns late acknowledgement, of which there is none; the default warns each time.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


class WorkerBrokerClient:
    """A client for the sweep of a worker, which keeps its connection while that is of use.

    Args:
        app: Application of the worker.
    """

    errors: tuple[type[Exception], ...] = (KombuError, redis.RedisError, OSError)

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Connection | None = None

    def send(self, job_ids: Sequence[str], headers: Mapping[str, str]) -> None:
        """Send a message for each job, with these headers."""
        with self._connected() as connection, self._app.amqp.Producer(connection) as producer:
            for job_id in job_ids:
                self._app.send_task(
                    TASK_NAME, (job_id,), headers={**headers}, producer=producer, retry=False
                )

    def count_queued(self) -> int:
        """Return the number of messages in the queue; delete what is none and has its name."""
        with self._connected() as connection:
            client = connection.default_channel.client
            try:
                return length_if_writable(client)
            except redis.ResponseError as error:
                if not str(error).startswith("WRONGTYPE"):
                    raise
                log.warning("the key %s of the broker is no queue, and is deleted", QUEUE)
                client.delete(QUEUE)
                return 0

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()  # type: ignore[no-untyped-call]  # kombu is partly typed

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Give the connection; one that failed is replaced the next time."""
        try:
            if self._connection is None:
                self._connection = self._app.connection_for_write()
                self._connection.ensure_connection(max_retries=1, interval_start=0)
            yield self._connection
        except Exception:
            with suppress(*self.errors):
                self.close()
            raise
