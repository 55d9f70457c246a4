"""Deliveries of events, written in the transaction that makes each true, such as the end of a job.

The row of a delivery is the truth, as that of a job is: whatever becomes of the process that wrote
it, some worker finds the row and sends it.
"""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models_store.database.ids import new_id
from models_store.database.schema import JobRow, WebhookDeliveryRow, WebhookRow

MAX_WAITING = 1000
"""Deliveries of a webhook that may wait; further ones are not made."""


def announce_end(session: Session, row: JobRow) -> None:
    """Add a delivery for each webhook that wants to know of a locked job which has just ended."""
    announce(session, row.project, f"job.{row.state}", job_data(row))


def announce(session: Session, project: str, event: str, data: dict[str, Any]) -> None:
    """Add a delivery for each webhook of a project that wants to know of an event."""
    # None of them is deleted before the transaction has ended, or its deliveries could not be written.
    enabled = (
        select(WebhookRow.id, WebhookRow.events)
        .where(WebhookRow.project == project, WebhookRow.disabled_at.is_(None))
        .with_for_update(read=True, key_share=True)
    )
    for webhook_id, events in session.execute(enabled).all():
        if event in events and not is_overdue(session, webhook_id):
            add_delivery(session, webhook_id, project, event, data)


def add_delivery(
    session: Session, webhook_id: str, project: str, event: str, data: dict[str, Any]
) -> str:
    """Add a delivery that is due at once; return its id."""
    delivery_id = new_id("msg")
    session.add(
        WebhookDeliveryRow(
            id=delivery_id, webhook_id=webhook_id, project=project, event=event, data=data
        )
    )
    return delivery_id


def is_overdue(session: Session, webhook_id: str) -> bool:
    """Return whether so much waits for a webhook that nothing is added."""
    waiting = select(func.count()).where(
        WebhookDeliveryRow.webhook_id == webhook_id, WebhookDeliveryRow.ended_at.is_(None)
    )
    return (session.scalar(waiting) or 0) >= MAX_WAITING


def job_data(row: JobRow) -> dict[str, Any]:
    """Return what a delivery tells of a job."""
    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.state,
        "attempt": row.attempt,
        "model": {"name": row.model_name, "version": row.model_version},
        "error": row.error,
        "tags": row.tags,
        "url": f"/v1/jobs/{row.id}",
    }
