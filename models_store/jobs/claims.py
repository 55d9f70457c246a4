"""Claims of jobs by workers, inside a transaction."""

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Row, Select, Text, bindparam, cast, or_, select
from sqlalchemy.orm import Session

from models_store.database.clock import db_now, moment
from models_store.database.schema import JobRow
from models_store.database.usage import check_storage
from models_store.errors import LimitError
from models_store.job_states import JobState
from models_store.jobs.attempt_ends import end_attempt
from models_store.jobs.held_jobs import HeldJob, taken
from models_store.jobs.live_workers import LIVE_S
from models_store.jobs.retries import QUOTA_STORAGE, AttemptEnd, Ending
from models_store.jobs.rows import WORKER, expired_leases, fail, is_taken, move, queue, take_turn

_SILENT = AttemptEnd(ending=Ending.LOST, detail="the worker went silent and its lease ran out")
_IS_LEFT = JobRow.lease_expires_at <= db_now(-LIVE_S)
_REQUEST = select(cast(JobRow.request, Text)).where(JobRow.position == bindparam("at"))


@cache
def waiting(accelerator: bool | None, bounded: bool) -> tuple[Select[int, bool], ...]:  # noqa: FBT001 - properties of the worker
    """Return the queries of a worker's next job, one after the other, and of whether it takes that.

    Whoever looks ends an attempt whose worker is gone, as nobody that is at work may take its job: a while
    after its lease, since workers that live may be late when the database was away.

    Args:
        accelerator: True if the worker has an accelerator; None: it takes any job.
        bounded: True if the memory of its trainer is known.
    """
    its = is_taken(accelerator=accelerator, bounded=bounded)
    jobs = select(JobRow.position, its.label("its")).limit(1)
    jobs = jobs.with_for_update(of=JobRow, skip_locked=True)
    return expired_leases(jobs.where(or_(its, _IS_LEFT))), queue(jobs.where(its), worker=WORKER)


def claim(
    session: Session,
    queries: Sequence[Select[int, bool]],
    values: dict[str, Any],
    *,
    lease_s: float,
    max_project_bytes: int | None,
) -> tuple[bool, SimpleNamespace | None]:
    """Claim or end the next job; return whether there was one, and its row if it was claimed.

    Args:
        session: Transaction to write in.
        queries: Queries of the jobs that wait, from `waiting`.
        values: Name of the worker (`worker`), the memory of its trainer (`memory_bytes`) or None, and the
            projects whose jobs it does not take (`beside`).
        lease_s: Seconds of the lease from now.
        max_project_bytes: Bytes that the project of the job may store; None: any number.

    Returns:
        The row with its request, which is JSON still: to read that takes longer than all else.
    """
    found = _next(session, queries, values)
    if found is None:
        return False, None
    position, its = found
    with taken(session, position) as row:
        if row.state == JobState.RUNNING:
            end_attempt(session, row, _SILENT)
            # At once, unless it is for other workers, waits for a while or has ended.
            if not its or row.state != JobState.QUEUED or row.not_before is not None:
                return True, None
        row.worker = values["worker"]
        row.lease_expires_at = moment(session, later_s=lease_s)
        move(session, row, JobState.RUNNING)
    if not _has_room(session, row, max_project_bytes):
        return True, None
    request = session.connection().scalar(_REQUEST, {"at": position})
    take_turn(session, row.project)
    return True, row.whole(request=request)


def end_silent(session: Session) -> None:
    """End the attempt of a worker that is gone, if no idle one has taken over its job for a while.

    Not at once: workers that live may be late when the database was away.
    """
    position = session.connection().scalar(_left())
    if position is not None:
        with taken(session, position) as row:
            end_attempt(session, row, _SILENT)


@cache
def _left() -> Select[int]:
    left = select(JobRow.position).where(_IS_LEFT)
    return expired_leases(left).limit(1).with_for_update(of=JobRow, skip_locked=True)


def _has_room(session: Session, row: HeldJob, max_bytes: int | None) -> bool:
    """Return whether a job's project stores no more than it may; if not, the job fails.

    Each job is counted from its submission, so this is about a quota that was lowered since.
    """
    if max_bytes is None:
        return True
    try:
        check_storage(session, row.project, max_bytes)
    except LimitError as error:
        with taken(session, row.position) as now:
            fail(session, now, code=QUOTA_STORAGE, detail=error.detail)
        return False
    return True


def _next(
    session: Session, queries: Sequence[Select[int, bool]], values: dict[str, Any]
) -> Row[int, bool] | None:
    """Return the position of the next job, which is locked now, and whether the worker takes it."""
    connection = session.connection()
    found = (connection.execute(query, values).one_or_none() for query in queries)
    return next((job for job in found if job is not None), None)
