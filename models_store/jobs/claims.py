"""Claims of jobs by workers, inside a transaction."""

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Select, Text, bindparam, cast, select
from sqlalchemy.orm import Session

from models_store.database.clock import moment
from models_store.database.schema import JobRow
from models_store.database.usage import check_storage
from models_store.errors import LimitError
from models_store.job_states import JobState
from models_store.jobs.attempt_ends import end_attempt
from models_store.jobs.held_jobs import HeldJob, taken
from models_store.jobs.retries import AttemptEnd, Ending
from models_store.jobs.rows import WORKER, expired_leases, fail, move, queue, take_turn, taken_by

_SILENT = AttemptEnd(ending=Ending.LOST, detail="the worker went silent and its lease ran out")
_REQUEST = select(cast(JobRow.request, Text)).where(JobRow.position == bindparam("at"))


@cache
def waiting(accelerator: bool | None, bounded: bool, beside: bool) -> tuple[Select[int], ...]:  # noqa: FBT001 - properties of the worker
    """Return the queries of a worker's next job, one after the other.

    Args:
        accelerator: True if the worker has an accelerator; None: it takes any job.
        bounded: True if the memory of its trainer is known.
        beside: True if a parameter `beside` names projects whose jobs it does not take.
    """
    jobs = select(JobRow.position).limit(1).with_for_update(of=JobRow, skip_locked=True)
    jobs = taken_by(jobs, accelerator=accelerator, bounded=bounded, beside=beside)
    return expired_leases(jobs), queue(jobs, worker=WORKER)


def claim(
    session: Session,
    queries: Sequence[Select[int]],
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
    position = _next(session, queries, values)
    if position is None:
        return False, None
    with taken(session, position) as row:
        if row.state == JobState.RUNNING:
            end_attempt(session, row, _SILENT)
            # At once, unless it waits for a while or has ended.
            if row.state != JobState.QUEUED or row.not_before is not None:
                return True, None
        row.worker = values["worker"]
        row.lease_expires_at = moment(session, later_s=lease_s)
        move(session, row, JobState.RUNNING)
    if not _has_room(session, row, max_project_bytes):
        return True, None
    request = session.connection().scalar(_REQUEST, {"at": position})
    take_turn(session, row.project)
    return True, row.whole(request=request)


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
            fail(session, now, code="quota_storage", detail=error.detail)
        return False
    return True


def _next(session: Session, queries: Sequence[Select[int]], values: dict[str, Any]) -> int | None:
    """Return the position of the next job, which is locked now."""
    connection = session.connection()
    found = (connection.scalar(query, values) for query in queries)
    return next((position for position in found if position is not None), None)
