"""Deletion of the rows of jobs, of which events are by far the most.

While a transaction deletes, nobody else writes to SQLite. A job with many events is taken from its project at
once, and its events go bit by bit.
"""

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.orm import Session

from models_store.database.schema import JobDatasetRow, JobEventRow, JobRow
from models_store.rows.idempotency import forget_resource

EVENTS_AT_ONCE = 10_000
"""Most events that a transaction deletes, a few hundredths of a second of work."""

_NOBODY = "-"  # no project can have this name
_EVENT = JobEventRow.__table__.c
_WITH_EVENTS = select(JobRow.id).where(JobRow.project == _NOBODY).limit(1)
_FIRST = select(func.min(_EVENT.seq)).where(_EVENT.job_id == bindparam("of_job"))
_FIRST_EVENTS = delete(JobEventRow.__table__).where(
    _EVENT.job_id == bindparam("of_job"),
    _EVENT.seq < _FIRST.scalar_subquery() + bindparam("most"),
)
_EMPTY = delete(JobRow.__table__).where(JobRow.__table__.c.id == bindparam("of_job"))


def delete_jobs(session: Session, rows: Sequence[JobRow]) -> list[str]:
    """Delete locked jobs that nothing needs; return their ids.

    Those with too many events for one transaction only vanish: `delete_some_events` deletes them.
    """
    left = EVENTS_AT_ONCE
    for one in rows:
        forget_resource(session, one.project, one.id)
        _delete_of(session, JobDatasetRow, one)
        if one.last_event > left:
            _hide(session, one)
        else:
            left -= one.last_event
            _delete_of(session, JobEventRow, one)
            session.delete(one)
    return [one.id for one in rows]


def delete_some_events(session: Session) -> bool:
    """Delete some events of a job that has vanished, or its row once it has none; return whether there was one."""
    job_id = session.scalar(_WITH_EVENTS)
    if job_id is None:
        return False
    values = {"of_job": job_id, "most": EVENTS_AT_ONCE}
    if session.connection().execute(_FIRST_EVENTS, values).rowcount == 0:
        session.connection().execute(_EMPTY, {"of_job": job_id})
    return True


def _delete_of(
    session: Session, table: type[JobEventRow] | type[JobDatasetRow], row: JobRow
) -> None:
    session.execute(
        delete(table).where(table.job_id == row.id),
        execution_options={"synchronize_session": False},
    )


def _hide(session: Session, row: JobRow) -> None:
    """Take a job from its project and its parent; it has no files and no end, after which it would expire."""
    row.description, row.tags = None, {}
    row.checkpoints, row.result = [], None
    row.product = row.product_bytes = None
    row.covered = True  # so that it counts no longer
    session.flush()
    row.project = _NOBODY
    row.role = row.parent_id = row.finished_at = None
