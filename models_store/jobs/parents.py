"""Parents: jobs whose work is done by children, which any worker claims like others.

A parent has no process. When none of its children is unfinished, its next step follows from its row and theirs
(`models_store.plans`): start these, make the product of that one the version or the result, give up. Whoever
ends a child takes it, in the same transaction; a look for work takes those that a failure left. Locks are taken from a parent
to its children: whoever ends a child locks its parent first.
"""

import logging
from collections.abc import Sequence
from functools import partial

from sqlalchemy import exists, func, or_, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session, aliased

from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.dialects import constant, is_one_of
from models_store.database.ids import new_id
from models_store.database.schema import JobRow
from models_store.errors import DatabaseError, LimitError
from models_store.job_states import (
    FINAL_STATES,
    UNFINISHED_STATES,
    EventKind,
    JobKind,
    JobRole,
    JobState,
)
from models_store.jobs.retries import Ending, Failure
from models_store.jobs.rows import (
    add,
    append,
    count_files,
    count_rows,
    fail,
    keep_result,
    move,
    requeue,
)
from models_store.plans.parts import parts_account, parts_step
from models_store.plans.plan import MAX_CHILDREN, Child, Finish, GiveUp, NewChild, Start, Step
from models_store.plans.search import search_account, search_step
from models_store.records import NewVersion
from models_store.rows.versions import add_version

log = logging.getLogger(__name__)

MOST_OPEN = 20
"""Parents of a project that may be unfinished: each may have 64 children, which every look for work sorts."""

# A step that fails is tried again after a while, so many times in all.
_AGAIN_S = 60.0
_MOST_FAILURES = 5
_MOST_STEPS = 16
_FAULT = GiveUp("internal", "An unexpected fault of the service; its log tells more.")


def check_open(session: Session, project: str) -> None:
    """Refuse one more parent of a project that has many; the project is held.

    Raises:
        LimitError: `limit-queued-jobs`.
    """
    mine = (
        JobRow.project == project,
        JobRow.role == JobRole.PARENT,
        JobRow.state.in_(UNFINISHED_STATES),
    )
    if (session.scalar(select(func.count()).where(*mine)) or 0) > MOST_OPEN:
        raise LimitError(
            "limit-queued-jobs",
            f"{MOST_OPEN} searches or split jobs of the project have not ended; try again later.",
        )


def advance_all(database: Database) -> None:
    """Take the steps that are due and that nobody took; one that fails keeps no other waiting."""
    child = aliased(JobRow)
    at_work = exists().where(
        child.parent_id == JobRow.id,
        child.role == constant(JobRole.CHILD),
        is_one_of(child.state, UNFINISHED_STATES),
    )
    due = select(JobRow.id).where(
        JobRow.role == constant(JobRole.PARENT),
        is_one_of(JobRow.state, UNFINISHED_STATES),
        or_(JobRow.not_before.is_(None), JobRow.not_before <= db_now()),
        or_(JobRow.state == constant(JobState.QUEUED), ~at_work),
    )
    with database.read() as session:
        found = list(session.scalars(due.order_by(JobRow.queued_at).limit(_MOST_STEPS)))
    for job_id in found:
        try:
            database.transact(_advance_free, job_id)
        except DatabaseError as error:
            log.warning("the next step of %s is left to the next look for work: %s", job_id, error)
        except Exception:
            log.exception("the next step of %s failed", job_id)
            database.transact(_count_failure, job_id)


def _advance_free(session: Session, job_id: str) -> None:
    """Take the next step of a parent, unless another has it."""
    query = select(JobRow).where(JobRow.id == job_id)
    row = session.scalar(query.with_for_update(skip_locked=True))
    if row is not None:
        advance(session, row)


def end_child(session: Session, child: JobRow) -> None:
    """Tell the parent of a child that has ended, and take the step that follows; the parent is locked."""
    row = session.scalars(select(JobRow).where(JobRow.id == child.parent_id)).one()
    append(session, row, EventKind.CHILD, _known(child).told())
    try:
        with session.begin_nested():
            advance(session, row)
    except (OperationalError, InterfaceError):
        raise  # the transaction is run again, or the database is away
    except Exception:
        log.exception("the next step of %s is left to the next look for work", row.id)
        session.refresh(row)


def advance(session: Session, row: JobRow) -> None:
    """Take the next step of a locked parent, if none of its children is unfinished."""
    if row.state in FINAL_STATES:
        return
    session.flush()
    children = children_of(session, row.id)
    step = _look(row, children)
    at_work = any(child.state not in FINAL_STATES for child in children)
    if row.cancel_requested:
        if not at_work:
            move(session, row, JobState.CANCELLED)
        return
    if row.state == JobState.QUEUED:
        move(session, row, JobState.RUNNING)
    if at_work:
        return
    _take(session, row, children, step)


def _take(session: Session, row: JobRow, children: Sequence[JobRow], step: Step) -> None:
    """Take the step of a running parent none of whose children is unfinished."""
    row.failures = []
    match step:
        case Start(children=new) if len(children) + len(new) > MAX_CHILDREN:
            fail(session, row, code="internal", detail="Its plan has more children than a job may.")
        case Start(children=new):
            for one in new:
                add(session, _child_of(row, one))
        case Finish(child=child):
            _finish(session, row, child, children)
        case GiveUp(code=code, detail=detail):
            fail(session, row, code=code, detail=detail)


