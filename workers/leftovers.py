"""Deletion of what is of no more use, which every worker does from time to time."""

import logging

from models_store.database.database import Database
from models_store.files.blobs import Blobs
from models_store.files.job_files import delete_job_files, delete_leftovers
from models_store.jobs.retention import JobRetention

log = logging.getLogger(__name__)

_KEEP_S = 7 * 86_400.0
_MOST_JOBS = 20  # in one transaction: meanwhile nobody else writes to SQLite
_STALE_S = 6 * 3600  # since the last write to a staged file


def sweep(
    database: Database, blobs: Blobs, *, keep_s: float = _KEEP_S, keep_jobs_s: float | None = None
) -> bool:
    """Delete checkpoints of ended jobs, old jobs, and staged files, some of each; return whether more may be due.

    Args:
        blobs: Store that holds their files; it must be that of the database, or rows would forget files.
        keep_s: Seconds from a job's end for which its checkpoints are kept.
        keep_jobs_s: Seconds from its end for which it is kept itself; None: for ever.

    Raises:
        DatabaseError: The database is unavailable.
        StorageFullError: Its disk is full.
        OSError: The staging folder cannot be used.
    """
    retention = JobRetention(database)
    forgotten = [
        *retention.forget_checkpoints(keep_s=keep_s, limit=_MOST_JOBS),
        *retention.forget_children(keep_s=keep_s, limit=_MOST_JOBS),
    ]
    for job_id, attempt in forgotten:
        delete_leftovers(blobs, job_id, attempt=attempt)
    deleted: list[str] = []
    if keep_jobs_s is not None:
        deleted = retention.delete_expired(keep_s=keep_jobs_s, limit=_MOST_JOBS)
    for job_id in deleted:
        delete_job_files(blobs, job_id)
    blobs.sweep_staging(older_than_s=_STALE_S)
    if forgotten or deleted:
        log.info("deleted files of %d ended jobs, and %d old jobs", len(forgotten), len(deleted))
    return max(len(forgotten), len(deleted)) >= _MOST_JOBS
