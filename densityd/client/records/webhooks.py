"""Webhooks and their deliveries."""

from datetime import datetime
from typing import Annotated

from densityd.client.members import (
    ReportedObject,
)
from densityd.client.records.record import AS_CAME, Record


class Webhook(Record):
    """A URL that is notified of events; it has its secret only when that is new."""

    id: str
    url: str
    events: list[str]
    description: str | None
    created_at: datetime
    disabled_at: datetime | None
    secret: str | None = None


class WebhookList(Record):
    """The webhooks of the project."""

    items: list[Webhook]


class Delivery(Record):
    """A delivery of an event to a webhook; `error` is why its last attempt failed."""

    id: str
    event: str
    data: Annotated[ReportedObject, AS_CAME]
    attempts: int
    due_at: datetime
    ended_at: datetime | None
    delivered: bool
    status: int | None
    error: str | None
    created_at: datetime
