"""Job rows inside a transaction: locks, moves between states and events, for both sides of jobs."""

import math
from collections.abc import Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any, TypeVarTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Float,
    Insert,
    Select,
    Text,
    and_,
    bindparam,
    exists,
    false,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.orm import Session, undefer
from sqlalchemy.sql.dml import ReturningUpdate

from models_store.database.announcements import note_event
from models_store.database.base import JsonObject
from models_store.database.clock import db_now, moment
from models_store.database.dialects import constant, dialect_of, insert_into
from models_store.database.ids import is_id
from models_store.database.schema import JobDatasetRow, JobRow, TurnRow, WorkerRow
from models_store.database.usage import EVENT_BYTES, json_bytes
from models_store.errors import NotFoundError
from models_store.job_states import (
    FINAL_STATES,
    TRANSITIONS,
    Accelerator,
    EventKind,
    Job,
    JobError,
    JobKind,
    JobRole,
    JobState,
    JobSummary,
)
from models_store.jobs.held_jobs import HeldJob
from models_store.jobs.live_workers import LIVE_S
from models_store.jobs.retries import PREFERENCE_S

Ts = TypeVarTuple("Ts")

_TOO_SMALL = (
    "This job needs a worker with about {needed:,} MiB of memory for it, and the largest that is at work has"
    " {most:,} MiB. It waits for a larger one; a smaller flow or batch size, or fewer rows, need less."
)
_AT_WORK = select(WorkerRow.accelerator, WorkerRow.memory_bytes).where(
    WorkerRow.seen_at > db_now(-LIVE_S)
)
_OWN_FAULT = "An unexpected fault of the service; its log tells more."
_TEXT_LIMIT = 4000
# Longest promise of a place, in seconds.
_PROMISE_S = 60.0


WORKER = bindparam("worker", type_=Text)
"""Parameter with the name of the worker that asks."""

# Statements are built once: that takes longer than to run them.
_DATASETS = select(JobDatasetRow.dataset_id).where(JobDatasetRow.job_id == bindparam("job_id"))


def to_job(row: JobRow | SimpleNamespace, request: JsonObject) -> Job:
    """Return a row as a plain value, with its request, which the row may lack."""
    return Job.of_row(row, request=request, **_told(row))


def to_summary(row: JobRow) -> JobSummary:
    """Return a row as a plain value without its request."""
    return JobSummary.of_row(row, **_told(row))


def _told(row: JobRow | SimpleNamespace) -> dict[str, Any]:
    """Return the fields of a job that its row has in another form."""
    error = None
    if row.error_code is not None:
        error = JobError(code=row.error_code, detail=row.error_detail or "")
    role = None if row.role is None else JobRole(row.role)
    return {
        "kind": JobKind(row.kind),
        "state": JobState(row.state),
        "role": role,
        "error": error,
        "priority": row.priority or 0,
        "accelerator": Accelerator(row.accelerator or Accelerator.NONE),
    }


def find(
    session: Session, project: str, job_id: str, *, lock: bool = False, full: bool = False
) -> JobRow:
    """Return a caller's job.

    Args:
        session: Transaction to read in.
        project: Project that owns the job.
        job_id: Id of the job.
        lock: Keep others from changing it until the transaction ends.
        full: Read the request, too.

    Raises:
        NotFoundError: the project has no such job.
    """
    row = None
    if is_id(job_id, "job"):
        row = session.scalar(_found(lock, full), {"job_id": job_id, "project": project})
    if row is None:
        raise NotFoundError("job", job_id)
    return row


@cache
def _found(lock: bool, full: bool) -> Select[JobRow]:  # noqa: FBT001 - as of `find`
    query = select(JobRow).where(
        JobRow.id == bindparam("job_id"), JobRow.project == bindparam("project")
    )
    if full:
        query = query.options(undefer(JobRow.request))
    return query.with_for_update() if lock else query


def expired_leases(query: Select[*Ts]) -> Select[*Ts]:
    """Restrict to running jobs that their worker gave up silently, longest ago first."""
    return query.where(
        JobRow.state == constant(JobState.RUNNING), JobRow.lease_expires_at <= db_now()
    ).order_by(JobRow.lease_expires_at, JobRow.position)


