"""What a worker process does: it looks for jobs, runs them, tells that it lives, and cleans up."""

import logging
import threading
import time
from typing import Any, Self

from models_store.database.database import SERVICE_ANSWER_S, Database
from models_store.errors import (
    BlobDiskError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseUnavailableError,
    StorageFullError,
    WrongStoreError,
)
from models_store.files.blobs import Blobs, check_identity
from models_store.files.private_files import create_private_files
from models_store.files.store_identity import known_identity
from models_store.jobs.live_workers import Workers
from models_store.process.traces import TRACES
from models_store.webhooks.deliveries import Deliveries
from workers.devices import devices_of
from workers.heartbeat import LifeSigns, worker_label
from workers.leftovers import Leftovers
from workers.metrics import WorkerMetrics
from workers.port import Port
from workers.settings import WorkerSettings
from workers.supervisor.process import ForkServer
from workers.supervisor.supervisor import Supervisor
from workers.webhooks import Sender

log = logging.getLogger(__name__)

POLL_S = 1.5
"""Seconds between two looks for a job that no message told of."""

_DATABASE_RETRY_S = 2.0
_CLEANING_S = 30.0
_END_S = 0.05


class WorkerService:
    """Service of one worker.

    Args:
        database: Database of the jobs.
        settings: Settings of the worker.
    """

    def __init__(self, database: Database, settings: WorkerSettings) -> None:
        self.settings = settings
        self._database = database
        self._metrics = WorkerMetrics()
        self._signs = LifeSigns(settings, Workers(database))
        self._fork_server = ForkServer()
        self.supervisor = Supervisor(
            database,
            settings,
            worker=worker_label(settings),
            tell=self._signs.tell,
            metrics=self._metrics,
            on_claim=self._wake,
            fork_server=self._fork_server,
        )
        self._leftovers = Leftovers(
            database,
            Blobs(settings.store_address),
            keep_s=settings.keep_checkpoints_s,
            keep_jobs_s=settings.keep_jobs_s,
            fit=lambda: self.supervisor.unfit is None,
        )
        self._sender = Sender(Deliveries(database), private=settings.webhook_private_addresses)
        self._port: Port | None = None
        self._woken = threading.Event()
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
        self._wake()
        if self._polling is None:
            self._database.dispose()
            TRACES.close()
            return
        self._polling.join()
        self._polling = None
        while self.supervisor.running:
            time.sleep(_END_S)
        self._fork_server.end_if_idle(0.0)
        self._sender.stop()
        self._signs.remove()
        if self._port is not None:
            self._port.stop()
        self._database.dispose()
        TRACES.close()

    def _poll(self, pool: Any) -> None:  # noqa: ANN401 - celery ships no types
        """Every 1.5 s, and after each claim: have one thread of the pool look for a job, if a slot is free."""
        clean_at = time.monotonic() + _CLEANING_S
        while not self._stopping.is_set():
            try:
                if self.supervisor.has_free_slot and not self._look_is_asked_for:
                    self._look_is_asked_for = True
                    pool.apply_async(self.run_jobs)
                self._signs.beat()
                self._fork_server.end_if_idle()
                if time.monotonic() >= clean_at:
                    more = self._leftovers.sweep()
                    clean_at = time.monotonic() + (POLL_S if more else _CLEANING_S)
            except (DatabaseError, StorageFullError, OSError) as error:
                log.warning("the worker cannot clean up now: %s", error)
            except Exception:
                log.exception("a look for jobs failed")  # the next one may not
            self._woken.wait(POLL_S)
            self._woken.clear()

    def _wake(self) -> None:
        self._woken.set()

    def _open_port(self) -> None:
        """Open the port that the settings name; jobs matter more than one that cannot be opened."""
        self._metrics.slots.set(len(devices_of(self.settings)))
        self._metrics.running.set_function(lambda: self.supervisor.running)
        if self.settings.worker_port is None:
            return
        try:
            self._port = Port(
                self.settings.worker_host,
                self.settings.worker_port,
                metrics=self._metrics,
                unfit=lambda: self.supervisor.unfit,
            )
        except OSError as error:
            log.error("the worker's port cannot be opened: %s", error)  # noqa: TRY400 - one clear line
        else:
            self._port.start()


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
            check_identity(blobs, identity)
        blobs.ping()
    except StorageFullError:
        log.warning("the blob store is full: no job is taken until something is deleted")
    except WrongStoreError as error:
        log.warning("%s", error)
    except BlobDiskError as error:
        if not blobs.is_remote:
            raise
        log.warning("no job is taken until the blob store is there: %s", error)
