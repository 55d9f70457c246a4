"""Deletion of what is of no more use, from time to time.

Deleted are checkpoints of ended jobs that nobody resumed in time, old jobs, and staged files.
"""

import logging
from collections.abc import Callable

from models_store.database.database import Database
from models_store.files.blobs import Blobs
from models_store.files.job_files import delete_job_files, delete_leftovers
from models_store.job_states import Checkpoint
from models_store.jobs.retention import JobRetention

log = logging.getLogger(__name__)

_MOST_JOBS = 100
_FOR_EVER_S = 1e9  # there are no instants long before
_STALE_S = 6 * 3600  # since the last write to a staged file


class Leftovers:
    """Deletion of them, a bounded number at a time; every worker does it.

    Args:
        database: Database of the jobs.
        blobs: Store that holds their files.
        keep_s: Seconds from a job's end for which its checkpoints are kept.
        keep_jobs_s: Seconds from its end for which it is kept itself; None: for ever.
        fit: Tells whether the worker has its store; without it rows must not forget files.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        *,
        keep_s: float,
        keep_jobs_s: float | None = None,
        fit: Callable[[], bool] = lambda: True,
    ) -> None:
        self._retention = JobRetention(database)
        self._blobs = blobs
        self._keep_s = min(keep_s, _FOR_EVER_S)
        self._keep_jobs_s = None if keep_jobs_s is None else min(keep_jobs_s, _FOR_EVER_S)
        self._fit = fit

    def once(self) -> int:
        """Delete checkpoints that are due; return the number of their jobs.

        Raises:
            DatabaseError: The database is unavailable.
            StorageFullError: Its disk is full.
        """
        if not self._fit():
            return 0
        due = self._retention.leftover(keep_s=self._keep_s, limit=_MOST_JOBS)
        forgotten = 0
        for job_id in due:
            attempt = self._retention.forget_checkpoints(job_id, keep_s=self._keep_s)
            if attempt is not None:
                forgotten += 1
                delete_leftovers(self._blobs, job_id, attempt=attempt)
        return forgotten

    def forget_children(self) -> int:
        """Delete files of children that nothing needs; return their number. It raises as `once`."""
        if not self._fit():
            return 0
        forgotten = 0
        for job_id in self._retention.needless_children(keep_s=self._keep_s, limit=_MOST_JOBS):
            for child in self._retention.forget_child(job_id, keep_s=self._keep_s):
                key = child.kept_key
                kept = [] if key is None else [Checkpoint(key=key, sha256="", epoch=0)]
                delete_leftovers(self._blobs, child.id, attempt=child.attempt, kept=kept)
                forgotten += 1
        return forgotten

    def delete_jobs(self) -> int:
        """Delete jobs that are due, with their files; return their number. It raises as `once`."""
        keep_s = self._keep_jobs_s
        if keep_s is None or not self._fit():
            return 0
        deleted = 0
        for job_id in self._retention.expired(keep_s=keep_s, limit=_MOST_JOBS):
            for gone in self._retention.delete_expired(job_id, keep_s=keep_s):
                deleted += 1
                delete_job_files(self._blobs, gone)
        return deleted

    def sweep_staging(self) -> int:
        """Delete staged files that crashed writers left; return their number.

        Raises:
            OSError: The staging folder cannot be used.
        """
        return self._blobs.sweep_staging(older_than_s=_STALE_S) if self._fit() else 0

    def sweep(self) -> bool:
        """Delete what is due of all kinds, some of each; return whether more may be due.

        Raises:
            DatabaseError: The database is unavailable.
            StorageFullError: Its disk is full.
            OSError: The staging folder cannot be used.
        """
        forgotten, deleted = self.once() + self.forget_children(), self.delete_jobs()
        self.sweep_staging()
        if forgotten:
            log.info("deleted the checkpoints of %d ended jobs", forgotten)
        if deleted:
            log.info("deleted %d jobs that ended long ago", deleted)
        return max(forgotten, deleted) >= _MOST_JOBS
