"""Webhooks as callers see them: create, look, change the secret, delete; and their deliveries."""

import base64
import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from models_store.database.announcements import MAX_WAITING, add_delivery, is_overdue
from models_store.database.database import Rows, reading, writing
from models_store.database.ids import is_id, new_id
from models_store.database.schema import WebhookDeliveryRow, WebhookRow
from models_store.errors import ConflictError, LimitError, NotFoundError
from models_store.listing import Listing, Page, page_of
from models_store.quotas import hold_project
from models_store.records import Record

Event = Literal["job.succeeded", "job.failed", "job.cancelled", "model.drifted"]
MAX_WEBHOOKS = 20
"""Webhooks of one project."""

_SECRET_PREFIX = "whsec_"  # noqa: S105 - a prefix, as Standard Webhooks has it
_SECRET_BYTES = 32
_DELIVERIES = Listing(name="deliveries", key=WebhookDeliveryRow.position)


@dataclass(frozen=True, kw_only=True)
class Webhook(Record):
    """Webhook of a project.

    Attributes:
        secret: Text that signs the deliveries; None where it is not shown.
        disabled_at: Time at which it was disabled, because an event could not be delivered for days.
    """

    id: str
    project: str
    url: str
    events: list[str]
    description: str | None
    secret: str | None = None
    created_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Delivery(Record):
    """Delivery of one event to one webhook.

    Attributes:
        due_at: Time of the next attempt, as long as it has not ended.
        ended_at: Time at which it was delivered or given up.
        error: Reason why the last attempt failed.
    """

    id: str
    webhook_id: str
    project: str
    event: str
    data: dict[str, Any]
    attempts: int
    due_at: datetime
    ended_at: datetime | None
    status: int | None
    error: str | None
    delivered: bool
    created_at: datetime


class Webhooks(Rows):
    """Webhooks of all projects; methods raise `NotFoundError` for one that the project does not have."""

    @writing
    def create(
        self,
        session: Session,
        project: str,
        url: str,
        *,
        events: list[Event],
        description: str | None = None,
    ) -> Webhook:
        """Make a webhook; only this and `rotate` return its secret.

        Raises:
            LimitError: `limit-webhooks`.
        """
        row = WebhookRow(
            id=new_id("wh"),
            project=project,
            url=url,
            events=list(events),
            description=description,
            secret=_new_secret(),
        )
        hold_project(session, project)  # so that no two count the same webhooks
        session.add(row)
        session.flush()
        number = select(func.count()).where(WebhookRow.project == project)
        if (session.scalar(number) or 0) > MAX_WEBHOOKS:
            raise LimitError("limit-webhooks", f"The project has {MAX_WEBHOOKS} webhooks already.")
        return Webhook.of_row(row)

    @reading
    def list(self, session: Session, project: str) -> "list[Webhook]":
        """Return the webhooks of a project, oldest first."""
        query = select(WebhookRow).where(WebhookRow.project == project)
        rows = session.scalars(query.order_by(WebhookRow.position))
        return [_without_secret(row) for row in rows]

    @reading
    def get(self, session: Session, project: str, webhook_id: str) -> Webhook:
        """Return a webhook."""
        return _without_secret(_find(session, project, webhook_id))

    @writing
    def rotate(self, session: Session, project: str, webhook_id: str) -> Webhook:
        """Give a webhook another secret, and enable it again."""
        row = _find(session, project, webhook_id, lock=True)
        row.secret = _new_secret()
        row.disabled_at = None
        session.flush()
        return Webhook.of_row(row)

    @writing
    def delete(self, session: Session, project: str, webhook_id: str) -> None:
        """Delete a webhook with its deliveries."""
        row = _find(session, project, webhook_id, lock=True)
        mine = delete(WebhookDeliveryRow).where(WebhookDeliveryRow.webhook_id == row.id)
        session.execute(mine, execution_options={"synchronize_session": False})
        session.delete(row)

    @writing
    def test(self, session: Session, project: str, webhook_id: str) -> Delivery:
        """Send a webhook the event `webhook.test`.

        Raises:
            ConflictError: Too many deliveries wait for it.
        """
        row = _find(session, project, webhook_id, lock=True)
        if is_overdue(session, row.id):
            raise ConflictError(f"{MAX_WAITING:,} deliveries wait for this webhook already.")
        data = {"id": row.id, "url": f"/v1/webhooks/{row.id}"}
        made = add_delivery(session, row.id, project, "webhook.test", data)
        query = select(WebhookDeliveryRow).where(WebhookDeliveryRow.id == made)
        return Delivery.of_row(session.scalars(query).one())

    @reading
    def deliveries(
        self,
        session: Session,
        project: str,
        webhook_id: str,
        *,
        limit: int,
        cursor: str | None = None,
    ) -> Page[Delivery]:
        """List the deliveries of a webhook, newest first; ended ones are kept for a week.

        Raises:
            ConflictError: The cursor is not one of this listing.
        """
        row = _find(session, project, webhook_id)
        query = select(WebhookDeliveryRow).where(WebhookDeliveryRow.webhook_id == row.id)
        page = page_of(session, query, _DELIVERIES, cursor=cursor, limit=limit)
        return page.map(Delivery.of_row)


def _find(session: Session, project: str, webhook_id: str, *, lock: bool = False) -> WebhookRow:
    row = None
    if is_id(webhook_id, "wh"):
        query = select(WebhookRow).where(WebhookRow.id == webhook_id, WebhookRow.project == project)
        row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFoundError("webhook", webhook_id)
    return row


def _without_secret(row: WebhookRow) -> Webhook:
    return replace(Webhook.of_row(row), secret=None)


def _new_secret() -> str:
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
