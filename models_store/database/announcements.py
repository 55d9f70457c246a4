"""Events of jobs, and deliveries for those that end, written before a transaction commits.

The row of a delivery is the truth, as that of a job is: whatever becomes of the process that ended
the job, some worker finds the row and sends it.
"""

from typing import Any, Protocol

from sqlalchemy import bindparam, func, insert, or_, select
from sqlalchemy.orm import PassiveFlag, Session, UOWTransaction, attributes

from models_store.database.base import JsonObject
from models_store.database.ids import new_id
from models_store.database.schema import JobEventRow, JobRow, WebhookDeliveryRow, WebhookRow
from models_store.database.usage import ROW_BYTES, json_bytes
from models_store.job_states import FINAL_STATES, JobRole

MAX_WAITING = 1000
"""Deliveries of a webhook that may wait; further ones are not made."""

MAX_WAITING_BYTES = 8 << 20
"""Bytes that they may take, since some changes write or delete all of them in one transaction."""

_EVENTS, _ENDED = "events", "ended jobs"
_EVENT = insert(JobEventRow.__table__)
# None of them is deleted before the transaction has ended, or its deliveries could not be written.
_ENABLED = (
    select(WebhookRow.id, WebhookRow.events)
    .where(WebhookRow.project == bindparam("project"), WebhookRow.disabled_at.is_(None))
    .with_for_update(read=True, key_share=True)
)


class EndedJob(Protocol):
    """Columns of a job that a delivery tells of."""

    id: str
    project: str
    kind: str
    state: str
    attempt: int
    model_name: str
    model_version: int | None
    error_code: str | None
    error_detail: str | None
    tags: dict[str, str]


def note_event(session: Session, values: JsonObject) -> None:
    """Note an event, whose row is written with all others of the transaction in one statement."""
    session.info.setdefault(_EVENTS, []).append(values)


def note_ends(session: Session, _context: UOWTransaction) -> None:
    """Note the jobs that a flush ends: after each flush."""
    for row in session.dirty:
        if isinstance(row, JobRow) and row.state in FINAL_STATES and row.role != JobRole.CHILD:
            unloaded = PassiveFlag.PASSIVE_NO_INITIALIZE
            if attributes.get_history(row, "state", unloaded).has_changes():
                note_end(session, row)


def note_end(session: Session, row: EndedJob | JobRow) -> None:
    """Note a job that a transaction ends."""
    session.info.setdefault(_ENDED, []).append(row)


def announce(session: Session) -> None:
    """Write the events of a transaction, and the deliveries for the jobs that it ends: before its commit."""
    session.flush()
    if events := session.info.pop(_EVENTS, None):
        session.connection().execute(_EVENT, events)
    for row in session.info.pop(_ENDED, ()):
        for webhook_id in _listening(session, row.project, row.state):
            add_delivery(session, webhook_id, row.project, f"job.{row.state}", job_data(row))


def add_delivery(
    session: Session, webhook_id: str, project: str, event: str, data: dict[str, Any]
) -> str:
    """Add a delivery that is due at once; return its id."""
    delivery_id = new_id("msg")
    values = {
        "id": delivery_id,
        "webhook_id": webhook_id,
        "project": project,
        "event": event,
        "data": data,
        "bytes": ROW_BYTES + json_bytes(data),
    }
    session.execute(insert(WebhookDeliveryRow).values(values))
    return delivery_id


def overdue(session: Session, webhook_ids: list[str]) -> set[str]:
    """Return those of some webhooks for which so much waits that nothing is added."""
    waiting = (
        select(WebhookDeliveryRow.webhook_id)
        .where(
            WebhookDeliveryRow.webhook_id.in_(webhook_ids), WebhookDeliveryRow.ended_at.is_(None)
        )
        .group_by(WebhookDeliveryRow.webhook_id)
        .having(
            or_(
                func.count() >= MAX_WAITING,
                func.sum(WebhookDeliveryRow.bytes) >= MAX_WAITING_BYTES,
            )
        )
    )
    return {*session.scalars(waiting)}


def job_data(row: EndedJob | JobRow) -> dict[str, Any]:
    """Return what a delivery tells of a job."""
    error = None if row.error_code is None else {"code": row.error_code, "detail": row.error_detail}
    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.state,
        "attempt": row.attempt,
        "model": {"name": row.model_name, "version": row.model_version},
        "error": error,
        "tags": row.tags,
        "url": f"/v1/jobs/{row.id}",
    }


def _listening(session: Session, project: str, state: str) -> list[str]:
    """Return the ids of the webhooks that want to know, and that are not behind by too much."""
    known = session.connection().execute(_ENABLED, {"project": project})
    wanting = [found.id for found in known if f"job.{state}" in found.events]
    if not wanting:
        return []
    behind = overdue(session, wanting)
    return [webhook_id for webhook_id in wanting if webhook_id not in behind]
