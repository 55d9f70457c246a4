"""Worker process: the Celery consumer in the main thread, the sweep in another."""

import logging
import signal
import threading
import time
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

from celery import Celery, signals  # type: ignore[import-untyped]  # celery ships no types
from celery.exceptions import SecurityWarning  # type: ignore[import-untyped]

from models_store.database.database import SERVICE_ANSWER_S, Database
from models_store.errors import (
    BlobDiskError,
    BlobError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseUnavailableError,
    StorageFullError,
    WrongStoreError,
)
from models_store.files.blobs import check_identity
from models_store.files.private_files import create_private_files
from models_store.files.store_identity import known_identity
from models_store.files.stores import open_blobs
from models_store.jobs.job_queue import TASK_NAME, JobQueue
from models_store.jobs.jobs import Jobs
from models_store.jobs.live_workers import Workers
from models_store.process.endings import ending_signals
from models_store.process.logs import configure_logging
from models_store.process.traces import TRACES
from models_store.webhooks.deliveries import Deliveries
from workers.celery_app import WorkerBrokerClient, create_celery
from workers.devices import devices_of
from workers.heartbeat import LifeSigns, worker_label
from workers.leftovers import Leftovers
from workers.metrics import WorkerMetrics
from workers.port import Port
from workers.settings import WorkerSettings
from workers.supervisor.fitness import UNTESTED
from workers.supervisor.fork_server import ForkServer
from workers.supervisor.supervisor import Supervisor
from workers.webhooks import Sender

log = logging.getLogger(__name__)

_DATABASE_RETRY_S = 2.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5


def run_worker(settings: WorkerSettings) -> int:
    """Work until a signal asks for the end; return the exit status.

    At such a signal, or SIGQUIT, every trainer writes a checkpoint, its job goes back to the queue, and the
    process ends within ten seconds.
    """
    create_private_files()
    configure_logging(settings.log_level, "worker")
    TRACES.configure("worker")
    # Celery warns of root because of pickle, of which there is none.
    warnings.simplefilter("ignore", SecurityWarning)
    database = Database(
        settings.resolved_database_url,
        answer_s=SERVICE_ANSWER_S,
        pool_size=len(devices_of(settings)) + 2,
        ballast_bytes=settings.ballast_bytes,
    )
    try:
        _wait_for(database)
        _prepare_store(database, settings)
        return _consume(database, settings)
    except DatabaseError as error:
        log.error("%s", error)  # noqa: TRY400 - one clear line, the traceback adds nothing
        return 1
    except BlobError:
        log.error("The blob store %s cannot be written.", settings.store_address.url)  # noqa: TRY400
        return 1
    finally:
        database.dispose()
        TRACES.close()


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
    """Try to write to the store, unless it belongs to another database."""
    blobs = open_blobs(settings.store_address)
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


def _consume(database: Database, settings: WorkerSettings) -> int:
    signs = LifeSigns(settings, Workers(database), unfit=UNTESTED)
    metrics = WorkerMetrics()
    fork_server = ForkServer(settings)
    supervisor = Supervisor(
        database,
        settings,
        worker=worker_label(settings),
        tested=False,
        tell=signs.tell,
        metrics=metrics,
        fork_server=fork_server,
    )
    port = _open_port(settings, metrics, supervisor)
    app = create_celery(settings)
    register_tasks(app, supervisor)
    jobs = Jobs(database)
    queue = JobQueue(
        jobs,
        WorkerBrokerClient(app),
        sweep_interval_s=settings.sweep_interval_s,
        after_sweep=signs.beat,
        without_broker=partial(_work_without_messages, supervisor),
    )
    blobs = open_blobs(settings.store_address)
    leftovers = Leftovers(
        database,
        blobs,
        keep_s=settings.keep_checkpoints_s,
        keep_jobs_s=settings.keep_jobs_s,
        lease_s=settings.lease_s,
        fit=lambda: supervisor.fit,
    )
    sender = Sender(Deliveries(database), private=settings.webhook_private_addresses)
    getting_fit = threading.Thread(target=supervisor.get_fit, name="fitness", daemon=True)

    def stop(**_: Any) -> None:  # noqa: ANN401 - whatever Celery sends along
        supervisor.stop()
        database.hurry()

    signals.worker_shutting_down.connect(stop, weak=False)
    ending = ending_signals()  # before Celery has its own handlers

    def end_alike(**_: Any) -> None:  # noqa: ANN401 - as above
        _end_alike(ending)

    signals.worker_ready.connect(end_alike, weak=False)
    # Celery leaves logging alone as soon as anybody listens.
    signals.setup_logging.connect(_keep_logging, weak=False)
    signs.beat()
    queue.start()
    leftovers.start()
    sender.start()
    getting_fit.start()
    try:
        return _start(app, settings)
    finally:
        stop()
        queue.stop()
        leftovers.stop()
        sender.stop()
        getting_fit.join()
        fork_server.close()
        signs.remove()
        if port is not None:
            port.stop()


def _open_port(
    settings: WorkerSettings, metrics: WorkerMetrics, supervisor: Supervisor
) -> Port | None:
    """Open the port that the settings name; jobs matter more than one that cannot be opened."""
    metrics.slots.set(len(devices_of(settings)))
    metrics.running.set_function(lambda: supervisor.running)
    if settings.worker_port is None:
        return None
    try:
        port = Port(
            settings.worker_host,
            settings.worker_port,
            metrics=metrics,
            unfit=lambda: supervisor.unfit,
        )
    except OSError as error:
        log.error("the worker's port cannot be opened: %s", error)  # noqa: TRY400 - one clear line
        return None
    port.start()
    return port


def _work_without_messages(supervisor: Supervisor) -> None:
    """Look for a job in the database, where they all are, and for more until there is none."""

    def work() -> None:
        while supervisor.run_next():
            pass

    threading.Thread(target=work, name="without-broker", daemon=True).start()


def _end_alike(ending: Sequence[signal.Signals]) -> None:
    """Make some signals, and SIGQUIT, end the worker as SIGTERM does.

    Celery's own handlers raise errors, and for SIGHUP start the worker again once its job has ended.
    """
    for number in {*ending, signal.SIGQUIT}:
        signal.signal(number, signal.getsignal(signal.SIGTERM))
    if signal.SIGHUP not in ending:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _keep_logging(**_: Any) -> None:  # noqa: ANN401 - whatever Celery sends along
    """Keep Celery from setting up logging, which is done already."""


def _start(app: Celery, settings: WorkerSettings) -> int:
    worker = app.Worker(
        hostname=f"densityd@{worker_label(settings)}",
        concurrency=len(devices_of(settings)),
        loglevel=settings.log_level,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def register_tasks(app: Celery, supervisor: Supervisor) -> None:
    """Register the task of `app`: at each message, `supervisor` looks for a job."""
    pauses = _Pauses()

    @app.task(name=TASK_NAME)  # type: ignore[untyped-decorator]  # celery ships no types
    def run(job_id: str) -> None:  # noqa: ARG001 - the oldest job that waits comes first
        pauses.after(found=supervisor.run_next())


class _Pauses:
    """Pauses after looks that found no job, longer each time.

    Jobs that no worker can take are announced again and again.
    """

    def __init__(self) -> None:
        self._in_vain = 0

    def after(self, *, found: bool) -> None:
        """Pause after a look, from the second one in vain on."""
        self._in_vain = 0 if found else self._in_vain + 1
        if self._in_vain > 1:
            time.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * self._in_vain))
