"""Worker process: Celery's worker in the main thread, and the service that runs jobs beside it."""

import logging
import warnings

from celery.exceptions import SecurityWarning  # type: ignore[import-untyped]  # celery ships no types

from models_store.errors import BlobError, DatabaseError
from models_store.process.logs import configure_logging
from workers.celery_app import celery
from workers.service import WorkerService
from workers.settings import WorkerSettings

log = logging.getLogger(__name__)


def run_worker(settings: WorkerSettings) -> int:
    """Work until a signal asks for the end; return the exit status.

    At such a signal every trainer writes a checkpoint, its job goes back to the queue, and the process ends
    within ten seconds.

    Args:
        settings: Settings, as the environment has them.
    """
    configure_logging(settings.log_level, "worker")
    # Celery warns of root because of pickle, of which there is none.
    warnings.simplefilter("ignore", SecurityWarning)
    try:
        service = WorkerService.open(settings)
    except DatabaseError as error:
        log.error("%s", error)  # noqa: TRY400 - one clear line, the traceback adds nothing
        return 1
    except BlobError:
        log.error("The blob store %s cannot be written.", settings.store_address.url)  # noqa: TRY400
        return 1
    try:
        worker = celery.Worker(
            hostname=f"densityd@{settings.label}",
            service=service,
            quiet=True,
            without_gossip=True,
            without_mingle=True,
        )
        worker.start()
        return int(worker.exitcode or 0)
    finally:
        service.close()
