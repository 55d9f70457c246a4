"""Jobs as callers see them: submit, look, cancel, resume. Workers use `models_store.job_work`."""

from dataclasses import replace

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from models_store.clock import db_now
from models_store.database import Database
from models_store.dataset_rows import pin_dataset
from models_store.errors import (
    JobFinalError,
    JobNotResumableError,
    LimitError,
    ResultDeletedError,
    ResultNotReadyError,
)
from models_store.idempotency import claim_key, known_resource
from models_store.ids import new_id
from models_store.job_rows import (
    append,
    datasets_of,
    expired_leases,
    find,
    move,
    queue,
    to_job,
)
from models_store.job_states import (
    FINAL_STATES,
    TRANSITIONS,
    Checkpoint,
    EventKind,
    Idempotency,
    Job,
    JobError,
    JobEvent,
    JobKind,
    JobResult,
    JobState,
    NewJob,
    Submitted,
)
from models_store.pages import Page, page_of
from models_store.tables import JobDatasetRow, JobEventRow, JobRow
from models_store.usage import check_storage

__all__ = [
    "FINAL_STATES",
    "TRANSITIONS",
    "Checkpoint",
    "EventKind",
    "Idempotency",
    "Job",
    "JobError",
    "JobEvent",
    "JobKind",
    "JobResult",
    "JobState",
    "Jobs",
    "NewJob",
    "Submitted",
    "result_of",
]


# Inside the class, `list` is its method.
JobIds = list[str]
Events = list[JobEvent]


class Jobs:
    """The caller's side of every job, and what the queue needs to know (app and workers)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(
        self,
        new: NewJob,
        *,
        idempotency: Idempotency | None = None,
        max_queued: int | None = None,
        max_bytes: int | None = None,
    ) -> Submitted:
        """Accept a job: its row and its idempotency record in one transaction.

        Args:
            new: the job.
            idempotency: makes a repeated request give the first job, for 24 hours.
            max_queued: how many jobs of the project may wait; requests that race may pass it by
                their own number.
            max_bytes: what the project may store; what a job that was accepted makes may pass it.

        Raises:
            NotFoundError: the project has no such dataset.
            IdempotencyReusedError: the key came before with another fingerprint.
            LimitError: so many jobs of the project wait already, or it stores so much.
        """
        return self._database.transact(_submit, new, idempotency, max_queued, max_bytes)

    def submitted(self, project: str, idempotency: Idempotency) -> Submitted | None:
        """Return the job that a repeated request gave the first time, whatever became of its data.

        Raises:
            IdempotencyReusedError: the key came before with another fingerprint.
        """
        with self._database.read() as session:
            job_id = known_resource(session, project, idempotency)
            return None if job_id is None else _replayed(session, project, job_id)

    def get(self, project: str, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: the project has no such job.
        """
        with self._database.read() as session:
            return to_job(find(session, project, job_id))

    def list(
        self,
        project: str,
        *,
        limit: int,
        cursor: str | None = None,
        state: JobState | None = None,
        kind: JobKind | None = None,
        model_name: str | None = None,
    ) -> Page[Job]:
        """List jobs, newest first.

        Raises:
            CursorError: the cursor is not one of this listing.
        """
        query = select(JobRow).where(JobRow.project == project)
        if state is not None:
            query = query.where(JobRow.state == state)
        if kind is not None:
            query = query.where(JobRow.kind == kind)
        if model_name is not None:
            query = query.where(JobRow.model_name == model_name)
        with self._database.read() as session:
            rows = page_of(
                session, query, JobRow.position, listing="jobs", cursor=cursor, limit=limit
            )
            return rows.map(to_job)

    def cancel(self, project: str, job_id: str) -> Job:
        """Cancel a queued job at once; ask a running one to stop.

        Once this returned, the job gives no version any more. A second time changes nothing.

        Raises:
            NotFoundError: the project has no such job.
            JobFinalError: it succeeded or failed.
        """
        return self._database.transact(_cancel, project, job_id)

    def resume(self, project: str, job_id: str) -> Job:
        """Queue a cancelled or failed job again; it goes on from its newest checkpoint.

        Raises:
            NotFoundError: the project has no such job, or a dataset of it is gone.
            JobNotResumableError: it is in another state.
        """
        return self._database.transact(_resume, project, job_id)

    def delete_result(self, project: str, job_id: str) -> JobResult:
        """Forget the file of a bulk job and return what it was; its bytes are the caller's to delete.

        Raises:
            NotFoundError: the project has no such job.
            ResultNotReadyError, ResultDeletedError: it has no file yet, or not any more.
        """
        return self._database.transact(_delete_result, project, job_id)

    def events(self, project: str, job_id: str, *, after: int = 0, limit: int = 1000) -> Events:
        """Return events with a number above ``after``, oldest first.

        Raises:
            NotFoundError: the project has no such job.
        """
        with self._database.read() as session:
            row = find(session, project, job_id)
            if after >= row.last_event:
                return []
            query = (
                select(JobEventRow)
                .where(JobEventRow.job_id == job_id, JobEventRow.seq > max(after, 0))
                .order_by(JobEventRow.seq)
                .limit(limit)
            )
            return [_to_event(event) for event in session.scalars(query)]

    def claimable(self, limit: int) -> JobIds:
        """Return ids of jobs that a worker could claim now, in the order of claiming."""
        with self._database.read() as session:
            expired = session.scalars(expired_leases(select(JobRow.id)).limit(limit)).all()
            rest = limit - len(expired)
            queued = session.scalars(queue(select(JobRow.id)).limit(rest)).all()
            return [*expired, *queued]

    def mark_dispatched(self, job_ids: JobIds) -> None:
        """Note that hints for these jobs are in the queue."""
        self._database.transact(_mark_dispatched, job_ids)


