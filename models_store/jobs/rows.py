"""Job rows inside a transaction: locks, moves between states and events, for both sides of jobs."""

import math
from functools import cache
from types import SimpleNamespace
from typing import Any, TypeVarTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Insert,
    Select,
    SQLColumnExpression,
    Text,
    and_,
    bindparam,
    exists,
    false,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.orm import Session, undefer

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
SHORT_S = 60.0
"""Estimate below which a job comes before longer ones of its project, in seconds."""


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
    last turn is longest ago. Among its jobs higher priorities come first, then those of less than a minute, then
    first come, first served: a priority delays other jobs of its own project alone. No worker claims a parent.

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
            *within_project(),
        )
    )


def within_project() -> tuple[SQLColumnExpression[Any], ...]:
    """Return the order of the jobs of a project: higher priorities, then short ones, then first come, first served."""
    short = func.coalesce(JobRow.estimate_s < SHORT_S, false())
    return func.coalesce(JobRow.priority, 0).desc(), short.desc(), JobRow.queued_at, JobRow.position


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


def is_taken(*, accelerator: bool | None, bounded: bool) -> ColumnElement[bool]:
    """Return the condition of jobs that a worker takes.

    Args:
        accelerator: True if the worker has an accelerator; None: it takes any job.
        bounded: True if a parameter `memory_bytes` says how much memory a job may need.
    """
    conditions = list[ColumnElement[bool]]()
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
