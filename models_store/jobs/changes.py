"""Changes of jobs that callers ask for, inside a transaction: cancelled, and queued again."""

from typing import Any

from sqlalchemy.orm import Session

from models_store.errors import JobFinalError, JobNotResumableError
from models_store.job_states import RESUMABLE_STATES, EventKind, Job, JobRole, JobState
from models_store.jobs.parents import cancel_children, requeue, resume_children
from models_store.jobs.rows import append, datasets_of, find, move, to_job
from models_store.jobs.submissions import check_limits, pin_inputs


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
        JobNotResumableError: it is in another state, or a child.
        LimitError: as many jobs of the project wait already, or it would store too much.
    """
    row = find(session, project, job_id, lock=True)
    if row.state not in RESUMABLE_STATES or row.role == JobRole.CHILD:
        raise JobNotResumableError(job_id, state=row.state, parent_id=row.parent_id)
    pin_inputs(session, row, datasets_of(session, job_id))
    if row.role == JobRole.PARENT:
        resume_children(session, row)
    requeue(session, row)
    session.flush()
    check_limits(session, project, max_queued=max_queued, max_bytes=max_bytes)
    return to_job(row, request)
