"""Steps of parents, which follow from the rows of their children alone.

A parent has no process of its own. Whoever looks for work takes the steps that are due, before it
claims a job: a step starts children, or ends the parent. What it does is worked out from what is read, and
done under the lock of the parent, if no other child has ended since: so each step is taken once, and one
that was interrupted is due still. What its caller is told of those that have ended holds though others
end meanwhile. Locks are taken from the parent to its children, never the other way round: what ends a
child leaves its parent alone.

A project that has many children waiting starts no more of them, but for more urgent work or other workers:
every look for work sorts all that waits. Projects take turns, one step each.

A step is a transaction of its own. One that cannot be taken is put off, longer each time, and keeps
neither other parents nor claims waiting. After 20 times in a row, about an hour, the parent fails; times
at which the database could not be used do not count.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import TypeVarTuple

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, func, or_, select
from sqlalchemy.orm import Session, aliased, undefer

from models_store.database.base import JsonObject
from models_store.database.clock import db_now, moment
from models_store.database.database import Database
from models_store.database.dialects import constant, is_one_of
from models_store.database.ids import new_id
from models_store.database.schema import JobRow, TurnRow
from models_store.database.usage import json_bytes
from models_store.errors import DatabaseError, StorageFullError
from models_store.job_states import (
    FINAL_STATES,
    UNFINISHED_STATES,
    EventKind,
    JobRole,
    JobState,
)
from models_store.jobs.held_jobs import taken
from models_store.jobs.parents.children import (
    MOST_WAITING,
    WANTED,
    children_of,
    crowded_projects,
    end_parent,
    stop_children,
    uncover,
)
from models_store.jobs.parents.planning import ParentPlan, ended_of, planned, work_of
from models_store.jobs.retries import OUTSIDE_LIMIT, Ending, Failure, wait_s
from models_store.jobs.rows import append, fail, move, tell_if_unsuited
from models_store.plans.plan import (
    MAX_CHILDREN,
    Child,
    Finish,
    GiveUp,
    NewChild,
    Start,
)
from models_store.records import NewVersion
from models_store.rows.versions import add_version

Ts = TypeVarTuple("Ts")

log = logging.getLogger(__name__)

_PUT_OFF = (
    "Its next step could not be taken, for a fault of the service; its log tells more."
    " It is tried again in {pause_s:g} s."
)
_GIVEN_UP = (
    "Its next step could not be taken {times} times in a row, for a fault of the service; its log tells"
    " more. When that is mended, the job can be resumed."
)
# Parents, and children read or started, of one look, beside the first parent of each project: a claim
# stays short, and keeps others from writing no longer than a moment.
_MOST_STEPS, _MOST_CHILDREN = 16, 64
_STOPPING_S = 10.0  # that a child has before it is looked at again
_CHILD = aliased(JobRow)
_UNFINISHED = (
    select(JobRow.position)
    .where(JobRow.id == bindparam("job_id"), is_one_of(JobRow.state, UNFINISHED_STATES))
    .with_for_update(skip_locked=True)
)


def due_parents(query: Select[*Ts]) -> Select[*Ts]:
    """Restrict to parents with a step to take, the first one of each project, then the second ones.

    Of a project with many children that wait, those that would start their first ones for the same workers
    are left out, unless their priority is higher than that of all these. One that was resumed has some.
    """
    # Worked out once, whatever the statistics of the table say.
    crowded = crowded_projects().cte().prefix_with("MATERIALIZED", dialect="postgresql")
    turns = query.outerjoin(TurnRow, TurnRow.project == JobRow.project).outerjoin(
        crowded, and_(crowded.c.project == JobRow.project, crowded.c.wanted == WANTED)
    )
    priority = func.coalesce(JobRow.priority, 0)
    may_start = or_(
        JobRow.state == constant(JobState.RUNNING),
        crowded.c.project.is_(None),
        exists().where(_CHILD.parent_id == JobRow.id, _CHILD.role == constant(JobRole.CHILD)),
        and_(crowded.c.jobs < 2 * MOST_WAITING, priority > crowded.c.priority),
    )
    in_project = func.row_number().over(
        partition_by=JobRow.project, order_by=(priority.desc(), JobRow.position)
    )
    return turns.where(_IS_DUE, may_start).order_by(
        in_project, TurnRow.taken_at.nulls_first(), JobRow.position
    )


def _is_due() -> ColumnElement[bool]:
    of_it = and_(_CHILD.parent_id == JobRow.id, _CHILD.role == constant(JobRole.CHILD))
    news = exists().where(of_it, is_one_of(_CHILD.state, FINAL_STATES), _CHILD.noticed.is_(False))
    at_work = exists().where(of_it, is_one_of(_CHILD.state, UNFINISHED_STATES))
    return and_(
        JobRow.role == constant(JobRole.PARENT),
        or_(
            JobRow.state == constant(JobState.QUEUED),
            and_(JobRow.state == constant(JobState.RUNNING), or_(news, ~at_work)),
        ),
        or_(JobRow.not_before.is_(None), JobRow.not_before <= db_now()),
    )


_IS_DUE = _is_due()
_PARENT = (
    select(JobRow).options(undefer(JobRow.request)).where(JobRow.id == bindparam("job_id"), _IS_DUE)
)


def take_steps(database: Database) -> None:
    """Take the steps that are due, of as many parents as a short look for work allows.

    Raises:
        DatabaseError: the database cannot be used.
    """
    with database.read() as session:
        due = session.connection().execute(_due()).all()
    children, served = 0, set[str]()
    for job_id, project in due:
        if children >= _MOST_CHILDREN and project in served:
            return
        children += _take(database, job_id)
        served.add(project)


@cache
def _due() -> Select[str, str]:
    # Seldom is there one, and a look for columns takes half as long as one for rows.
    return due_parents(select(JobRow.id, JobRow.project)).limit(_MOST_STEPS)


@cache
def _locked() -> Select[JobRow]:
    """Return the query of a parent that is due still, unless another takes its step."""
    return _lock_of_due(select(JobRow))


@cache
def _still_due() -> Select[int]:
    """Return the query of the position of such a parent."""
    return _lock_of_due(select(JobRow.position))


def _lock_of_due(query: Select[*Ts]) -> Select[*Ts]:
    due = query.where(JobRow.id == bindparam("job_id"), _IS_DUE)
    return due.with_for_update(of=JobRow, skip_locked=True)


def _take(database: Database, job_id: str) -> int:
    """Take the step of a parent, or put it off; return how many children it read or started."""
    try:
        with database.read() as session:
            row = session.scalar(_PARENT, {"job_id": job_id})
            if row is None:
                return 0
            plan = planned(session, row, children_of(session, job_id))
        return database.transact(_step, job_id, plan)
    except (DatabaseError, StorageFullError) as error:
        log.warning("the next step of %s is put off: %s", job_id, error)
        database.transact(_put_off, job_id, Ending.ENVIRONMENT)
    except Exception:
        log.exception("the next step of %s is put off", job_id)
        if database.transact(_put_off, job_id, Ending.CRASHED) >= OUTSIDE_LIMIT:
            _try_to_give_up(database, job_id)
    return 0


def _try_to_give_up(database: Database, job_id: str) -> None:
    """Let a parent fail whose step fails again and again; one that cannot is merely put off."""
    try:
        database.transact(_give_up, job_id)
    except Exception:
        log.exception("%s cannot be given up", job_id)


def _put_off(session: Session, job_id: str, ending: Ending) -> int:
    """Have a parent wait for its step, longer each time; return how often in a row its own fault was why.

    Of several who could not take a step at once, the first puts it off.
    """
    position = session.connection().scalar(_still_due(), {"job_id": job_id})
    if position is None:
        return 0
    failure = Failure(attempt=0, worker="", ending=ending.value, code=None)
    with taken(session, position) as row:
        failures = [*(Failure(**one) for one in row.failures), failure][-OUTSIDE_LIMIT:]  # type: ignore[typeddict-item]  # written as one
        pause_s = wait_s(failures)
        row.failures = [dict(one) for one in failures]
        row.not_before = moment(session, later_s=pause_s)
        if ending is Ending.CRASHED:
            append(session, row, EventKind.MESSAGE, {"text": _PUT_OFF.format(pause_s=pause_s)})
    return sum(one["ending"] == Ending.CRASHED for one in failures)


def _give_up(session: Session, job_id: str) -> None:
    """Let a parent fail once none of its children runs; ask those that do to stop.

    One that is to be cancelled is cancelled.
    """
    position = session.connection().scalar(_UNFINISHED, {"job_id": job_id})
    if position is None:
        return
    children = stop_children(session, job_id)
    with taken(session, position) as row:
        if not all(child.state in FINAL_STATES for child in children):
            row.not_before = moment(session, later_s=_STOPPING_S)
            return
        uncover(session, children)
        session.flush()
        if row.state == JobState.QUEUED:
            move(session, row, JobState.RUNNING)
        if row.cancel_requested:
            move(session, row, JobState.CANCELLED)
        else:
            fail(session, row, code="crash_loop", detail=_GIVEN_UP.format(times=OUTSIDE_LIMIT))


def _step(session: Session, job_id: str, plan: ParentPlan) -> int:
    """Take a step that is due still; return how many children it read or started, large ones as several."""
    row = session.scalars(_locked(), {"job_id": job_id}).one_or_none()
    if row is None:
        return 0
    children = children_of(session, row.id)
    if not plan.ended.items() <= ended_of(children).items():
        return 0
    started = _take_step(session, row, children, plan)
    row.failures, row.not_before = [], None
    return plan.work + work_of(started)


def _take_step(
    session: Session, row: JobRow, children: Sequence[JobRow], plan: ParentPlan
) -> list[JobRow]:
    """Take the step of a locked parent; return the children that it started."""
    if row.state == JobState.QUEUED:
        move(session, row, JobState.RUNNING)
    _notice(session, row, children, plan)
    if len(plan.ended) < len(children):
        return []  # also if the others have ended since: the next look has news of them
    if row.cancel_requested:
        end_parent(session, row, JobState.CANCELLED, children)
        return []
    match plan.step:
        case Start(children=new):
            return _start(session, row, new, plan.requests, started=len(children))
        case Finish(child=child):
            _finish(session, row, child, plan, children)
        case GiveUp(code=code, detail=detail):
            uncover(session, children)
            fail(session, row, code=code, detail=detail)
        case None:
            pass  # children are at work
    return []


def _notice(session: Session, row: JobRow, children: Sequence[JobRow], plan: ParentPlan) -> None:
    """Tell the parent's caller of children that have ended since the last step."""
    unknown = {child.id for child in children if not child.noticed}
    news = [one for one in plan.news if one.id in unknown]
    for child in children:
        child.noticed = child.noticed or child.id in plan.ended
    for one in news:
        append(session, row, EventKind.CHILD, one.told())
    if plan.account is not None and (news or not row.metrics):
        row.metrics, row.progress = plan.account.metrics, plan.account.progress


