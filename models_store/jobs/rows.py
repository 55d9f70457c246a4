"""Job rows inside a transaction: moves between states, and events, for both sides of jobs."""

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from models_store.counts import Counts
from models_store.database.announcements import announce_end
from models_store.database.base import JsonObject
from models_store.database.clock import db_now, moment
from models_store.database.ids import is_id
from models_store.database.schema import JobEventRow, JobRow, WorkerRow
from models_store.errors import NotFoundError
from models_store.job_states import (
    FINAL_STATES,
    TRANSITIONS,
    Accelerator,
    EventKind,
    Job,
    JobKind,
    JobRole,
    JobState,
    JobSummary,
)
from models_store.jobs.live_workers import LIVE_S
from models_store.monitoring import add_counts

_NO_GPU = "No worker that is at work has the GPU that this job requires; it waits for one."
_TOO_SMALL = (
    "This job needs a worker with about {needed:,} MiB of memory for it, and the largest that is at work has"
    " {most:,} MiB. It waits for a larger one; a smaller flow or batch size, or fewer rows, need less."
)
_OWN_FAULT = "An unexpected fault of the service; its log tells more."
_TEXT_LIMIT = 4000


def to_job(row: JobRow) -> Job:
    """Return a row as a plain value, with its request."""
    return Job.of_row(row, **_told(row))


def to_summary(row: JobRow) -> JobSummary:
    """Return a row as a plain value without its request."""
    return JobSummary.of_row(row, **_told(row))


def _told(row: JobRow) -> dict[str, Any]:
    """Return the fields of a job that its row has in another form."""
    return {
        "kind": JobKind(row.kind),
        "state": JobState(row.state),
        "role": None if row.role is None else JobRole(row.role),
        "priority": row.priority or 0,
        "accelerator": Accelerator(row.accelerator or Accelerator.NONE),
        "request_id": row.origin.get("request_id"),
        "traceparent": row.origin.get("traceparent"),
    }


def find(session: Session, project: str, job_id: str, *, lock: bool = False) -> JobRow:
    """Return a caller's job.

    Args:
        lock: Keep others from changing it, and its parent, until the transaction ends.

    Raises:
        NotFoundError: the project has no such job.
    """
    row = None
    if is_id(job_id, "job"):
        query = select(JobRow).where(JobRow.id == job_id, JobRow.project == project)
        if lock:
            lock_parent(session, job_id)
            query = query.with_for_update()
        row = session.scalar(query)
    if row is None:
        raise NotFoundError("job", job_id)
    return row


def count_rows(session: Session, row: JobRow, counts: Counts | None) -> None:
    """Count the rows that a job has scored among those of its version."""
    if counts is not None and row.model_name and row.model_version:
        add_counts(session, row.project, row.model_name, row.model_version, counts)


def lock_parent(session: Session, job_id: str) -> None:
    """Lock the parent of a job, if it has one, before the job itself is."""
    parent_id = select(JobRow.parent_id).where(JobRow.id == job_id)
    found = session.scalar(parent_id)
    if found is not None:
        session.execute(select(JobRow.position).where(JobRow.id == found).with_for_update())


def move(session: Session, row: JobRow, to: JobState) -> None:
    """Change the state of a locked job and append the events; no other function sets a state."""
    if to not in TRANSITIONS[JobState(row.state)]:
        raise RuntimeError(f"a job cannot go from {row.state} to {to}")
    row.state = to
    row.not_before = None
    if to is JobState.RUNNING:
        row.attempt += 1
        if row.started_at is None:
            row.started_at = moment(session)
    else:
        row.run_seconds += _ran_for_s(session, row)
        row.worker = None
        row.lease_expires_at = None
    append(session, row, EventKind.STATE, {"state": to.value, "attempt": row.attempt})
    if to in FINAL_STATES:
        row.finished_at = moment(session)
        append(session, row, EventKind.END, {"state": to.value})
        if row.role != JobRole.CHILD:
            announce_end(session, row)