def _look(row: JobRow, children: Sequence[JobRow]) -> Step:
    """Tell the caller of a parent how far it is; return its next step once no child is unfinished.

    One plan that cannot be carried out ends its own job, and keeps no other from going on.
    """
    known = [_known(child) for child in children]
    kind = JobKind(row.kind)
    account = search_account if kind is JobKind.TRAINING else parts_account
    try:
        row.metrics, row.progress = account(row.request, known, elapsed_s=_elapsed_s(row, children))
        if not all(one.ended for one in known):
            return _FAULT
        if kind is JobKind.TRAINING:
            return search_step(row.request, known)
        return parts_step(kind, row.request, known)
    except Exception:
        log.exception("the next step of %s cannot be worked out", row.id)
        return _FAULT


def _finish(session: Session, row: JobRow, child: Child, children: Sequence[JobRow]) -> None:
    """Make the product of a child the version or the result of the parent, and succeed."""
    product = child.product()
    if child.kind.makes_version:
        new = NewVersion(**{**product, "description": row.description, "tags": row.tags})
        version = add_version(session, new, project=row.project, name=row.model_name, job_id=row.id)
        row.model_version = version.version
        row.metrics = {**new.metrics, **(row.metrics or {})}
    else:
        keep_result(row, product["result"])
        row.metrics = {**(row.metrics or {}), **child.metrics}
        count_rows(session, row, product.get("counts"))
    if row.progress is not None:
        row.progress = {**row.progress, "fraction": 1.0, "eta_seconds": 0.0}
    count_files(row)
    for one in children:
        if one.id == child.id:  # the parent has its file now
            one.product = None
            count_files(one)
    move(session, row, JobState.SUCCEEDED)


def cancel_children(session: Session, row: JobRow) -> None:
    """Cancel the children of a locked parent that wait, ask those that run to stop, and go on from there."""
    for child in children_of(session, row.id, lock=True):
        if child.state in FINAL_STATES:
            continue
        child.cancel_requested = True
        if child.state == JobState.QUEUED:
            move(session, child, JobState.CANCELLED)
            append(session, row, EventKind.CHILD, _known(child).told())
    advance(session, row)


def resume_children(session: Session, row: JobRow) -> None:
    """Queue those children of a locked parent again that its plan waits for.

    These are the cancelled ones, and the failed ones of the last stage; the other failures are part
    of what was tried.
    """
    children = children_of(session, row.id, lock=True)
    last = max((_stage(child) for child in children), default=0)
    for child in children:
        failed = child.state == JobState.FAILED and _stage(child) == last
        if child.state == JobState.CANCELLED or failed:
            requeue(session, child)


def children_of(session: Session, job_id: str, *, lock: bool = False) -> list[JobRow]:
    """Return the children of a locked parent, in the order in which they were started."""
    query = (
        select(JobRow)
        .where(JobRow.parent_id == job_id, JobRow.role == constant(JobRole.CHILD))
        .order_by(JobRow.position)
        .execution_options(populate_existing=True)
    )
    return list(session.scalars(query.with_for_update() if lock else query))


def _stage(row: JobRow) -> int:
    return int((row.place or {})["stage"])


def _known(row: JobRow) -> Child:
    place, error = row.place or {}, row.error or {}
    return Child(
        id=row.id,
        kind=JobKind(row.kind),
        stage=place["stage"],
        number=place["number"],
        state=JobState(row.state),
        metrics=row.metrics or {},
        product=partial(_product_of, row),
        error_code=error.get("code"),
        error_detail=error.get("detail"),
    )


def _product_of(row: JobRow) -> dict[str, object]:
    return row.product or {}


def _elapsed_s(row: JobRow, children: Sequence[JobRow]) -> float | None:
    """Return the seconds from the start of a parent to the last end of a child."""
    ends = [child.finished_at for child in children if child.finished_at is not None]
    if row.started_at is None or not ends:
        return None
    return max(0.0, (max(ends) - row.started_at).total_seconds())


def _child_of(row: JobRow, one: NewChild) -> JobRow:
    return JobRow(
        id=new_id("job"),
        project=row.project,
        kind=one.kind,
        role=JobRole.CHILD,
        parent_id=row.id,
        place={"stage": one.stage, "number": one.number},
        queued_at=row.queued_at,  # it keeps the place of its parent in the queue
        priority=row.priority,
        accelerator=row.accelerator,
        memory_bytes=row.memory_bytes,
        model_name=row.model_name,
        model_version=row.model_version,
        dataset_id=row.dataset_id,
        request=one.request,
        origin=row.origin,
    )


def _count_failure(session: Session, job_id: str) -> None:
    """Put a step off that failed, by an unexpected fault alone; after some failures the parent fails."""
    query = select(JobRow).where(JobRow.id == job_id, JobRow.state.in_(UNFINISHED_STATES))
    row = session.scalar(query.with_for_update())
    if row is None:
        return
    failure = Failure(
        attempt=row.attempt, worker="", ending=Ending.ENVIRONMENT.value, code=_FAULT.code
    )
    row.failures = [*row.failures, dict(failure)]
    if len(row.failures) < _MOST_FAILURES:
        row.not_before = db_now(_AGAIN_S)
        return
    if row.state == JobState.QUEUED:
        move(session, row, JobState.RUNNING)
    fail(session, row, code=_FAULT.code, detail=None)