def queue(query: Select[*Ts], *, worker: BindParameter[str] | None = None) -> Select[*Ts]:
    """Restrict to queued jobs that may be claimed now.

    Projects take turns: that with the fewest running jobs comes first, among equal ones that whose
    last turn is longest ago. Among its jobs higher priorities come first, then first come,
    first served: a priority delays other jobs of its own project alone. No worker claims a parent.

    Args:
        query: Query of jobs.
        worker: Parameter of the worker that asks; a job that failed on it waits for other workers first.
    """
    due = or_(JobRow.not_before.is_(None), JobRow.not_before <= db_now())
    if worker is not None:
        due &= or_(
            JobRow.failed_on.is_(None),
            JobRow.failed_on != worker,
            JobRow.not_before <= db_now(-PREFERENCE_S),
        )
    running = (
        select(JobRow.project, func.count().label("jobs"))
        .where(JobRow.state == constant(JobState.RUNNING), _is_claimed())
        .group_by(JobRow.project)
        .subquery()
    )
    return (
        query.outerjoin(running, running.c.project == JobRow.project)
        .outerjoin(TurnRow, TurnRow.project == JobRow.project)
        .where(JobRow.state == constant(JobState.QUEUED), _is_claimed(), due)
        .order_by(
            func.coalesce(running.c.jobs, 0),
            TurnRow.taken_at.nulls_first(),
            func.coalesce(JobRow.priority, 0).desc(),
            JobRow.queued_at,
            JobRow.position,
        )
    )


def should_give_way(
    session: Session,
    project: str,
    values: Mapping[str, Any],
    *,
    accelerator: bool | None,
    promise_s: float | None,
) -> bool:
    """Return whether a running job of a project stands in the way of one of another project.

    That is so if the other one has waited for some seconds, in which no idle worker took it, and its
    project runs at most as many jobs as this one would without the running one. Then the place is
    promised to it for a while, and no second job gives way to it.

    Args:
        session: Transaction to read in.
        project: Project of the running job.
        values: Name of the worker that runs it (`worker`), the memory of its trainer
            (`memory_bytes`) or None, and the projects whose jobs cannot have the place (`beside`).
        accelerator: True if that worker has an accelerator; None: it takes any job.
        promise_s: Seconds for which the place is promised, a minute at most; None: it is not promised, as
            its end frees none before another job gives way, too.
    """
    connection = session.connection()
    bounded = values["memory_bytes"] is not None
    waiting = _next_without_place(accelerator, bounded, bool(values["beside"]))
    other = connection.execute(waiting, values).one_or_none()
    if other is None or other.project == project:
        return False
    own = connection.execute(_STANDING, {"project": project}).one()
    its = connection.execute(_STANDING, {"project": other.project}).one()
    jobs, left = its.jobs + its.promised, own.jobs - its.promised - 1
    if jobs > left or (jobs == left and its.promised):
        return False
    if promise_s is None:
        return True
    promise = {"at": other.position, "promise_s": min(promise_s, _PROMISE_S)}
    return connection.scalar(_promise(), promise) is not None


@cache
def _next_without_place(accelerator: bool | None, bounded: bool, beside: bool) -> Select[int, str]:  # noqa: FBT001 - as of `is_taken`
    """Return the query of the first job in the queue of a worker that waits and that none gives way to."""
    jobs = select(JobRow.position, JobRow.project).limit(1)
    its = is_taken(accelerator=accelerator, bounded=bounded, beside=beside)
    waited = JobRow.queued_at <= db_now(-PREFERENCE_S)
    return queue(jobs.where(its, waited, ~_PROMISED), worker=WORKER)


@cache
def _promise() -> ReturningUpdate[int]:
    """Return the statement that promises a place to a job, unless that or a claim came first."""
    job = JobRow.__table__.c
    still = (
        select(JobRow.position)
        .where(
            JobRow.position == bindparam("at"),
            JobRow.state == constant(JobState.QUEUED),
            ~_PROMISED,
        )
        .with_for_update(skip_locked=True)
    )
    return (
        update(JobRow.__table__)
        .where(job.position.in_(still))
        .values(lease_expires_at=db_now(bindparam("promise_s", type_=Float)))
        .returning(job.position)
    )


def take_turn(session: Session, project: str) -> None:
    """Record that a project has its turn, or had it until now, after all other writes of a transaction.

    No lock is waited for while this one is held, so that claims cannot block each other.
    """
    session.connection().execute(_turn(dialect_of(session)), {"project": project})


@cache
def _turn(dialect: str) -> Insert:
    taken = insert_into(dialect, TurnRow).values(project=bindparam("project"), taken_at=db_now())
    return taken.on_conflict_do_update(
        index_elements=[TurnRow.project], set_={"taken_at": taken.excluded.taken_at}
    )


def is_taken(*, accelerator: bool | None, bounded: bool, beside: bool) -> ColumnElement[bool]:
    """Return the condition of jobs that a worker takes.

    Args:
        accelerator: True if the worker has an accelerator; None: it takes any job.
        bounded: True if a parameter `memory_bytes` says how much memory a job may need.
        beside: True if a parameter `beside` names projects whose jobs it does not take.
    """
    conditions = list[ColumnElement[bool]]()
    if beside:
        conditions.append(JobRow.project.not_in(bindparam("beside", expanding=True)))
    if accelerator is not None:
        conditions.append(_suited(accelerator=accelerator))
    if bounded:
        needed, most = JobRow.memory_bytes, bindparam("memory_bytes", type_=BigInteger)
        conditions.append(or_(needed.is_(None), needed <= most))
    return and_(true(), *conditions)


