"""Request and response models of webhooks."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.resources.listing import bounded
from models_store.labels import MAX_DESCRIPTION
from models_store.listings.paging import Page
from models_store.webhooks.addresses import MAX_URL
from models_store.webhooks.webhooks import Delivery, Event, Webhook

_ALL: list[Event] = ["job.succeeded", "job.failed", "job.cancelled"]
_EXAMPLE: dict[str, Any] = {
    "id": "wh_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f",
    "url": "https://example.org/densityd",
    "events": ["job.succeeded", "job.failed"],
    "description": None,
    "created_at": "2026-11-24T15:27:00Z",
    "disabled_at": None,
}


class WebhookRequest(BaseModel):
    """New webhook."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL)] = Field(
        description="Address that gets a POST for each event: https, and public."
    )
    events: list[Event] = Field(
        default=_ALL,
        min_length=1,
        max_length=len(_ALL),
        fail_fast=True,
        description="Events that it gets.",
    )
    description: Annotated[
        str | None, StringConstraints(max_length=MAX_DESCRIPTION, pattern=r"^[^\x00]*$")
    ] = Field(default=None, description="Text for people.")


class WebhookView(BaseModel):
    """Webhook of the project."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    url: str
    events: list[str]
    description: str | None
    created_at: datetime
    disabled_at: datetime | None = Field(
        description="Time since which it gets nothing, because an event could not be delivered for"
        " three days, or because it answered 410; `rotate` enables it again."
    )

    @classmethod
    def of(cls, webhook: Webhook) -> "WebhookView":
        """Return the view of a webhook."""
        return WebhookView.model_validate(vars(webhook))


class SecretWebhookView(WebhookView):
    """Webhook with its secret, which is shown once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{**_EXAMPLE, "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7o="}]
        }
    )

    secret: str = Field(
        description="Secret that signs the deliveries, as Standard Webhooks has it."
    )

    @classmethod
    def whole(cls, webhook: Webhook) -> "SecretWebhookView":
        """Return the view of a webhook with its secret."""
        return cls.model_validate(vars(webhook))


class WebhookPage(BaseModel):
    """All webhooks of the project, oldest first."""

    items: list[WebhookView]


class DeliveryView(BaseModel):
    """Delivery of an event to a webhook."""

    id: str = Field(description="Id of the delivery, the header `webhook-id` of each attempt.")
    event: str
    data: dict[str, Any] = Field(description="Member `data` of the body.")
    attempts: int
    due_at: datetime = Field(description="Time of the next attempt, unless it has ended.")
    ended_at: datetime | None
    delivered: bool = Field(description="True if an attempt was answered with 2xx.")
    status: int | None = Field(description="Status of the last response; null: there was none.")
    error: str | None = Field(description="Reason why the last attempt failed.")
    created_at: datetime

    @classmethod
    def of(cls, delivery: Delivery) -> "DeliveryView":
        """Return the view of a delivery."""
        return cls.model_validate(vars(delivery))


class DeliveryPage(BaseModel):
    """Page of deliveries, newest first."""

    items: list[DeliveryView]
    next_cursor: str | None = Field(
        description="Cursor of the next page; null: this is the last page."
    )

    @classmethod
    def of(cls, page: Page[Delivery]) -> "DeliveryPage":
        """Return the view of a page."""
        return cls.model_validate(bounded(page, DeliveryView.of), from_attributes=True)
