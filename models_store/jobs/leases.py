"""Jobs as workers see them: claim one, keep it, record what happens, end it.

A claim gives an attempt number and a lease by the database's clock. Every later write names the attempt, and
raises `FencedError` without writing anything when the job is no longer this attempt's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from models_store.counts import Counts
from models_store.database.clock import db_now, moment
from models_store.database.database import Rows, reading, writing
from models_store.database.dialects import constant
from models_store.database.schema import JobRow
from models_store.errors import CancelledInsteadError, FencedError, LimitError
from models_store.job_states import (
    FINAL_STATES,
    RESUMABLE_STATES,
    Checkpoint,
    EventKind,
    Job,
    JobResult,
    JobRole,
    JobState,
)
from models_store.jobs.parents import advance_all, end_child
from models_store.jobs.queue import PREFERENCE_S, is_claimed, is_taken, waiting
from models_store.jobs.retries import (
    QUOTA_STORAGE,
    AttemptEnd,
    Ending,
    Failure,
    verdict,
    wait_s,
)
from models_store.jobs.rows import (
    append,
    count_files,
    count_rows,
    fail,
    keep_result,
    lock_parent,
    move,
    storable,
    tell,
    to_job,
)
from models_store.quotas import check_storage, hold_project
from models_store.records import NewVersion
from models_store.rows.versions import add_version

_CHECKPOINTS_KEPT = 2
_UNITS = ("epoch", "iteration", "part")
_SILENT = AttemptEnd(ending=Ending.LOST, detail="the worker went silent and its lease ran out")


class JobWork(Rows):
    """Jobs of all projects, for workers.

    Methods that write for an attempt raise `FencedError` if the job is not this attempt's any more.
    """

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

        Steps of parents that are due come first, then attempts whose lease ran out, then the queue in order. A job that
        was left by its worker waits longer each time, and fails on the way when that happened too often without
        progress, as does one of a project that stores more than it may by now; one that was to be
        cancelled is cancelled.

        Args:
            lease_s: Seconds of the lease from now.
            max_project_bytes: Bytes that the project of the job may store.
            accelerator: True if the worker has an accelerator; None: it takes any job.
            memory_bytes: Memory of the worker's trainer, into which the job must fit; None: any job.
        """
        self._mend()
        its = is_taken(accelerator=accelerator, memory_bytes=memory_bytes)
        found, job = True, None
        while found and job is None:
            found, job = self.database.transact(
                _claim, storable(worker), its, lease_s=lease_s, max_bytes=max_project_bytes
            )
        return job

    def end_silent(self) -> bool:
        """End the attempt of a worker that went silent; return whether there was one."""
        left = select(JobRow.id).where(*_is_left())
        with self.database.read() as session:  # mostly there is none, and a read waits for nobody
            job_id = session.scalar(
                left.order_by(JobRow.lease_expires_at, JobRow.position).limit(1)
            )
        if job_id is not None:
            self.database.transact(_end_silent, job_id)
        return job_id is not None

    def should_give_way(
        self, job: Job, *, accelerator: bool | None = None, memory_bytes: int | None = None
    ) -> bool:
        """Return whether a job of a project that runs fewer has waited for some seconds for such a worker.

        Steps of parents that are due are taken first, and attempts are ended whose worker is gone: where
        every worker is at work, nobody else does.
        """
        self._mend()
        its = is_taken(accelerator=accelerator, memory_bytes=memory_bytes)
        waited = JobRow.queued_at <= db_now(-PREFERENCE_S)
        running = select(func.count()).where(JobRow.state == JobState.RUNNING, is_claimed())
        with self.database.read() as session:
            other = session.scalar(waiting().where(its, waited))
            if other is None or other.project == job.project:
                return False
            own = session.scalar(running.where(JobRow.project == job.project)) or 0
            return (session.scalar(running.where(JobRow.project == other.project)) or 0) < own

    def _mend(self) -> None:
        """Do what whoever looks for work does first: end silent attempts, and take steps of parents."""
        while self.end_silent():
            pass
        advance_all(self.database)

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
        """Extend the lease; return whether the job is to be cancelled."""
        with held(session, job_id, attempt, lease_s=lease_s) as row:
            if progress is not None:
                row.progress = progress
            return row.cancel_requested

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

        Safe to repeat: an epoch that was recorded before, by this attempt or one it resumed, gives no second event.

        Args:
            lease_s: Seconds of the lease from now.
            metrics: Finite numbers with ``epoch``, which counts from 1, or ``iteration`` or ``part``
                in its place. Empty: no epoch has ended yet, and only the checkpoint counts.
            progress: Progress for callers; empty: unchanged.
            checkpoint: Training state that is durable in the blob store.
            earlier: Metrics of the epochs before this one that are recorded with it, oldest first.

        Returns:
            Keys of checkpoints that the job no longer names, whose files may be deleted.
        """
        with held(session, job_id, attempt, lease_s=lease_s) as row:
            if progress:
                row.progress = progress
            for told in filter(None, (*earlier, metrics)):
                if _number(told) > _number(row.metrics or {}):
                    append(session, row, EventKind.EPOCH, told)
                elif _number(told) > 0:
                    continue  # what a resumed attempt merely repeats is no news
                row.metrics = told
            return [] if checkpoint is None else _name_checkpoint(row, checkpoint)

    @writing
    def add_message(self, session: Session, job_id: str, attempt: int, text: str) -> None:
        """Append a message to the job's events."""
        with held(session, job_id, attempt) as row:
            tell(session, row, text)

    def finish(  # noqa: PLR0913  what the job has made, of one kind or another
        self,
        job_id: str,
        attempt: int,
        *,
        metrics: dict[str, Any],
        version: NewVersion | None = None,
        result: JobResult | None = None,
        product: dict[str, Any] | None = None,
        counts: Counts | None = None,
    ) -> int | None:
        """Succeed: the new state and what the job has made, in one transaction.

        Safe to repeat when the answer was lost: this changes nothing then, as what was made may have been
        deleted since, or be the parent's by now. The job names no checkpoints any more; their files may go.

        Args:
            result: File that it makes instead, durable in the blob store.
            product: What a child makes, of which its parent makes a version or a file, durable as well.

        Returns:
            Number of the version that the job has made, or uses.

        Raises:
            CancelledInsteadError: a cancel request came first; the job is cancelled now.
        """

        def end(session: Session) -> JobRow | None:
            try:
                with ending(session, job_id, attempt) as row:
                    if row.cancel_requested:
                        move(session, row, JobState.CANCELLED)
                        return None
                    _record(session, row, version=version, result=result, product=product)
                    row.metrics = metrics
                    count_rows(session, row, counts)
                    move(session, row, JobState.SUCCEEDED)
                    return row
            except FencedError:
                mine = JobRow.id == job_id, JobRow.attempt == attempt
                done = select(JobRow).where(*mine, JobRow.state == JobState.SUCCEEDED)
                if (ended := session.scalar(done)) is None:
                    raise
                return ended

        row = self.database.transact(end)
        if row is None:
            raise CancelledInsteadError(job_id, attempt=attempt)
        return row.model_version

    @writing
    def fail(
        self, session: Session, job_id: str, attempt: int, *, code: str, detail: str | None
    ) -> None:
        """Fail for good, or be cancelled where that was asked for before; without a detail for a fault of the service."""
        with ending(session, job_id, attempt) as row:
            if not row.cancel_requested:
                fail(session, row, code=code, detail=detail)
                return
            # The caller was told first that it is cancelled.
            if detail is not None:
                tell(session, row, detail)
            move(session, row, JobState.CANCELLED)

    @writing
    def cancelled(self, session: Session, job_id: str, attempt: int) -> None:
        """Confirm that the work of a job has stopped because somebody cancelled it."""
        with ending(session, job_id, attempt) as row:
            move(session, row, JobState.CANCELLED)

    @reading
    def kept_checkpoints(
        self, session: Session, job_id: str, attempt: int
    ) -> list[Checkpoint] | None:
        """Return the checkpoints that a failed or cancelled job names; None if another attempt took it."""
        mine = JobRow.id == job_id, JobRow.attempt == attempt
        row = session.scalar(select(JobRow).where(*mine, JobRow.state.in_(RESUMABLE_STATES)))
        if row is None:
            return None
        return [Checkpoint(**at) for at in row.checkpoints]  # type: ignore[typeddict-item]  # written as a Checkpoint

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
            failed: Failure of the attempt, which counts and makes the job wait. None: the worker was
                asked to stop, or the job gives way, and it may continue at once.
            gives_way: True if the job makes room for one of another project.

        Returns:
            State of the job: queued; failed, after too many failures without progress; cancelled, if
            that was requested.
        """
        with ending(session, job_id, attempt) as row:
            end_attempt(session, row, failed, gives_way=gives_way)
        if gives_way:
            hold_project(session, row.project).turn_at = db_now()
        return JobState(row.state)


@contextmanager
def held(
    session: Session, job_id: str, attempt: int, *, lease_s: float | None = None
) -> Iterator[JobRow]:
    """Lock the job of a worker's attempt, and extend its lease: the fence before each of its writes.

    Raises:
        FencedError: The attempt no longer holds the job.
    """
    mine = (
        JobRow.id == job_id,
        JobRow.attempt == attempt,
        JobRow.state == constant(JobState.RUNNING),
    )
    row = session.scalar(select(JobRow).where(*mine).with_for_update())
    if row is None:
        raise FencedError(job_id, attempt=attempt)
    if lease_s is not None:
        row.lease_expires_at = db_now(lease_s)
    yield row


@contextmanager
def ending(session: Session, job_id: str, attempt: int) -> Iterator[JobRow]:
    """Lock the job of a worker's attempt, and its parent before it, to end the attempt; it raises as `held`."""
    lock_parent(session, job_id)
    with held(session, job_id, attempt) as row:
        yield row
    _follow(session, row)


