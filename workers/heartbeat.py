"""Signs of life of a worker: a row of the database."""

import logging
import math
import socket
import threading
import time

from models_store.errors import DatabaseError, StorageFullError
from models_store.jobs.live_workers import LIVE_S, Worker, Workers
from workers.devices import has_accelerator
from workers.settings import WorkerSettings

log = logging.getLogger(__name__)

_TELL_S = LIVE_S / 6


class LifeSigns:
    """Signs of life of a worker.

    Args:
        settings: Settings that name the worker.
        workers: Rows of the workers of all hosts.
    """

    def __init__(self, settings: WorkerSettings, workers: Workers) -> None:
        self._name = worker_label(settings)
        self._workers = workers
        self._unfit: str | None = None
        self._accelerator = has_accelerator(settings)
        self._memory_bytes: int | None = None
        self._lock = threading.Lock()
        self._told_at = -math.inf

    def beat(self) -> None:
        """Tell that the worker lives, if that was not told for some seconds."""
        with self._lock:
            if time.monotonic() - self._told_at >= _TELL_S:
                self._tell()

    def tell(self, unfit: str | None, memory_bytes: int | None) -> None:
        """Tell what changed.

        Args:
            unfit: Reason for which the worker takes no jobs from now on; None if it takes them.
            memory_bytes: Memory of each of its trainers; None: not known.
        """
        with self._lock:
            self._unfit, self._memory_bytes = unfit, memory_bytes
            self._tell()

    def remove(self) -> None:
        """Tell that the worker ends."""
        try:
            self._workers.remove(self._name)
        except DatabaseError as error:
            log.info("the database does not know that this worker ends: %s", error)

    def _tell(self) -> None:
        try:
            self._workers.beat(
                self._name,
                unfit=self._unfit,
                accelerator=self._accelerator,
                memory_bytes=self._memory_bytes,
            )
        except (DatabaseError, StorageFullError) as error:
            log.info("the database does not know that this worker lives: %s", error)
        else:
            self._told_at = time.monotonic()


def find_worker(workers: Workers, settings: WorkerSettings) -> Worker | None:
    """Return the worker with these settings on this host; None if it gives no sign of life.

    Raises:
        DatabaseError: The database is unavailable.
    """
    name = worker_label(settings)
    return next((worker for worker in workers.alive() if worker.name == name), None)


def worker_label(settings: WorkerSettings) -> str:
    """Return the worker's name, the host's unless it was given one."""
    return settings.worker_name or socket.gethostname()
