"""Parents inside a transaction, and their children: cancelled, resumed and deleted together.

`models_store.jobs.parents.steps` has what parents do. Locks are taken from the parent to its children, never the
other way round.
"""

from collections.abc import Sequence
from functools import cache

from sqlalchemy import (
    BigInteger,
    Select,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.orm import Session, aliased

from models_store.database.clock import db_now, moment
from models_store.database.dialects import constant, dialect_of, is_one_of
from models_store.database.schema import JobRow, WorkerRow
from models_store.job_states import FINAL_STATES, UNFINISHED_STATES, Accelerator, JobRole, JobState
from models_store.jobs.live_workers import LIVE_S
from models_store.jobs.rows import move, tell_if_unsuited
from models_store.rows.job_deletions import delete_jobs

MOST_WAITING = 1000
"""Children of a project that wait for one kind of worker, beyond which its parents start no more of them."""

_MOST_MEMORY = (
    select(func.max(func.coalesce(WorkerRow.memory_bytes, literal_column("9223372036854775807"))))
    .where(WorkerRow.seen_at > db_now(-LIVE_S))
    .scalar_subquery()
)
WANTED = func.coalesce(JobRow.accelerator, constant(Accelerator.NONE)).concat(
    case(
        (JobRow.memory_bytes > _MOST_MEMORY, literal_column("', larger'")),
        else_=literal_column("''"),
    )
)
"""Workers that a job waits for: their accelerator, and whether none at work has the memory."""

_CHILD = aliased(JobRow)
_PARENT = (
    select(JobRow.id)
    .where(
        JobRow.id
        == select(_CHILD.parent_id).where(_CHILD.id == bindparam("child_id")).scalar_subquery()
    )
    .with_for_update(of=JobRow)
)


def end_parent(session: Session, row: JobRow, state: JobState, children: Sequence[JobRow]) -> None:
    """End a locked parent none of whose children runs."""
    uncover(session, children)
    move(session, row, state)


def uncover(session: Session, children: Sequence[JobRow]) -> None:
    """Count what children store as theirs: the reservation of their parent ends with it.

    The database measures the products of those that a process of the last release has ended.
    """
    for child in children:
        if child.state == JobState.SUCCEEDED and child.product_bytes is None:
            query = _product_bytes(dialect_of(session))
            child.product_bytes = session.scalar(query, {"child_id": child.id})
        child.covered = False


@cache
def _product_bytes(dialect: str) -> Select[int]:
    product = cast(JobRow.product, Text)
    if dialect == "postgresql":  # whose operators of JSON refuse any that has U+0000 somewhere
        # A caller may have named something of a target or a metric so, but not both.
        field = r'"checkpoint_sha256": ?"[0-9a-f]*", ?"checkpoint_bytes": ?([0-9]+)'
        file_bytes = func.substring(product, field)
    else:
        file_bytes = func.json_extract(product, "$.checkpoint_bytes")
    length = func.length(product) + cast(file_bytes, BigInteger)
    return select(length).where(JobRow.id == bindparam("child_id"))


def cancel_children(session: Session, row: JobRow) -> None:
    """Cancel the children of a locked parent; the parent itself once none of them runs.

    The parent then waits for a running child to stop, after which its step cancels it.
    """
    children = stop_children(session, row.id)
    if all(child.state in FINAL_STATES for child in children):
        end_parent(session, row, JobState.CANCELLED, children)


def stop_children(session: Session, job_id: str) -> list[JobRow]:
    """Cancel the children of a locked parent that wait, ask those that run to stop; return all."""
    for child in children_of(session, job_id, unfinished=True, lock=True):
        child.cancel_requested = True
        if child.state == JobState.QUEUED:
            move(session, child, JobState.CANCELLED)
    session.flush()
    return children_of(session, job_id)


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


def crowded_projects() -> Select[str, str, int, int]:
    """Return the query of the projects with many children that wait for one kind of worker.

    Its columns are the project, the workers that are wanted, and their number and highest priority.
    """
    jobs = func.count().label("jobs")
    return (
        select(
            JobRow.project,
            WANTED.label("wanted"),
            jobs,
            func.max(func.coalesce(JobRow.priority, 0)).label("priority"),
        )
        .where(JobRow.state == constant(JobState.QUEUED), JobRow.role == constant(JobRole.CHILD))
        .group_by(JobRow.project, "wanted")
        .having(jobs >= MOST_WAITING)
    )


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
    """Return the children of a job, in the order in which they were started, without large columns.

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
    if unfinished:
        query = query.where(is_one_of(JobRow.state, UNFINISHED_STATES))
    query = query.order_by(JobRow.position).execution_options(populate_existing=True)
    return query.with_for_update() if lock else query


def lock_parent(session: Session, job_id: str) -> None:
    """Lock the parent of a child, before the child itself is."""
    session.execute(_PARENT, {"child_id": job_id})


def _stage(row: JobRow) -> int:
    return int((row.place or {})["stage"])


def delete_with_children(session: Session, row: JobRow) -> list[str]:
    """Delete a locked job that nothing needs, and its children; return their ids."""
    children = children_of(session, row.id, lock=True) if row.role == JobRole.PARENT else []
    return delete_jobs(session, [*children, row])
