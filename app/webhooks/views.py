"""Request and response models of webhooks."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.resources.labels import DESCRIPTION, TAGS
from app.resources.listing import NEXT_CURSOR
from app.resources.view import View
from models_store.label_types import MAX_DESCRIPTION
from models_store.schema_of import SchemaOf
from models_store.webhooks.addresses import MAX_URL
from models_store.webhooks.webhooks import Event

_ALL: list[Event] = ["job.succeeded", "job.failed", "job.cancelled", "model.drifted"]
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
        description="Public https URL that receives a POST request for each event."
    )
    events: list[Event] = Field(
        default=_ALL,
        min_length=1,
        max_length=len(_ALL),
        fail_fast=True,
        description="Events that are sent to the URL.",
    )
    description: Annotated[
        str | None, StringConstraints(max_length=MAX_DESCRIPTION, pattern=r"^[^\x00]*$")
    ] = Field(default=None, description="Free text that says what the webhook is for.")


class WebhookView(View):
    """Webhook of the project."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str = Field(description="Id of the webhook.")
    url: str = Field(description="URL that receives a POST request for each event.")
    events: list[str] = Field(description="Events that are sent to the URL.")
    description: str | None = DESCRIPTION
    created_at: datetime = Field(description="Time at which the webhook was created.")
    disabled_at: datetime | None = Field(
        description="Time at which it was disabled, because an event could not be delivered for"
        " three days, or because it answered 410; `rotate` enables it again."
    )


class SecretWebhookView(WebhookView):
    """Webhook with its secret, which is shown once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{**_EXAMPLE, "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7o="}]
        }
    )

    secret: str = Field(
        description="Secret that signs the deliveries, as defined by Standard Webhooks."
    )


class WebhookPage(BaseModel):
    """All webhooks of the project, oldest first."""

    items: list[WebhookView] = Field(description="Webhooks of the project.")


class ReportedModel(BaseModel):
    """Model of a job that has ended."""

    name: str | None = Field(description="Name of the model; null if there is none.")
    version: int | None = Field(description="Number of the version; null if there is none.")


class ReportedError(BaseModel):
    """Reason why a job failed."""

    code: str = Field(description="Stable name of the reason.")
    detail: str | None = Field(description="Explanation of this occurrence.")


class EndedJob(BaseModel):
    """Job that has ended, as reported to a webhook."""

    id: str = Field(description="Id of the job.")
    kind: str = Field(description="Kind of the job.")
    state: str = Field(description="State that it ended in.")
    attempt: int = Field(description="Number of times that a worker has started the job.")
    model: ReportedModel = Field(description="Model that the job trained or used.")
    error: ReportedError | None = Field(
        description="Reason why the job failed; null if it did not."
    )
    tags: dict[str, str] = TAGS
    url: str = Field(description="URL of the job.")


class DriftedModel(BaseModel):
    """Version whose scored rows of one day have drifted, as reported to a webhook."""

    model: ReportedModel = Field(description="The version.")
    day: str = Field(description="The day, in UTC.")
    rows: int = Field(description="Rows that it had scored on that day.")
    statistic: float = Field(
        description="Largest difference of cumulative shares between their ranks and those of held-out rows."
    )
    p_value: float = Field(description="Probability of so large a distance without drift.")
    columns: list[str] = Field(description="Columns that have drifted by themselves.")
    url: str = Field(description="URL of the counts.")


class TestedWebhook(BaseModel):
    """Webhook that was tested, as reported to it."""

    id: str = Field(description="Id of the webhook.")
    url: str = Field(description="URL of the webhook.")


class DeliveryView(View):
    """Delivery of an event to a webhook."""

    id: str = Field(description="Id of the delivery, the header `webhook-id` of each attempt.")
    event: str = Field(description="Event, such as `job.succeeded`.")
    data: Annotated[dict[str, Any], SchemaOf(EndedJob | DriftedModel | TestedWebhook)] = Field(
        description="Object that the event is about, as sent to the URL."
    )
    attempts: int = Field(description="Number of attempts so far.")
    due_at: datetime = Field(description="Time of the next attempt, unless it has ended.")
    ended_at: datetime | None = Field(
        description="Time at which it was delivered or abandoned; null while it is pending."
    )
    delivered: bool = Field(description="True if a response had a status of 2xx.")
    status: int | None = Field(description="Status of the last response; null if there was none.")
    error: str | None = Field(description="Reason why the last attempt failed.")
    created_at: datetime = Field(description="Time of the event.")


class DeliveryPage(BaseModel):
    """Page of deliveries, newest first."""

    items: list[DeliveryView] = Field(description="Deliveries of the page.")
    next_cursor: str | None = NEXT_CURSOR
