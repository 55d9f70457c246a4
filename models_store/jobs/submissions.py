"""Submitting, cancelling and resuming jobs inside a transaction; how many may wait."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from models_store.database.ids import is_id, new_id
from models_store.database.schema import JobDatasetRow, JobRow
from models_store.database.usage import check_storage, hold_project, json_bytes
from models_store.errors import JobFinalError, JobNotResumableError, LimitError
from models_store.job_states import (
    RESUMABLE_STATES,
    Accelerator,
    EventKind,
    Idempotency,
    Job,
    JobRole,
    JobState,
    NewJob,
    Submitted,
)
from models_store.jobs.parents.children import (
    MOST_WAITING,
    WANTED,
    cancel_children,
    requeue,
    resume_children,
)
from models_store.jobs.rows import append, datasets_of, find, move, tell_if_unsuited, to_job
from models_store.rows.datasets import pin_dataset
from models_store.rows.idempotency import claim_key
from models_store.rows.versions import pin_version

_HELD_BACK = f"{MOST_WAITING:,} children of other jobs wait for the same workers: it starts its own once fewer of these wait."
_READS = insert(JobDatasetRow.__table__)


def submit(
    session: Session,
    new: NewJob,
    *,
    idempotency: Idempotency | None,
    max_queued: int | None,
    max_bytes: int | None,
) -> Job | str:
    """Add a job and its idempotency record, as `Jobs.submit` says.

    Args:
        session: Transaction to write in.
        new: Job to add.
        idempotency: Key of the caller's request.
        max_queued: Most jobs of the project that may wait.
        max_bytes: Most bytes that the project may store.

    Returns:
        The job, or the id of that which an earlier request with the key was answered with.
    """
    job_id = new_id("job")
    if idempotency is not None:
        first_id = claim_key(session, new.project, idempotency, new_id=job_id)
        if first_id != job_id:
            return first_id
    dataset_ids = {*new.held_out_ids} | ({new.dataset_id} if new.dataset_id else set())
    pin_inputs(session, new, dataset_ids, tables=new.tables)
    request_bytes = json_bytes(new.request)
    row = JobRow(
        id=job_id,
        project=new.project,
        kind=new.kind,
        state=JobState.QUEUED,
        model_name=new.model_name,
        model_version=new.model_version,
        dataset_id=new.dataset_id,
        request=new.request,
        role=new.role,
        priority=new.priority,
        accelerator=None if new.accelerator is Accelerator.NONE else new.accelerator,
        memory_bytes=new.memory_bytes,
        estimate_s=new.estimate_s,
        request_id=new.request_id,
        traceparent=new.traceparent,
        description=new.description,
        tags=new.tags,
        last_event=0,
        metadata_bytes=request_bytes,
        # A version that it makes repeats much of the request.
        reserved_bytes=new.reserved_bytes + 2 * request_bytes,
    )
    append(session, row, EventKind.STATE, {"state": JobState.QUEUED.value, "attempt": 0})
    tell_if_unsuited(session, row)
    session.add(row)
    session.flush()
    check_limits(session, new.project, max_queued=max_queued, max_bytes=max_bytes)
    if row.role == JobRole.PARENT and _is_held_back(session, row):
        append(session, row, EventKind.MESSAGE, {"text": _HELD_BACK})
    if dataset_ids:
        reads = [
            {"job_id": job_id, "dataset_id": dataset_id, "project": new.project}
            for dataset_id in sorted(dataset_ids)
        ]
        session.connection().execute(_READS, reads)
    return to_job(row, new.request)


def replayed(session: Session, project: str, job_id: str) -> Submitted:
    """Return the job that an earlier request with the same key was answered with."""
    row = find(session, project, job_id, full=True)
    return Submitted(job=_as_accepted(to_job(row, row.request)), replayed=True)


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
        last_event=1,
    )


def cancel(session: Session, project: str, job_id: str, request: dict[str, Any]) -> Job:
    """Cancel a job that waits, or ask it to stop, as `Jobs.cancel` says.

    Args:
        session: Transaction to write in.
        project: Project that owns the job.
        job_id: Id of the job.
        request: Its request, which never changes.

    Raises:
        NotFoundError: the project has no such job.
        JobFinalError: it succeeded or failed.
    """
    row = find(session, project, job_id, lock=True)
    match JobState(row.state):
        case JobState.QUEUED if row.role != JobRole.PARENT:
            row.cancel_requested = True
            move(session, row, JobState.CANCELLED)
        case JobState.QUEUED | JobState.RUNNING:
            if not row.cancel_requested:
                row.cancel_requested = True
                append(session, row, EventKind.MESSAGE, {"text": "Cancellation was requested."})
            if row.role == JobRole.PARENT:
                cancel_children(session, row)
        case JobState.CANCELLED:
            pass
        case JobState.SUCCEEDED | JobState.FAILED:
            raise JobFinalError(job_id, state=row.state)
    session.flush()
    return to_job(row, request)


def resume(
    session: Session,
    project: str,
    job_id: str,
    request: dict[str, Any],
    *,
    max_queued: int | None,
    max_bytes: int | None,
) -> Job:
    """Queue a job again, as `Jobs.resume` says.

    Raises:
        NotFoundError: the project has no such job, or a dataset or the version of it is gone.
        JobNotResumableError: it is in another state, or a child, or a dataset of it has other types now.
        LimitError: as many jobs of the project wait already, or children of others where it is a parent, or
            it would store too much.
    """
    row = find(session, project, job_id, lock=True)
    if row.state not in RESUMABLE_STATES or row.role == JobRole.CHILD:
        raise JobNotResumableError(job_id, state=row.state, parent_id=row.parent_id)
    _pin_again(session, row)
    if row.role == JobRole.PARENT:
        resume_children(session, row)
    requeue(session, row)
    session.flush()
    check_limits(session, project, max_queued=max_queued, max_bytes=max_bytes)
    if row.role == JobRole.PARENT and max_queued is not None:
        _check_children(session, row)
    return to_job(row, request)


def _pin_again(session: Session, row: JobRow) -> None:
    """Pin what a job reads that is to continue.

    Raises:
        NotFoundError: a dataset or the version of it is gone.
        JobNotResumableError: a dataset has other types now, and another table.
    """
    read = datasets_of(session, row.id)
    pin_inputs(session, row, [one for one in read if is_id(one, "ds")])
    # Read once more: types may have been changed while the pin waited.
    if not all(is_id(one, "ds") for one in datasets_of(session, row.id)):
        raise JobNotResumableError(row.id, state=row.state, retyped=True)


def pin_inputs(
    session: Session,
    job: NewJob | JobRow,
    dataset_ids: Iterable[str],
    *,
    tables: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Keep what a job reads from being deleted until this transaction, which queues it, has ended.

    Args:
        session: Transaction to read in.
        job: Job that reads it.
        dataset_ids: Ids of its datasets.
        tables: Keys of the tables that these must have still, by their ids.

    Raises:
        NotFoundError: the project has no such dataset or version.
        ConflictError: a dataset has another table.
    """
    for dataset_id in sorted(dataset_ids):
        pin_dataset(session, job.project, dataset_id, table=tables.get(dataset_id))
    if job.model_version is not None:
        pin_version(session, job.project, job.model_name, job.model_version)