def _record(
    session: Session,
    row: JobRow,
    *,
    version: NewVersion | None,
    result: JobResult | None,
    product: dict[str, Any] | None,
) -> None:
    """Record what a held job has made; arguments as of `JobWork.finish`."""
    if version is not None:
        labels = {"description": row.description, "tags": row.tags}
        labelled = NewVersion(**{**vars(version), **labels})
        at = {"project": row.project, "name": row.model_name, "job_id": row.id}
        row.model_version = add_version(session, labelled, **at).version
    if result is not None:
        keep_result(row, result)
        if row.progress is not None:  # the last report is of a moment before the end
            row.progress = {**row.progress, "fraction": 1.0, "eta_seconds": 0.0}
    if product is not None:
        row.product = product
    row.checkpoints = []
    count_files(row, product_bytes=0 if product is None else int(product["checkpoint_bytes"]))


def _follow(session: Session, row: JobRow) -> None:
    """Let the parent of a child that has ended go on."""
    if row.role == JobRole.CHILD and row.state in FINAL_STATES:
        end_child(session, row)


def _is_left() -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of jobs whose lease has run out; parents have none."""
    return JobRow.state == constant(JobState.RUNNING), JobRow.lease_expires_at <= db_now()


def _end_silent(session: Session, job_id: str) -> None:
    lock_parent(session, job_id)
    query = select(JobRow).where(JobRow.id == job_id, *_is_left())
    row = session.scalar(query.with_for_update())
    if row is not None:
        end_attempt(session, row, _SILENT)
        _follow(session, row)


def _claim(
    session: Session,
    worker: str,
    its: ColumnElement[bool],
    *,
    lease_s: float,
    max_bytes: int | None,
) -> tuple[bool, Job | None]:
    """Claim the next job; return whether there was one, and the job unless its project stores too much."""
    query = waiting().where(its)
    row = session.scalar(query.with_for_update(of=JobRow, skip_locked=True))
    if row is None:
        return False, None
    row.worker = worker
    row.lease_expires_at = moment(session, later_s=lease_s)
    move(session, row, JobState.RUNNING)
    hold_project(session, row.project).turn_at = db_now()
    if max_bytes is not None:
        try:
            check_storage(session, row.project, max_bytes)
        except LimitError as error:
            fail(session, row, code=QUOTA_STORAGE, detail=error.detail)
            return True, None
    session.flush()
    return True, to_job(row)


def end_attempt(
    session: Session, row: JobRow, failed: AttemptEnd | None, *, gives_way: bool = False
) -> None:
    """Queue, fail or cancel a locked, running job whose attempt has ended; arguments as of `JobWork.release`."""
    if row.cancel_requested:
        move(session, row, JobState.CANCELLED)
    elif failed is not None:
        _count(session, row, failed)
    else:
        detail, outlook = "it was asked to stop", "It continues at once."
        if gives_way:
            detail = "a job of another project was waiting"
            outlook = "It continues when its project has its next turn."
        _tell(session, row, detail, outlook=outlook)
        move(session, row, JobState.QUEUED)


def _count(session: Session, row: JobRow, failed: AttemptEnd) -> None:
    failure = Failure(
        attempt=row.attempt, worker=row.worker or "", ending=failed.ending.value, code=failed.code
    )
    failures = [*(Failure(**one) for one in row.failures), failure]  # type: ignore[typeddict-item]  # written as one
    # A new list: a change inside the old one would not be stored.
    row.failures = [*row.failures, dict(failure)]
    error = verdict(failures)
    if error is not None:
        _tell(session, row, failed.detail, outlook="That was once too often.")
        fail(session, row, code=error["code"], detail=error["detail"])
        return
    pause_s = wait_s(failures)
    when = f"in {pause_s:g} s" if pause_s else "at once"
    _tell(session, row, failed.detail, outlook=f"It is tried again {when}{_starting_at(row)}.")
    move(session, row, JobState.QUEUED)
    if pause_s:
        row.not_before = moment(session, later_s=pause_s)


def _starting_at(row: JobRow) -> str:
    """Return where the next attempt begins, if there was progress: it may be behind what was told."""
    if row.progress is None:
        return ""
    if not row.checkpoints:
        return ", from the beginning"
    return ", from its last checkpoint; what came after that is done again"


def _tell(session: Session, row: JobRow, detail: str, *, outlook: str) -> None:
    """Tell the caller how an attempt ended, how far the job is, and what happens next."""
    fraction = None if row.progress is None else row.progress.get("fraction")
    so_far = "" if fraction is None else f" Progress so far: {fraction:.1%}."
    tell(
        session,
        row,
        f"Attempt {row.attempt} on worker {row.worker}: {detail}.{so_far} {outlook}",
    )


def _name_checkpoint(row: JobRow, checkpoint: Checkpoint) -> list[str]:
    """Name a checkpoint in a held job; return the keys of those that it no longer names."""
    # Progress is what a next attempt need not do again.
    furthest = max((int(other.get("step", 0)) for other in row.checkpoints), default=0)
    if checkpoint.get("step", 0) > furthest:
        row.failures = []
    others = [other for other in row.checkpoints if other["key"] != checkpoint["key"]]
    named = [dict(checkpoint), *others]
    row.checkpoints = named[:_CHECKPOINTS_KEPT]
    count_files(row)
    return [old["key"] for old in named[_CHECKPOINTS_KEPT:]]


def _number(told: dict[str, Any]) -> int:
    """Return the number of the epoch, iteration or part of metrics; 0 if they are of none."""
    return int(next((told[unit] for unit in _UNITS if unit in told), 0))