def _suited(*, accelerator: bool) -> ColumnElement[bool]:
    """Return the condition of jobs that a worker with or without an accelerator may take.

    A job that prefers the other kind of worker waits some seconds for one, if one is at work.
    """
    wants = func.coalesce(JobRow.accelerator, Accelerator.NONE.value)
    others = exists().where(
        func.coalesce(WorkerRow.accelerator, false()) != accelerator,
        WorkerRow.unfit.is_(None),
        WorkerRow.seen_at > db_now(-LIVE_S),
    )
    waited = JobRow.queued_at <= db_now(-PREFERENCE_S)
    if accelerator:
        return or_(wants != Accelerator.NONE.value, ~others, waited)
    preferred = wants == Accelerator.PREFERRED.value
    return or_(wants == Accelerator.NONE.value, and_(preferred, or_(~others, waited)))


def tell_if_unsuited(session: Session, row: JobRow) -> None:
    """Append the reason to the events of a queued job that none of the workers at work can take.

    Without any worker there is nothing to say: the first may have all that it needs.
    """
    required = row.accelerator == Accelerator.REQUIRED
    if row.memory_bytes is None and not required:
        return
    workers = session.execute(_AT_WORK).all()
    found = [worker for worker in workers if worker.accelerator or not required]
    if workers and not found:
        text = "No worker that is at work has the GPU that this job requires; it waits for one."
        append(session, row, EventKind.MESSAGE, {"text": text})
    elif found and row.memory_bytes is not None:
        most = max(math.inf if one.memory_bytes is None else one.memory_bytes for one in found)
        if row.memory_bytes > most:
            text = _TOO_SMALL.format(needed=row.memory_bytes // 2**20, most=int(most) // 2**20)
            append(session, row, EventKind.MESSAGE, {"text": text})


def _is_claimed() -> ColumnElement[bool]:
    """Return the condition of jobs that workers claim: all but parents."""
    return JobRow.role.is_distinct_from(constant(JobRole.PARENT))


_PROMISED = and_(JobRow.lease_expires_at.is_not(None), JobRow.lease_expires_at > db_now())
_OWN_JOBS = select(func.count()).where(JobRow.project == bindparam("project"), _is_claimed())
_STANDING = select(
    _OWN_JOBS.where(JobRow.state == constant(JobState.RUNNING)).scalar_subquery().label("jobs"),
    _OWN_JOBS.where(JobRow.state == constant(JobState.QUEUED), _PROMISED)
    .scalar_subquery()
    .label("promised"),
)


def move(session: Session, row: JobRow | HeldJob, to: JobState) -> None:
    """Change the state of a locked job and append the events; no other function sets a state."""
    if to not in TRANSITIONS[JobState(row.state)]:
        raise RuntimeError(f"a job cannot go from {row.state} to {to}")
    row.state = to
    row.not_before = row.failed_on = None
    if to is JobState.RUNNING:
        row.attempt += 1
        row.claimed_at = moment(session)
        if row.started_at is None:
            row.started_at = moment(session)
    else:
        row.run_seconds += _ran_for_s(session, row)
        row.worker = None
        row.claimed_at = row.lease_expires_at = None
    append(session, row, EventKind.STATE, {"state": to.value, "attempt": row.attempt})
    if to in FINAL_STATES:
        row.finished_at = moment(session)
        append(session, row, EventKind.END, {"state": to.value})


def _ran_for_s(session: Session, row: JobRow | HeldJob) -> float:
    """Return the seconds of the present attempt; a silent worker counts until its lease's end."""
    if row.claimed_at is None or row.lease_expires_at is None:
        return 0.0
    return max(0.0, (min(moment(session), row.lease_expires_at) - row.claimed_at).total_seconds())


def fail(session: Session, row: JobRow | HeldJob, *, code: str, detail: str | None) -> None:
    """Make a locked job fail."""
    row.error_code = code
    row.error_detail = storable(detail or _OWN_FAULT)
    move(session, row, JobState.FAILED)


def append(session: Session, row: JobRow | HeldJob, event: EventKind, data: JsonObject) -> None:
    """Append an event to a job that is locked or new; its row counts, so that there are no gaps."""
    row.last_event += 1
    row.metadata_bytes += EVENT_BYTES + json_bytes(data)
    values = {
        "job_id": row.id,
        "seq": row.last_event,
        "project": row.project,
        "event": event.value,
        "data": data,
    }
    note_event(session, values)


def datasets_of(session: Session, job_id: str) -> list[str]:
    """Return the ids of the datasets that a job reads."""
    return list(session.connection().scalars(_DATASETS, {"job_id": job_id}))


def storable(text: str) -> str:
    """Return text that both databases keep: bounded, no NUL, no half of a surrogate pair."""
    return (
        text[:_TEXT_LIMIT]
        .encode(errors="replace")
        .decode()
        .replace("\0", "\N{REPLACEMENT CHARACTER}")
    )
