"""The queue: the order in which workers take jobs, the jobs that suit a worker, and the place of a job that waits."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    SQLColumnExpression,
    and_,
    exists,
    false,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.orm import Session

from models_store.database.clock import db_now
from models_store.database.dialects import constant
from models_store.database.schema import JobRow, ProjectRow, WorkerRow
from models_store.job_states import Accelerator, JobKind, JobRole, JobState
from models_store.jobs.live_workers import LIVE_S

SHORT_S = 60.0
"""Estimate below which a job comes before longer ones of its project, in seconds."""

PREFERENCE_S = 10.0
"""Seconds for which a job waits longer for the kind of worker that it prefers."""

_RECENT_JOBS, _RECENT_TRAININGS = 50, 20
_SURE_S = 10.0  # trainings of fewer seconds say little: a process starts for each


def within_project() -> tuple[SQLColumnExpression[Any], ...]:
    """Return the order of the jobs of a project: higher priorities, then short ones, then first come, first served."""
    short = func.coalesce(JobRow.estimate_s < SHORT_S, false())
    return func.coalesce(JobRow.priority, 0).desc(), short.desc(), JobRow.queued_at, JobRow.position


def waiting() -> Select[JobRow]:
    """Return the query of the next job of the queue that may be claimed now.

    Projects take turns: that with the fewest running jobs comes first, among equal ones that whose
    last turn is longest ago. Among its jobs higher priorities come first, then those of less than a minute, then
    first come, first served: a priority delays other jobs of its own project alone. No worker claims a parent.
    """
    running = (
        select(JobRow.project, func.count().label("jobs"))
        .where(JobRow.state == constant(JobState.RUNNING), is_claimed())
        .group_by(JobRow.project)
        .subquery()
    )
    due = or_(JobRow.not_before.is_(None), JobRow.not_before <= db_now())
    return (
        select(JobRow)
        .outerjoin(running, running.c.project == JobRow.project)
        .outerjoin(ProjectRow, ProjectRow.name == JobRow.project)
        .where(JobRow.state == constant(JobState.QUEUED), is_claimed(), due)
        .order_by(
            func.coalesce(running.c.jobs, 0),
            ProjectRow.turn_at.nulls_first(),
            *within_project(),
        )
        .limit(1)
    )


def is_claimed() -> ColumnElement[bool]:
    """Return the condition of jobs that workers claim: all but parents."""
    return JobRow.role.is_distinct_from(constant(JobRole.PARENT))


def is_taken(*, accelerator: bool | None, memory_bytes: int | None) -> ColumnElement[bool]:
    """Return the condition of jobs that a worker takes; arguments as of `JobWork.claim`.

    A job that prefers the other kind of worker waits some seconds for one, if one is at work.
    """
    conditions: list[ColumnElement[bool]] = [true()]
    if memory_bytes is not None:
        conditions.append(or_(JobRow.memory_bytes.is_(None), JobRow.memory_bytes <= memory_bytes))
    if accelerator is not None:
        wants = func.coalesce(JobRow.accelerator, Accelerator.NONE.value)
        others = exists().where(
            func.coalesce(WorkerRow.accelerator, false()) != accelerator,
            WorkerRow.unfit.is_(None),
            WorkerRow.seen_at > db_now(-LIVE_S),
        )
        waited = or_(JobRow.queued_at <= db_now(-PREFERENCE_S), ~others)
        if accelerator:
            conditions.append(or_(wants != Accelerator.NONE.value, waited))
        else:
            preferred = wants == Accelerator.PREFERRED.value
            conditions.append(or_(wants == Accelerator.NONE.value, and_(preferred, waited)))
    return and_(*conditions)


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
    states = {JobState.QUEUED: dict[str, int](), JobState.RUNNING: dict[str, int]()}
    counts = (
        select(JobRow.state, JobRow.project, func.count())
        .where(JobRow.state.in_(states), is_claimed())
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
        .where(JobRow.state == JobState.SUCCEEDED, JobRow.finished_at.is_not(None), is_claimed())
        .order_by(JobRow.finished_at.desc())
        .limit(_RECENT_JOBS)
        .subquery()
    )
    usual_s = session.scalar(select(func.avg(recent.c.run_seconds)))
    slots = sum(running.values())
    starts_in_s = None if usual_s is None or slots == 0 else position * float(usual_s) / slots
    return QueuePlace(position=position, starts_in_s=starts_in_s)


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What earlier trainings and the queue tell of a new one.

    Attributes:
        pace: Seconds of this machine for a second of the estimates of trainings.
        trainings: Number of trainings that it follows from.
        queued: Number of jobs that wait for a worker.
    """

    pace: float
    trainings: int
    queued: int


def outlook(session: Session) -> Outlook:
    """Return what earlier trainings and the queue tell of a new one."""
    recent = (
        select(JobRow.run_seconds, JobRow.estimate_s)
        .where(
            JobRow.kind == JobKind.TRAINING,
            JobRow.state == JobState.SUCCEEDED,
            JobRow.estimate_s > 0,
            is_claimed(),
        )
        .order_by(JobRow.finished_at.desc())
        .limit(_RECENT_TRAININGS)
    )
    took = expected = _SURE_S
    trainings = 0
    for run_s, estimate_s in session.execute(recent):
        took, expected = took + run_s, expected + (estimate_s or 0.0)
        trainings += 1
    waiting = select(func.count()).where(JobRow.state == JobState.QUEUED, is_claimed())
    return Outlook(
        pace=took / expected,
        trainings=trainings,
        queued=session.scalars(waiting).one(),
    )


def _ahead_in_project(session: Session, row: JobRow) -> int:
    """Return how many jobs of its own project come before a job."""
    ranked = (
        select(JobRow.id, func.row_number().over(order_by=within_project()).label("place"))
        .where(
            JobRow.project == row.project,
            JobRow.state == JobState.QUEUED,
            is_claimed(),
        )
        .subquery()
    )
    place = session.scalar(select(ranked.c.place).where(ranked.c.id == row.id))
    return 0 if place is None else place - 1
