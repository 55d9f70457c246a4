"""What a worker process does: it looks for jobs, runs them, tells that it lives, and cleans up."""

import logging
import threading
import time
from contextlib import suppress
from typing import Any, Self

from prometheus_client import start_http_server

from models_store.database.database import SERVICE_ANSWER_S, Database
from models_store.errors import (
    BlobDiskError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseUnavailableError,
    StorageFullError,
    WrongStoreError,
)
from models_store.files.blobs import Blobs
from models_store.files.private_files import create_private_files
from models_store.files.store_identity import known_identity
from models_store.jobs.live_workers import LIVE_S, Workers
from models_store.process.traces import TRACES
from models_store.webhooks.deliveries import Deliveries
from workers.devices import devices_of, has_accelerator
from workers.leftovers import sweep
from workers.metrics import WorkerMetrics
from workers.settings import WorkerSettings
from workers.supervisor.supervisor import Supervisor
from workers.supervisor.trainers import Trainers
from workers.webhooks import Sender

log = logging.getLogger(__name__)

POLL_S = 1.5
"""Seconds between two looks for a job that no message told of."""

_DATABASE_RETRY_S = 2.0
_CLEANING_S = 30.0
_TELL_S = LIVE_S / 6
_END_S = 0.05


class WorkerService:
    """Service of one worker."""

    def __init__(self, database: Database, settings: WorkerSettings) -> None:
        self.settings = settings
        self._database = database
        self._blobs = Blobs(settings.store_address)
        self._metrics = WorkerMetrics()
        self._workers = Workers(database)
        self._told: tuple[str | None, int | None] | None = None
        self._told_at = 0.0
        self._trainers = Trainers()
        self._woken = threading.Event()
        self.supervisor = Supervisor(
            database,
            settings,
            worker=settings.label,
            trainers=self._trainers,
            metrics=self._metrics,
            on_claim=self._woken.set,
        )
        self._sender = Sender(Deliveries(database), private=settings.webhook_private_addresses)
        self._look_is_asked_for = False
        self._stopping = threading.Event()
        self._polling: threading.Thread | None = None

    @classmethod
    def open(cls, settings: WorkerSettings) -> Self:
        """Return the service once there is a database.

        Raises:
            DatabaseError: The database was made by another version of the code, or is a file, and of no use.
            BlobError: The store is a folder that cannot be written.
        """
        create_private_files()
        TRACES.configure("worker")
        database = Database(
            settings.resolved_database_url,
            answer_s=SERVICE_ANSWER_S,
            pool_size=len(devices_of(settings)) + 2,
        )
        try:
            _wait_for(database)
            _prepare_store(database, settings)
        except BaseException:
            database.dispose()
            raise
        return cls(database, settings)

    def start(self, pool: Any) -> None:  # noqa: ANN401 - celery ships no types
        """Look for jobs, whether or not messages come.

        Args:
            pool: Celery's pool, whose threads run jobs.
        """
        self._open_port()
        self._sender.start()
        self._polling = threading.Thread(target=self._poll, args=(pool,), name="poll", daemon=True)
        self._polling.start()

    def run_jobs(self) -> None:
        """Run jobs until none waits that this worker can take."""
        self._look_is_asked_for = False
        while self.supervisor.run_next():
            pass

    def stop(self) -> None:
        """Let every trainer write a checkpoint and end, and begin no job; return at once."""
        self._stopping.set()
        self.supervisor.stop()

    def close(self) -> None:
        """Stop, and wait for the end of what runs; safe to repeat."""
        self.stop()
        self._woken.set()
        if self._polling is not None:
            self._polling.join()
            self._polling = None
            while not self.supervisor.is_idle:
                time.sleep(_END_S)
            self._trainers.end_if_idle(0.0)
            self._sender.stop()
            with suppress(DatabaseError):  # without it nobody learns that this worker ends
                self._workers.remove(self.settings.label)
        self._database.dispose()
        TRACES.close()

    def _poll(self, pool: Any) -> None:  # noqa: ANN401 - celery ships no types
        """Every 1.5 s, and after each claim: have one thread of the pool look for a job, if a slot is free."""
        clean_at = time.monotonic() + _CLEANING_S
        while not self._stopping.is_set():
            try:
                if self.supervisor.has_free_device and not self._look_is_asked_for:
                    self._look_is_asked_for = True
                    pool.apply_async(self.run_jobs)
                self._beat()
                self._trainers.end_if_idle()
                # Without its store a worker must not have rows forget files.
                if time.monotonic() >= clean_at and self.supervisor.unfit is None:
                    clean_at = time.monotonic() + _CLEANING_S
                    if sweep(self._database, self._blobs, keep_jobs_s=self.settings.keep_jobs_s):
                        clean_at = 0.0
            except (DatabaseError, StorageFullError, OSError) as error:
                log.warning("the worker cannot tell that it lives, or clean up, now: %s", error)
            except Exception:
                log.exception("a look for jobs failed")  # the next one may not
            self._woken.wait(POLL_S)
            self._woken.clear()

    def _beat(self) -> None:
        """Tell that the worker lives, if that was not told for some seconds, or what is told has changed."""
        told = self.supervisor.unfit, self.supervisor.memory_bytes
        if told == self._told and time.monotonic() - self._told_at < _TELL_S:
            return
        self._told, self._told_at = told, time.monotonic()
        unfit, memory_bytes = told
        accelerator = has_accelerator(self.settings)
        self._workers.beat(
            self.settings.label, unfit=unfit, accelerator=accelerator, memory_bytes=memory_bytes
        )

    def _open_port(self) -> None:
        """Open the port that the settings name; jobs matter more than one that cannot be opened."""
        port, metrics = self.settings.worker_port, self._metrics
        metrics.slots.set(len(devices_of(self.settings)))
        metrics.takes_jobs.set_function(lambda: self.supervisor.unfit is None)
        if port is None:
            return
        try:
            start_http_server(port, self.settings.worker_host, metrics.registry)
        except OSError as error:
            log.error("the worker's port cannot be opened: %s", error)  # noqa: TRY400 - one clear line


def _wait_for(database: Database) -> None:
    """Wait for a database that is not up yet, as long as it takes.

    Raises:
        SchemaMismatchError: It was made by another version of the code.
        LimitsIgnoredError: It is behind a pooler of which its URL says nothing.
        DatabaseUnavailableError: It is a file, and of no use.
    """
    while True:
        try:
            database.check_revision()
        except (DatabaseBusyError, DatabaseUnavailableError) as error:
            if isinstance(error, DatabaseUnavailableError) and not database.is_server:
                raise
            log.warning("waiting for the database: %s", error)
            time.sleep(_DATABASE_RETRY_S)
        else:
            return


def _prepare_store(database: Database, settings: WorkerSettings) -> None:
    """Try to write to the store, unless it belongs to another database.

    Raises:
        BlobError: It is a folder that cannot be written.
    """
    blobs = Blobs(settings.store_address)
    try:
        identity = known_identity(database)
        if identity is not None:
            blobs.check_identity(identity)
        blobs.ping()
    except (StorageFullError, WrongStoreError, BlobDiskError) as error:
        if isinstance(error, BlobDiskError) and not blobs.is_remote:
            raise
        log.warning("the blob store cannot be used yet: %s", error)