def _ran_for_s(session: Session, row: JobRow) -> float:
    """Return the seconds of the present attempt; a silent worker counts until its lease's end."""
    if row.lease_expires_at is None:
        return 0.0
    # Its newest change of state is that in which it was claimed.
    states = JobEventRow.job_id == row.id, JobEventRow.event == EventKind.STATE
    newest = select(JobEventRow.created_at).where(*states).order_by(JobEventRow.seq.desc())
    began = session.scalars(newest.limit(1)).one()
    return max(0.0, (min(moment(session), row.lease_expires_at) - began).total_seconds())


def fail(session: Session, row: JobRow, *, code: str, detail: str | None) -> None:
    """Make a locked job fail."""
    row.error = {"code": code, "detail": storable(detail or _OWN_FAULT)}
    move(session, row, JobState.FAILED)


def requeue(session: Session, row: JobRow) -> None:
    """Queue a locked job again that was cancelled or has failed."""
    row.cancel_requested = False
    row.failures = []
    row.run_seconds = 0.0
    row.error = None
    row.finished_at = None
    row.queued_at = moment(session)
    move(session, row, JobState.QUEUED)
    tell_if_unsuited(session, row)


def append(session: Session, row: JobRow, event: EventKind, data: JsonObject) -> None:
    """Append an event to a locked job; its row counts, so that there are no gaps."""
    row.last_event += 1
    session.add(
        JobEventRow(
            job_id=row.id, seq=row.last_event, project=row.project, event=event.value, data=data
        )
    )


def add(session: Session, row: JobRow) -> None:
    """Add a new job, which waits."""
    row.state, row.last_event = JobState.QUEUED, 0
    session.add(row)
    session.flush()
    append(session, row, EventKind.STATE, {"state": JobState.QUEUED.value, "attempt": 0})
    tell_if_unsuited(session, row)


def tell(session: Session, row: JobRow, text: str) -> None:
    """Append a message to the events of a locked job."""
    append(session, row, EventKind.MESSAGE, {"text": storable(text)})


def keep_result(row: JobRow, result: Mapping[str, Any]) -> None:
    """Record the file of a job, and apart from it the least likely rows of what was scored."""
    file = dict(result)
    row.unusual = file.pop("unusual", None)
    row.result = file


def count_files(row: JobRow, *, product_bytes: int = 0) -> None:
    """Count the files that a job names in the quota of its project.

    Args:
        row: Locked row, with its checkpoints and its result as they are from now on.
        product_bytes: Bytes of the file that a child has made for its parent.
    """
    sizes = [int(checkpoint.get("bytes", 1)) for checkpoint in row.checkpoints]
    # Of bulk work, the newest list names the parts of the older ones, too.
    checkpoint_bytes = sum(sizes) if JobKind(row.kind).makes_version else max(sizes, default=0)
    result_bytes = 0 if row.result is None else int(row.result["bytes"])
    row.stored_bytes = checkpoint_bytes + result_bytes + product_bytes


def tell_if_unsuited(session: Session, row: JobRow) -> None:
    """Append the reason to the events of a queued job that none of the workers at work can take.

    Without any worker there is nothing to say: the first may have all that it needs.
    """
    required = row.accelerator == Accelerator.REQUIRED
    if row.memory_bytes is None and not required:
        return
    at_work = select(WorkerRow.accelerator, WorkerRow.memory_bytes).where(
        WorkerRow.seen_at > db_now(-LIVE_S)
    )
    workers = session.execute(at_work).all()
    found = [worker for worker in workers if worker.accelerator or not required]
    if workers and not found:
        tell(session, row, _NO_GPU)
    elif found and row.memory_bytes is not None:
        most = max(math.inf if one.memory_bytes is None else one.memory_bytes for one in found)
        if row.memory_bytes > most:
            needed, mib = row.memory_bytes // 2**20, int(most) // 2**20
            tell(session, row, _TOO_SMALL.format(needed=needed, most=mib))


def storable(text: str) -> str:
    """Return text that both databases keep: bounded, no NUL, no half of a surrogate pair."""
    return (
        text[:_TEXT_LIMIT]
        .encode(errors="replace")
        .decode()
        .replace("\0", "\N{REPLACEMENT CHARACTER}")
    )
