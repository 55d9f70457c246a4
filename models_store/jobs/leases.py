"""Jobs as workers see them: claim one, keep it, record what happens, end it."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Float, bindparam, func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from models_store.database.clock import db_now
from models_store.database.database import Database, reading, writing
from models_store.database.dialects import constant, is_one_of
from models_store.database.schema import JobRow
from models_store.errors import CancelledInsteadError, FencedError
from models_store.job_states import (
    RESUMABLE_STATES,
    Checkpoint,
    EventKind,
    Job,
    JobResult,
    JobRole,
    JobState,
)
from models_store.jobs.attempt_ends import end_attempt, finish, finish_bulk, finish_child
from models_store.jobs.claims import claim, end_silent, waiting
from models_store.jobs.held_jobs import held, name_checkpoint
from models_store.jobs.parents.steps import take_steps
from models_store.jobs.retries import PREFERENCE_S, AttemptEnd
from models_store.jobs.rows import (
    WORKER,
    append,
    fail,
    is_taken,
    move,
    queue,
    storable,
    take_turn,
    to_job,
)
from models_store.records import NewVersion, Version
from models_store.rows.versions import version_of_job

_UNITS = ("epoch", "iteration", "part")
_JOB = JobRow.__table__.c
# Statements are built once: that takes longer than to run them.
_CHECKPOINTS = select(_JOB.checkpoints).where(
    _JOB.id == bindparam("job_id"),
    _JOB.attempt == bindparam("of_attempt"),
    is_one_of(_JOB.state, RESUMABLE_STATES),
)


class JobWork:
    """Jobs for workers.

    A claim gives an attempt number and a lease. Every later write names the attempt, and raises
    FencedError without writing anything when the job is no longer this attempt's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self,
        worker: str,
        *,
        lease_s: float,
        max_project_bytes: int | None = None,
        accelerator: bool | None = None,
        memory_bytes: int | None = None,
    ) -> Job | None:
        """Take the next job for this worker, or return None if there is none.

        Steps of parents that are due come first, each in a transaction of its own, then expired leases,
        then the queue in order. A job that was left by its worker waits longer each time, and fails on
        the way when that happened too often without progress, as does one of a project that stores
        more than it may by now; one that was to be cancelled is cancelled.

        Args:
            worker: Name of the worker.
            lease_s: Seconds of the lease from now.
            max_project_bytes: Bytes that the project of the job may store.
            accelerator: True if the worker has an accelerator; None: it takes any job.
            memory_bytes: Memory of the worker's trainer, into which the job must fit; None: any job.
        """
        take_steps(self._database)
        values = {"worker": storable(worker), "memory_bytes": memory_bytes}
        queries = waiting(accelerator, memory_bytes is not None)
        found, claimed = True, None
        while found and claimed is None:
            found, claimed = self._database.transact(
                claim, queries, values, lease_s=lease_s, max_project_bytes=max_project_bytes
            )
        return None if claimed is None else to_job(claimed, json.loads(claimed.request))

    def should_give_way(
        self,
        job: Job,
        worker: str,
        *,
        accelerator: bool | None = None,
        memory_bytes: int | None = None,
    ) -> bool:
        """Return whether a job of a project that runs fewer has waited for some seconds for such a worker.

        Steps of parents that are due are taken first, and an attempt is ended whose worker is gone: where
        every worker is at work, nobody else does.

        Args:
            job: Running job.
            worker: Name of the worker that runs it.
            accelerator: True if the worker has an accelerator; None: it takes any job.
            memory_bytes: Memory of its trainer; None: any job fits.
        """
        take_steps(self._database)
        self._database.transact(end_silent)
        return self._stands_in_the_way(job.project, worker, accelerator, memory_bytes)

    @reading
    def _stands_in_the_way(
        self,
        session: Session,
        project: str,
        worker: str,
        accelerator: bool | None,  # noqa: FBT001 - as of `should_give_way`
        memory_bytes: int | None,
    ) -> bool:
        its = is_taken(accelerator=accelerator, bounded=memory_bytes is not None)
        waited = JobRow.queued_at <= db_now(-PREFERENCE_S)
        first = queue(select(JobRow.project).where(its, waited).limit(1), worker=WORKER)
        values = {"worker": storable(worker), "memory_bytes": memory_bytes}
        other = session.scalar(first, values)
        if other is None or other == project:
            return False
        counts = (
            select(JobRow.project, func.count())
            .where(JobRow.state == JobState.RUNNING, JobRow.role.is_distinct_from(JobRole.PARENT))
            .group_by(JobRow.project)
        )
        running = dict(session.execute(counts).all())
        return running.get(other, 0) < running.get(project, 0)

    @writing
    def renew(
        self,
        session: Session,
        job_id: str,
        attempt: int,
        *,
        lease_s: float,
        progress: dict[str, Any] | None = None,
    ) -> bool:
        """Extend the lease; return whether the job is to be cancelled.

        Raises:
            FencedError: The job is not this attempt's any more.
        """
        values = {"job_id": job_id, "of_attempt": attempt, "lease_s": lease_s, "reached": progress}
        cancel_requested: bool | None = session.connection().scalar(
            _renewal(progress=progress is not None), values
        )
        if cancel_requested is None:
            raise FencedError(job_id, attempt=attempt)
        return cancel_requested

    @writing
    def record_epoch(  # noqa: PLR0913 - the decorator gives the session
        self,
        session: Session,
        job_id: str,
        attempt: int,
        *,
        lease_s: float,
        metrics: dict[str, Any],
        progress: dict[str, Any],
        checkpoint: Checkpoint | None = None,
        earlier: Sequence[dict[str, Any]] = (),
    ) -> list[str]:
        """Record an epoch, and those before it that were not recorded yet, and extend the lease.

        Safe to repeat: an epoch that was recorded before, by this attempt or one it resumed,
        gives no second event.

        Args:
            session: Transaction, which the decorator begins.
            job_id: Id of the job.
            attempt: Attempt that claimed it.
            lease_s: Seconds of the lease from now.
            metrics: Finite numbers with ``epoch``, which counts from 1, or ``iteration`` or ``part``
                in its place. Empty: no epoch has ended yet, and only the checkpoint counts.
            progress: Progress for callers; empty: unchanged.
            checkpoint: Training state that is durable in the blob store.
            earlier: Metrics of the epochs before this one that are recorded with it, oldest first.

        Returns:
            Keys of checkpoints that the job no longer names, whose files may be deleted.

        Raises:
            FencedError: The job is not this attempt's any more.
        """
        with held(session, job_id, attempt, lease_s=lease_s) as row:
            if progress:
                row.progress = progress
            for told in filter(None, (*earlier, metrics)):
                row.metrics = told
                number = int(next((told[unit] for unit in _UNITS if unit in told), 0))
                # An epoch that a resumed attempt merely repeats is no news.
                if number > row.last_epoch:
                    row.last_epoch = number
                    append(session, row, EventKind.EPOCH, told)
            return [] if checkpoint is None else name_checkpoint(row, checkpoint)

    @writing
    def add_message(self, session: Session, job_id: str, attempt: int, text: str) -> None:
        """Append a message to the job's events.

        Raises:
            FencedError: The job is not this attempt's any more.
        """
        with held(session, job_id, attempt) as row:
            append(session, row, EventKind.MESSAGE, {"text": storable(text)})

    def finish(
        self, job_id: str, attempt: int, *, metrics: dict[str, Any], version: NewVersion
    ) -> Version:
        """Succeed: the new state and the model version, in one transaction.

        Safe to repeat when the answer was lost: it returns the same version. The job names no
        checkpoints any more; their files may go.

        Raises:
            FencedError: The job is not this attempt's any more.
            CancelledInsteadError: a cancel request came first; the job is cancelled now.
        """
        columns = vars(version)
        succeeded, made = self._database.transact(
            finish, job_id, attempt, metrics, version, columns
        )
        if not succeeded:
            raise CancelledInsteadError(job_id, attempt=attempt)
        return made or self._registered(job_id, attempt)

    @reading
    def _registered(self, session: Session, job_id: str, attempt: int) -> Version:
        version = version_of_job(session, job_id, attempt=attempt)
        if version is None:  # deleted since
            raise FencedError(job_id, attempt=attempt)
        return version

    def finish_bulk(
        self, job_id: str, attempt: int, *, metrics: dict[str, Any], result: JobResult
    ) -> None:
        """Succeed with a file that is durable in the blob store, instead of a version.

        Safe to repeat, and the checkpoints go, as with `finish`.

        Raises:
            FencedError: The job is not this attempt's any more.
            CancelledInsteadError: a cancel request came first; the job is cancelled now.
        """
        if not self._database.transact(finish_bulk, job_id, attempt, metrics, result):
            raise CancelledInsteadError(job_id, attempt=attempt)

    def finish_child(
        self, job_id: str, attempt: int, *, metrics: dict[str, Any], product: dict[str, Any]
    ) -> None:
        """Succeed with what the parent makes a version or a file of.

        Safe to repeat, and the checkpoints go, as with `finish`.

        Args:
            job_id: Id of the child.
            attempt: Attempt that claimed it.
            metrics: Metrics of the job.
            product: Result, a JSON object; its files are durable in the blob store.

        Raises:
            FencedError: The job is not this attempt's any more.
            CancelledInsteadError: a cancel request came first; the job is cancelled now.
        """
        end = metrics, product, int(product["checkpoint_bytes"])
        if not self._database.transact(finish_child, job_id, attempt, *end):
            raise CancelledInsteadError(job_id, attempt=attempt)

    @writing
    def fail(
        self, session: Session, job_id: str, attempt: int, *, code: str, detail: str | None
    ) -> None:
        """Fail for good, or be cancelled where that was asked for before.

        Args:
            session: Transaction, which the decorator begins.
            job_id: Id of the job.
            attempt: Attempt that claimed it.
            code: Stable name of the reason.
            detail: Sentence for the caller; None for a fault of the service.

        Raises:
            FencedError: The job is not this attempt's any more.
        """
        with held(session, job_id, attempt) as row:
            if not row.cancel_requested:
                fail(session, row, code=code, detail=detail)
                return
            # The caller was told first that it is cancelled.
            if detail is not None:
                append(session, row, EventKind.MESSAGE, {"text": storable(detail)})
            move(session, row, JobState.CANCELLED)

    @writing
    def cancelled(self, session: Session, job_id: str, attempt: int) -> None:
        """Confirm that the work of a job has stopped because somebody cancelled it.

        Raises:
            FencedError: The job is not this attempt's any more.
        """
        with held(session, job_id, attempt) as row:
            move(session, row, JobState.CANCELLED)

    @reading
    def kept_checkpoints(
        self, session: Session, job_id: str, attempt: int
    ) -> list[Checkpoint] | None:
        """Return the checkpoints that a failed or cancelled job names; it has no use for other files.

        Returns:
            None: the job is in another state, or another attempt took it.
        """
        values = {"job_id": job_id, "of_attempt": attempt}
        named = session.connection().scalar(_CHECKPOINTS, values)
        return None if named is None else [Checkpoint(**at) for at in named]  # type: ignore[typeddict-item]  # written as a Checkpoint

    @writing
    def release(
        self,
        session: Session,
        job_id: str,
        attempt: int,
        *,
        failed: AttemptEnd | None = None,
        gives_way: bool = False,
    ) -> JobState:
        """Give the job back to the queue.

        If it gives way, its project has had its turn: a worker that becomes free takes the other job, also if
        that project's last turn began later.

        Args:
            session: Transaction, which the decorator begins.
            job_id: Id of the job.
            attempt: Attempt that claimed it.
            failed: Failure of the attempt, which counts and makes the job wait. None: the worker was
                asked to stop, or the job gives way, and it may continue at once.
            gives_way: True if the job makes room for one of another project.

        Returns:
            State of the job: queued; failed, after too many failures without progress; cancelled, if
            that was requested.

        Raises:
            FencedError: The job is not this attempt's any more.
        """
        with held(session, job_id, attempt) as row:
            end_attempt(session, row, failed, gives_way=gives_way)
        if gives_way:
            take_turn(session, row.project)
        return JobState(row.state)


@cache
def _renewal(*, progress: bool) -> ReturningUpdate[bool]:
    renewal = (
        update(JobRow.__table__)
        .where(
            _JOB.id == bindparam("job_id"),
            _JOB.attempt == bindparam("of_attempt"),
            _JOB.state == constant(JobState.RUNNING),
        )
        .values(lease_expires_at=db_now(bindparam("lease_s", type_=Float)))
        .returning(_JOB.cancel_requested)
    )
    return renewal.values(progress=bindparam("reached")) if progress else renewal