def check_limits(
    session: Session, project: str, *, max_queued: int | None, max_bytes: int | None
) -> None:
    """Refuse the job that was queued if it exceeds a limit of its project; arguments as of `Jobs.submit`.

    Raises:
        LimitError: as many jobs of the project wait already, or it would store too much.
    """
    hold_project(session, project)  # so that no two count the same jobs
    if max_queued is not None:
        _check_queue(session, project, max_queued)
    if max_bytes is not None:
        check_storage(session, project, max_bytes)


def _check_queue(session: Session, project: str, max_queued: int) -> None:
    """Refuse the job that was queued if it makes the queue too long.

    Raises:
        LimitError: ``limit-queued-jobs``.
    """
    waiting = session.scalar(
        select(func.count())
        .select_from(JobRow)
        .where(JobRow.project == project, JobRow.state == JobState.QUEUED)
        .where(JobRow.role.is_distinct_from(JobRole.CHILD))
    )
    if (waiting or 0) > max_queued:
        raise LimitError("limit-queued-jobs", f"{max_queued} jobs wait already; try again later.")


def _check_children(session: Session, parent: JobRow) -> None:
    """Refuse to resume a parent while many children of others wait for the same workers; the project is held.

    Raises:
        LimitError: ``limit-queued-jobs``.
    """
    if _is_held_back(session, parent):
        raise LimitError(
            "limit-queued-jobs",
            f"{MOST_WAITING} children of other jobs wait already; try again later.",
        )


def _is_held_back(session: Session, parent: JobRow) -> bool:
    """Return whether many children of other jobs of the project wait for the same workers.

    One of a higher priority than all of these is held back by twice as many, as it would start its children.
    """
    wanted = session.scalar(select(WANTED).where(JobRow.id == parent.id))
    waiting, highest = session.execute(
        select(func.count(), func.max(func.coalesce(JobRow.priority, 0)))
        .where(JobRow.project == parent.project, JobRow.state == JobState.QUEUED)
        .where(JobRow.role == JobRole.CHILD, JobRow.parent_id != parent.id)
        .where(WANTED.in_([wanted]))
    ).one()
    urgent = waiting > 0 and (parent.priority or 0) > highest
    return bool(waiting >= (2 * MOST_WAITING if urgent else MOST_WAITING))
