"""Instants that lie ahead since the database's clock was set back; otherwise they would be waited for.

A machine whose clock was hours ahead for a while leaves them: turns of projects, leases of workers
that died, times before which nothing is tried again.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Float,
    Select,
    Update,
    and_,
    bindparam,
    exists,
    or_,
    select,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute

from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.dialects import constant
from models_store.database.schema import JobRow, TurnRow, WebhookDeliveryRow, WorkerRow
from models_store.job_states import JobState

_SLACK_S = 1.0  # by which the clocks of two connections may seem to differ
# Longer than any wait for the next attempt at a job, and any promise of a place; than any pause of a delivery.
_WAIT_S = 301.0
_PAUSE_S = 1.25 * 86_400
_MOST_ROWS = 1000
_LEASE_END: BindParameter[float] = bindparam("lease_end_s", type_=Float)
_ALIVE_SINCE: BindParameter[float] = bindparam("alive_since_s", type_=Float)


def mend_instants(database: Database, *, lease_s: float, live_s: float) -> int:
    """Make present what lies further ahead than anything that is set by a right clock; return how many kinds.

    The lease of a worker that is alive is left to it.

    Args:
        database: Database of the jobs.
        lease_s: Seconds of a lease.
        live_s: Seconds after its last sign of life for which a worker counts as alive.

    Raises:
        DatabaseError: The database is unavailable.
        StorageFullError: Its disk is full.
    """
    values = {"lease_end_s": lease_s + _SLACK_S, "alive_since_s": -live_s}
    with database.read() as session:  # a look takes no lock, and mostly finds nothing
        found = [
            (wrong, change)
            for wrong, change in _statements()
            if session.connection().scalar(select(wrong.exists()), values)
        ]
    for _, change in found:
        with database.write() as session:
            session.connection().execute(change, values)
    return len(found)


@cache
def _statements() -> Sequence[tuple[Select[Any], Update]]:
    """Return queries of rows with such an instant, each with the change that mends it."""
    job, worker, turn, delivery = JobRow, WorkerRow, TurnRow, WebhookDeliveryRow
    queued = job.state == constant(JobState.QUEUED)
    running = job.state == constant(JobState.RUNNING)
    alive = exists().where(
        worker.name == job.worker, worker.seen_at.between(db_now(_ALIVE_SINCE), db_now(_SLACK_S))
    )
    left = and_(running, job.lease_expires_at > db_now(_LEASE_END), ~alive)
    waits = and_(or_(queued, running), job.not_before > db_now(_WAIT_S))
    promised = and_(queued, job.lease_expires_at > db_now(_WAIT_S))
    due = and_(delivery.ended_at.is_(None), delivery.due_at > db_now(_PAUSE_S))
    return [
        _mended(turn.project, turn.taken_at > db_now(_SLACK_S), turn.taken_at),
        _mended(job.position, and_(queued, job.queued_at > db_now(_SLACK_S)), job.queued_at),
        _mended(job.position, waits, job.not_before),
        _mended(job.position, promised, job.lease_expires_at),
        _mended(job.position, left, job.lease_expires_at),
        _mended(delivery.position, due, delivery.due_at),
        # Last: who is alive is told by it.
        _mended(worker.name, worker.seen_at > db_now(_SLACK_S), worker.seen_at),
    ]


def _mended(
    key: InstrumentedAttribute[Any],
    wrong: ColumnElement[bool],
    instant: InstrumentedAttribute[Any],
) -> tuple[Select[Any], Update]:
    found = select(key).where(wrong)
    # What another transaction changes meanwhile is left to the next look.
    some = found.order_by(instant).limit(_MOST_ROWS).with_for_update(skip_locked=True)
    table = key.class_.__table__
    change = update(table).where(table.c[key.key].in_(some)).values({instant.key: db_now()})
    return found, change
