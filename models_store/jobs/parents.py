"""Parents inside a transaction: their steps, which follow from the rows of their children alone.

A parent has no process of its own. Whoever looks for work takes the steps that are due, before it
claims a job: a step locks the parent, reads its children, and starts more of them, or ends it. So
each step is taken once, and one that was interrupted is due still. Locks are taken from the parent
to its children, never the other way round: what ends a child leaves its parent alone.

A step is a transaction of its own. One that cannot be taken is put off, longer each time, and keeps
neither other parents nor claims waiting.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import TypeVarTuple

from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased, defer

from models_store.database.clock import db_now, moment
from models_store.database.database import Database
from models_store.database.dialects import constant, is_one_of
from models_store.database.ids import new_id
from models_store.database.schema import JobDatasetRow, JobEventRow, JobRow, TurnRow
from models_store.database.usage import json_bytes
from models_store.errors import StoreError
from models_store.job_states import (
    FINAL_STATES,
    UNFINISHED_STATES,
    EventKind,
    JobKind,
    JobRole,
    JobState,
)
from models_store.jobs.retries import Ending, Failure, wait_s
from models_store.jobs.rows import append, fail, move, tell_if_unsuited
from models_store.plans.plan import MAX_CHILDREN, Child, Finish, GiveUp, NewChild, Start, Step
from models_store.plans.steps import account_of, next_step
from models_store.records import NewVersion
from models_store.rows.idempotency import forget_resource
from models_store.rows.versions import add_version

Ts = TypeVarTuple("Ts")

log = logging.getLogger(__name__)

_FAULT = GiveUp("internal", "An unexpected fault of the service; its log tells more.")
# Parents, and children read or started, of one look: a claim stays short, and keeps others from
# writing no longer than a moment. A child whose request is larger counts as several.
_MOST_STEPS, _MOST_CHILDREN, _CHILD_BYTES = 16, 64, 2**16
_CHILD = aliased(JobRow)
_PARENT = (
    select(JobRow.id)
    .where(exists().where(_CHILD.id == bindparam("child_id"), _CHILD.parent_id == JobRow.id))
    .with_for_update(of=JobRow)
)
_JOB = JobRow.__table__.c
_FAILURES = (
    select(_JOB.failures)
    .where(_JOB.id == bindparam("job_id"), is_one_of(_JOB.state, UNFINISHED_STATES))
    .with_for_update(skip_locked=True)
)
_PUT_OFF = (
    update(JobRow.__table__)
    .where(_JOB.id == bindparam("of_job"))
    .values(failures=bindparam("failed"), not_before=db_now(bindparam("pause_s", type_=Float)))
)
_FAILURES_KEPT = 10  # the pause grows no longer by then


def due_parents(query: Select[*Ts]) -> Select[*Ts]:
    """Restrict to parents with a step to take, projects in turn, then in the order of submission."""
    turns = query.outerjoin(TurnRow, TurnRow.project == JobRow.project)
    return turns.where(_IS_DUE).order_by(TurnRow.taken_at.nulls_first(), JobRow.position)


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


def take_steps(database: Database) -> None:
    """Take the steps that are due, of as many parents as a short look for work allows.

    Raises:
        DatabaseError: the database cannot be used.
    """
    with database.read() as session:
        due = session.connection().scalars(_due()).all()
    children = 0
    for job_id in due:
        children += _take(database, job_id)
        if children >= _MOST_CHILDREN:
            return


@cache
def _due() -> Select[str]:
    # Seldom is there one, and a look for columns takes half as long as one for rows.
    return due_parents(select(JobRow.id)).limit(_MOST_STEPS)


@cache
def _locked() -> Select[JobRow]:
    """Return the query of a parent that is due still, unless another takes its step."""
    query = select(JobRow).where(JobRow.id == bindparam("job_id"), _IS_DUE)
    return query.with_for_update(of=JobRow, skip_locked=True)


def _take(database: Database, job_id: str) -> int:
    """Take the step of a parent, or put it off; return how many children it read or started."""
    try:
        return database.transact(_step, job_id)
    except StoreError as error:
        log.warning("the next step of %s is put off: %s", job_id, error)
    except Exception:
        log.exception("the next step of %s is put off", job_id)
    database.transact(_put_off, job_id)
    return 0


def _step(session: Session, job_id: str) -> int:
    row = session.scalars(_locked(), {"job_id": job_id}).one_or_none()
    if row is None:
        return 0
    children = _take_step(session, row)
    row.failures, row.not_before = [], None
    return children


def _put_off(session: Session, job_id: str) -> None:
    """Have a parent wait for its step, longer each time that it fails in a row."""
    connection = session.connection()
    failures = connection.scalar(_FAILURES, {"job_id": job_id})
    if failures is None:  # it ended, or another takes the step
        return
    failure = Failure(attempt=0, worker="", ending=Ending.ENVIRONMENT.value, code=None)
    failures = [*failures, failure][-_FAILURES_KEPT:]
    values = {"of_job": job_id, "failed": failures, "pause_s": wait_s(failures)}
    connection.execute(_PUT_OFF, values)


def _take_step(session: Session, row: JobRow) -> int:
    """Take the step of a locked parent; return how many children it read or started, large ones as several."""
    children = children_of(session, row.id)
    if row.state == JobState.QUEUED:
        move(session, row, JobState.RUNNING)
    known = [_known(child) for child in children]
    step = _notice(session, row, children, known)
    work = _work(children)
    if not all(child.ended for child in known):
        return work
    if row.cancel_requested:
        _end(session, row, JobState.CANCELLED, children)
        return work
    match step or _planned(row, known):
        case Start(children=new):
            work += _work(_start(session, row, new, started=len(known)))
        case Finish(child=child):
            _finish(session, row, child, children)
        case GiveUp(code=code, detail=detail):
            _uncover(children)
            fail(session, row, code=code, detail=detail)
    return work


def _work(children: Sequence[JobRow]) -> int:
    return sum(1 + child.metadata_bytes // _CHILD_BYTES for child in children)


def _planned(row: JobRow, children: list[Child]) -> Step:
    try:
        return next_step(JobKind(row.kind), row.request, children)
    except Exception:
        # One plan that cannot be carried out must not keep all others from being.
        log.exception("the next step of %s cannot be reported", row.id)
        return _FAULT


def _notice(
    session: Session, row: JobRow, children: Sequence[JobRow], known: Sequence[Child]
) -> GiveUp | None:
    """Tell the parent's caller of children that have ended since the last step.

    Returns:
        The step that ends a parent whose plan cannot be told.
    """
    news = False
    for child, one in zip(children, known, strict=True):
        if one.ended and not child.noticed:
            child.noticed = news = True
            append(session, row, EventKind.CHILD, one.told())
    if not news and row.metrics:
        return None
    try:
        account = account_of(
            JobKind(row.kind), row.request, list(known), elapsed_s=_elapsed_s(row, children)
        )
    except Exception:
        log.exception("what %s has done cannot be reported", row.id)
        return _FAULT
    row.metrics, row.progress = account.metrics, account.progress
    return None


def _elapsed_s(row: JobRow, children: Sequence[JobRow]) -> float | None:
    """Return the seconds from the start of a parent to the last end of a child."""
    ends = [child.finished_at for child in children if child.finished_at is not None]
    if row.started_at is None or not ends:
        return None
    return max(0.0, (max(ends) - row.started_at).total_seconds())


def _start(session: Session, row: JobRow, new: Sequence[NewChild], *, started: int) -> list[JobRow]:
    if started + len(new) > MAX_CHILDREN:
        fail(session, row, code="internal", detail="Its plan has more children than a job may.")
        return []
    started_now = [_child_of(row, one) for one in new]
    session.add_all(started_now)
    session.flush()  # in the order of the plan, and before their events
    for child in started_now:
        append(session, child, EventKind.STATE, {"state": JobState.QUEUED.value, "attempt": 0})
        tell_if_unsuited(session, child)
    return started_now


def _child_of(row: JobRow, one: NewChild) -> JobRow:
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
        request=one.request,
        request_id=row.request_id,
        traceparent=row.traceparent,
        metadata_bytes=json_bytes(one.request),
    )


def _finish(session: Session, row: JobRow, child: Child, children: Sequence[JobRow]) -> None:
    """Make the product of a child the version or the result of the parent, and succeed."""
    product = child.product or {}
    if child.kind.makes_version:
        labels = {"description": row.description, "tags": row.tags}
        new = NewVersion(**{**product, **labels})
        version = add_version(session, new, project=row.project, name=row.model_name, job_id=row.id)
        row.model_version = version.version
        row.metrics = {**new.metrics, **(row.metrics or {})}
    else:
        row.result = product["result"]
        row.metrics = {**(row.metrics or {}), **child.metrics}
    made = next(one for one in children if one.id == child.id)
    made.product = None  # the parent has it now
    if row.progress is not None:
        row.progress = {**row.progress, "fraction": 1.0, "eta_seconds": 0.0}
    _end(session, row, JobState.SUCCEEDED, children)


def _end(session: Session, row: JobRow, state: JobState, children: Sequence[JobRow]) -> None:
    _uncover(children)
    move(session, row, state)


def _uncover(children: Sequence[JobRow]) -> None:
    """Count what children store as theirs: the reservation of their parent ends with it."""
    for child in children:
        child.covered = False


def cancel_children(session: Session, row: JobRow) -> None:
    """Cancel the children of a locked parent; the parent itself once none of them runs.

    The parent then waits for a running child to stop, after which its step cancels it.
    """
    children = children_of(session, row.id, unfinished=True, lock=True)
    for child in children:
        child.cancel_requested = True
        if child.state == JobState.QUEUED:
            move(session, child, JobState.CANCELLED)
    if all(child.state in FINAL_STATES for child in children):
        _end(session, row, JobState.CANCELLED, children_of(session, row.id))


def resume_children(session: Session, row: JobRow) -> None:
    """Queue those children of a locked parent again that its plan waits for.

    These are the cancelled ones, and the failed ones of the last stage; the other failures are part
    of what was tried.
    """
    children = children_of(session, row.id, lock=True)
    last = max((_stage(child) for child in children), default=0)
    for child in children:
        child.covered = True
        failed = child.state == JobState.FAILED and _stage(child) == last
        if child.state == JobState.CANCELLED or failed:
            requeue(session, child)


def requeue(session: Session, row: JobRow) -> None:
    """Queue a locked job again that was cancelled or has failed."""
    row.cancel_requested = False
    row.noticed = False
    row.failures = []
    row.run_seconds = 0.0
    row.error_code = row.error_detail = None
    row.finished_at = None
    row.queued_at = moment(session)
    move(session, row, JobState.QUEUED)
    tell_if_unsuited(session, row)


def children_of(
    session: Session, job_id: str, *, unfinished: bool = False, lock: bool = False
) -> list[JobRow]:
    """Return the children of a job, in the order in which they were started, without their requests.

    Args:
        session: Transaction that holds the lock of the parent, if it is to change anything.
        job_id: Id of the parent.
        unfinished: Leave out those that have ended.
        lock: Keep others from changing them until the transaction ends.
    """
    return list(session.scalars(_children(unfinished, lock), {"job_id": job_id}))


@cache
def _children(unfinished: bool, lock: bool) -> Select[JobRow]:  # noqa: FBT001 - as of `children_of`
    query = select(JobRow).where(
        JobRow.parent_id == bindparam("job_id"), JobRow.role == constant(JobRole.CHILD)
    )
    # No step needs their requests, which may have a megabyte each.
    query = query.options(defer(JobRow.request, raiseload=True))
    if unfinished:
        query = query.where(is_one_of(JobRow.state, UNFINISHED_STATES))
    query = query.order_by(JobRow.position).execution_options(populate_existing=True)
    return query.with_for_update() if lock else query


def lock_parent(session: Session, job_id: str) -> None:
    """Lock the parent of a child, before the child itself is."""
    session.execute(_PARENT, {"child_id": job_id})


def _known(row: JobRow) -> Child:
    place = row.place or {}
    return Child(
        id=row.id,
        kind=JobKind(row.kind),
        stage=place["stage"],
        number=place["number"],
        state=JobState(row.state),
        metrics=row.metrics or {},
        product=row.product,
        error_code=row.error_code,
        error_detail=row.error_detail,
    )


def _stage(row: JobRow) -> int:
    return int((row.place or {})["stage"])


def delete_with_children(session: Session, row: JobRow) -> list[str]:
    """Delete a locked job that nothing needs, and its children; return their ids."""
    children = children_of(session, row.id, lock=True) if row.role == JobRole.PARENT else []
    for one in (*children, row):
        forget_resource(session, one.project, one.id)
        for table in (JobEventRow, JobDatasetRow):
            session.execute(
                delete(table).where(table.job_id == one.id),
                execution_options={"synchronize_session": False},
            )
        session.delete(one)
    return [one.id for one in (*children, row)]