def _submit(
    session: Session,
    new: NewJob,
    idempotency: Idempotency | None,
    max_queued: int | None,
    max_bytes: int | None,
) -> Submitted:
    job_id = new_id("job")
    if idempotency is not None:
        first_id = claim_key(session, new.project, idempotency, new_id=job_id)
        if first_id != job_id:
            return _replayed(session, new.project, first_id)
    dataset_ids = {*new.held_out_ids} | ({new.dataset_id} if new.dataset_id else set())
    for dataset_id in sorted(dataset_ids):
        pin_dataset(session, new.project, dataset_id)
    if max_queued is not None:
        _check_queue(session, new.project, max_queued)
    if max_bytes is not None:
        check_storage(session, new.project, max_bytes)
    row = JobRow(
        id=job_id,
        project=new.project,
        kind=new.kind,
        state=JobState.QUEUED,
        model_name=new.model_name,
        model_version=new.model_version,
        dataset_id=new.dataset_id,
        request=new.request,
        request_id=new.request_id,
        traceparent=new.traceparent,
    )
    session.add(row)
    session.flush()
    session.add_all(
        JobDatasetRow(job_id=job_id, dataset_id=dataset_id, project=new.project)
        for dataset_id in dataset_ids
    )
    append(session, row, EventKind.STATE, {"state": JobState.QUEUED.value, "attempt": 0})
    session.flush()
    return Submitted(job=to_job(row), replayed=False)


def _replayed(session: Session, project: str, job_id: str) -> Submitted:
    return Submitted(job=_as_accepted(to_job(find(session, project, job_id))), replayed=True)


def _as_accepted(job: Job) -> Job:
    """Return the job as the first answer showed it: a repeated request gets that answer again."""
    return replace(
        job,
        state=JobState.QUEUED,
        attempt=0,
        model_version=None if job.kind.makes_version else job.model_version,
        progress=None,
        metrics=None,
        result=None,
        error=None,
        checkpoints=[],
        cancel_requested=False,
        started_at=None,
        finished_at=None,
        lease_expires_at=None,
        not_before=None,
        run_seconds=0.0,
    )


def _check_queue(session: Session, project: str, max_queued: int) -> None:
    waiting = session.scalar(
        select(func.count())
        .select_from(JobRow)
        .where(JobRow.project == project, JobRow.state == JobState.QUEUED)
    )
    if (waiting or 0) >= max_queued:
        raise LimitError("limit-queued-jobs", f"{max_queued} jobs wait already; try again later.")


def _cancel(session: Session, project: str, job_id: str) -> Job:
    row = find(session, project, job_id, lock=True)
    match JobState(row.state):
        case JobState.QUEUED:
            row.cancel_requested = True
            move(session, row, JobState.CANCELLED)
        case JobState.RUNNING:
            if not row.cancel_requested:
                row.cancel_requested = True
                append(session, row, EventKind.MESSAGE, {"text": "Cancellation was requested."})
        case JobState.CANCELLED:
            pass
        case JobState.SUCCEEDED | JobState.FAILED:
            raise JobFinalError(job_id, state=row.state)
    session.flush()
    return to_job(row)


def _resume(session: Session, project: str, job_id: str) -> Job:
    row = find(session, project, job_id, lock=True)
    if row.state not in (JobState.CANCELLED, JobState.FAILED):
        raise JobNotResumableError(job_id, state=row.state)
    for dataset_id in sorted(datasets_of(session, job_id)):
        pin_dataset(session, project, dataset_id)
    row.cancel_requested = False
    row.failures = []
    row.run_seconds = 0.0
    row.error_code = row.error_detail = None
    row.finished_at = None
    row.queued_at = db_now()
    move(session, row, JobState.QUEUED)
    session.flush()
    return to_job(row)


def _delete_result(session: Session, project: str, job_id: str) -> JobResult:
    row = find(session, project, job_id, lock=True)
    result = result_of(to_job(row))
    row.result = None
    return result


def result_of(job: Job) -> JobResult:
    """The file that a bulk job made.

    Raises:
        ResultNotReadyError, ResultDeletedError: there is none yet, or not any more.
    """
    if job.result is not None:
        return job.result
    if job.state is JobState.SUCCEEDED:
        raise ResultDeletedError(job.id)
    raise ResultNotReadyError(job.id, state=job.state)


def _mark_dispatched(session: Session, job_ids: JobIds) -> None:
    session.execute(update(JobRow).where(JobRow.id.in_(job_ids)).values(dispatched=True))


def _to_event(row: JobEventRow) -> JobEvent:
    return JobEvent(
        seq=row.seq, event=EventKind(row.event), data=row.data, created_at=row.created_at
    )
