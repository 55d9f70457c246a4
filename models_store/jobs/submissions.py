"""Submissions of jobs inside a transaction: repeated ones, and the number that may wait."""

from dataclasses import replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models_store.database.schema import JobRow
from models_store.errors import LimitError
from models_store.job_states import Job, JobRole, JobState, Submitted
from models_store.jobs.rows import find, to_job


def replayed(session: Session, project: str, job_id: str) -> Submitted:
    """Return the job that an earlier request with the same key was answered with."""
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
        last_event=1,
    )


def check_queue(session: Session, project: str, max_queued: int) -> None:
    """Refuse the job that was added if it makes the queue too long.

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
