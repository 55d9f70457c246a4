"""Deletion of what is of no more use, which every worker does from time to time."""

import logging

from models_store.database.database import Database
from models_store.files.blobs import Blobs
from models_store.files.job_files import delete_job_files, delete_leftovers
from models_store.job_states import Checkpoint
from models_store.jobs.retention import JobRetention

log = logging.getLogger(__name__)

_MOST_JOBS = 100
_STALE_S = 6 * 3600  # since the last write to a staged file


def sweep(
    database: Database, blobs: Blobs, *, keep_s: float, keep_jobs_s: float | None = None
) -> bool:
    """Delete checkpoints of ended jobs, old jobs, and staged files, some of each; return whether more may be due.

    Args:
        database: Database of the jobs.
        blobs: Store that holds their files; it must be that of the database, or rows would forget files.
        keep_s: Seconds from a job's end for which its checkpoints are kept.
        keep_jobs_s: Seconds from its end for which it is kept itself; None: for ever.

    Raises:
        DatabaseError: The database is unavailable.
        StorageFullError: Its disk is full.
        OSError: The staging folder cannot be used.
    """
    retention = JobRetention(database)
    forgotten = _forget_checkpoints(retention, blobs, keep_s)
    deleted = 0 if keep_jobs_s is None else _delete_jobs(retention, blobs, keep_jobs_s)
    blobs.sweep_staging(older_than_s=_STALE_S)
    if forgotten or deleted:
        log.info("deleted the checkpoints of %d ended jobs, and %d old jobs", forgotten, deleted)
    return max(forgotten, deleted) >= _MOST_JOBS


def _forget_checkpoints(retention: JobRetention, blobs: Blobs, keep_s: float) -> int:
    """Delete what ended jobs, and children of parents that have ended, no longer need; return their number."""
    forgotten = 0
    for job_id in retention.leftover(keep_s=keep_s, limit=_MOST_JOBS):
        attempt = retention.forget_checkpoints(job_id, keep_s=keep_s)
        if attempt is not None:
            forgotten += 1
            delete_leftovers(blobs, job_id, attempt=attempt)
    for job_id in retention.needless_children(keep_s=keep_s, limit=_MOST_JOBS):
        for child in retention.forget_child(job_id, keep_s=keep_s):
            key = child.kept_key
            kept = [] if key is None else [Checkpoint(key=key, sha256="", epoch=0)]
            delete_leftovers(blobs, child.id, attempt=child.attempt, kept=kept)
            forgotten += 1
    return forgotten


def _delete_jobs(retention: JobRetention, blobs: Blobs, keep_s: float) -> int:
    deleted = 0
    for job_id in retention.expired(keep_s=keep_s, limit=_MOST_JOBS):
        for gone in retention.delete_expired(job_id, keep_s=keep_s):
            deleted += 1
            delete_job_files(blobs, gone)
    return deleted