def _start(
    session: Session,
    row: JobRow,
    new: Sequence[NewChild],
    requests: Sequence[JsonObject],
    *,
    started: int,
) -> list[JobRow]:
    if started + len(new) > MAX_CHILDREN:
        fail(session, row, code="internal", detail="Its plan has more children than a job may.")
        return []
    started_now = [_child_of(row, one, request) for one, request in zip(new, requests, strict=True)]
    for child in started_now:
        append(session, child, EventKind.STATE, {"state": JobState.QUEUED.value, "attempt": 0})
        tell_if_unsuited(session, child)
    session.add_all(started_now)  # in the order of the plan
    return started_now


def _child_of(row: JobRow, one: NewChild, request: JsonObject) -> JobRow:
    return JobRow(
        id=new_id("job"),
        project=row.project,
        kind=one.kind,
        state=JobState.QUEUED,
        role=JobRole.CHILD,
        parent_id=row.id,
        place={"stage": one.stage, "number": one.number},
        covered=True,
        priority=row.priority,
        accelerator=row.accelerator,
        memory_bytes=row.memory_bytes,
        model_name=row.model_name,
        model_version=row.model_version,
        dataset_id=row.dataset_id,
        request=request,
        request_id=row.request_id,
        traceparent=row.traceparent,
        last_event=0,
        metadata_bytes=json_bytes(request),
    )


def _finish(
    session: Session,
    row: JobRow,
    child: Child,
    plan: ParentPlan,
    children: Sequence[JobRow],
) -> None:
    """Make the product of a child the version or the result of the parent, and succeed."""
    if child.kind.makes_version:
        labelled = {**plan.version, "description": row.description, "tags": row.tags}
        at = {"project": row.project, "name": row.model_name, "job_id": row.id}
        new = NewVersion(**plan.product)
        row.model_version = add_version(session, new, labelled, **at).version
        row.metrics = {**new.metrics, **(row.metrics or {})}
    else:
        row.result = plan.product["result"]
        row.metrics = {**(row.metrics or {}), **child.metrics}
    if row.progress is not None:
        row.progress = {**row.progress, "fraction": 1.0, "eta_seconds": 0.0}
    end_parent(session, row, JobState.SUCCEEDED, children)
    made = next(one for one in children if one.id == child.id)
    made.product = made.product_bytes = None  # the parent has it now
