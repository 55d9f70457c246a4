"""Place of a waiting job in the queue, and about how long it waits."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models_store.database.schema import JobRow
from models_store.job_states import JobRole, JobState
from models_store.jobs.rows import within_project

_RECENT_JOBS = 50


@dataclass(frozen=True, kw_only=True)
class QueuePlace:
    """Place of a job that waits.

    Attributes:
        position: Place among all jobs that wait, from 1 on.
        starts_in_s: About when a worker takes it, in seconds from now; None: not known.
    """

    position: int
    starts_in_s: float | None


def place_of(session: Session, row: JobRow) -> QueuePlace | None:
    """Return the place of a job in the queue; None if it does not wait for a worker.

    Projects take turns, so of each other project as many jobs come first as this job's own project has in front
    of it, and more or fewer by the jobs that both run. When it begins follows from how long the jobs took that
    ended last, and from how many run at a time.
    """
    if row.state != JobState.QUEUED or row.role == JobRole.PARENT:
        return None
    is_claimed = JobRow.role.is_distinct_from(JobRole.PARENT)
    states = {JobState.QUEUED: dict[str, int](), JobState.RUNNING: dict[str, int]()}
    counts = (
        select(JobRow.state, JobRow.project, func.count())
        .where(JobRow.state.in_(states), is_claimed)
        .group_by(JobRow.state, JobRow.project)
    )
    for state, project, count in session.execute(counts):
        states[JobState(state)][project] = count
    running = states[JobState.RUNNING]
    ahead = _ahead_in_project(session, row)
    level = ahead + running.get(row.project, 0)
    others = sum(
        min(count, max(0, level - running.get(project, 0)))
        for project, count in states[JobState.QUEUED].items()
        if project != row.project
    )
    position = 1 + ahead + others
    recent = (
        select(JobRow.run_seconds)
        .where(JobRow.state == JobState.SUCCEEDED, JobRow.finished_at.is_not(None), is_claimed)
        .order_by(JobRow.finished_at.desc())
        .limit(_RECENT_JOBS)
        .subquery()
    )
    usual_s = session.scalar(select(func.avg(recent.c.run_seconds)))
    slots = sum(running.values())
    starts_in_s = None if usual_s is None or slots == 0 else position * float(usual_s) / slots
    return QueuePlace(position=position, starts_in_s=starts_in_s)


def _ahead_in_project(session: Session, row: JobRow) -> int:
    """Return how many jobs of its own project come before a job."""
    ranked = (
        select(JobRow.id, func.row_number().over(order_by=within_project()).label("place"))
        .where(
            JobRow.project == row.project,
            JobRow.state == JobState.QUEUED,
            JobRow.role.is_distinct_from(JobRole.PARENT),
        )
        .subquery()
    )
    place = session.scalar(select(ranked.c.place).where(ranked.c.id == row.id))
    return 0 if place is None else place - 1
