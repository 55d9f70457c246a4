"""Webhooks: URLs that are notified when jobs end."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response, status

from app.dependencies import ProjectDep, StateDep
from app.http.json_body import json_body, json_request
from app.limits import FairRoute
from app.problems.problem import problem_responses
from app.resources.listing import LINKED, PagingDep
from app.root_path import rooted
from app.webhooks.views import (
    DeliveryPage,
    DeliveryView,
    SecretWebhookView,
    WebhookPage,
    WebhookRequest,
    WebhookView,
)
from models_store.webhooks.addresses import check_url

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=FairRoute)

WebhookId = Annotated[
    str,
    Path(
        max_length=100,
        description="Id of the webhook.",
        examples=["wh_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f"],
    ),
]
_EXAMPLES = {
    "all": {"summary": "Every end of a job", "value": {"url": "https://example.org/densityd"}},
    "failures": {
        "summary": "Failures alone",
        "value": {"url": "https://example.org/alarm", "events": ["job.failed"]},
    },
}


@router.post(
    "",
    operation_id="create_webhook",
    summary="Create a webhook",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=json_request(WebhookRequest, examples=_EXAMPLES),
    responses={
        201: {
            "description": "Webhook with its secret, which is not shown again.",
            "headers": {
                "Location": {"description": "URL of the webhook.", "schema": {"type": "string"}}
            },
        },
        **problem_responses("limit-webhooks"),
    },
)
def create_webhook(
    body: Annotated[WebhookRequest, Depends(json_body(WebhookRequest))],
    state: StateDep,
    project: ProjectDep,
    response: Response,
) -> SecretWebhookView:
    """Notify a URL when jobs of the project end, with POST requests that the secret signs."""
    check_url(body.url, private=state.settings.webhook_private_addresses)
    made = state.webhooks.create(
        project, body.url, events=list(dict.fromkeys(body.events)), description=body.description
    )
    response.headers["Location"] = rooted(f"{router.prefix}/{made.id}")
    return SecretWebhookView.of(made)


@router.get("", operation_id="list_webhooks", summary="List webhooks")
def list_webhooks(state: StateDep, project: ProjectDep) -> WebhookPage:
    """List the webhooks of the project, without their secrets."""
    return WebhookPage(items=[WebhookView.of(one) for one in state.webhooks.list(project)])


@router.get(
    "/{webhook_id}",
    operation_id="get_webhook",
    summary="Get a webhook",
    responses=problem_responses("not-found"),
)
def get_webhook(webhook_id: WebhookId, state: StateDep, project: ProjectDep) -> WebhookView:
    """Return a webhook, without its secret."""
    return WebhookView.of(state.webhooks.get(project, webhook_id))


@router.delete(
    "/{webhook_id}",
    operation_id="delete_webhook",
    summary="Delete a webhook",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="The webhook is deleted.",
    responses=problem_responses("not-found"),
)
def delete_webhook(webhook_id: WebhookId, state: StateDep, project: ProjectDep) -> None:
    """Delete a webhook and its pending deliveries."""
    state.webhooks.delete(project, webhook_id)


@router.post(
    "/{webhook_id}/rotate",
    operation_id="rotate_webhook",
    summary="Change the secret of a webhook",
    response_description="Webhook with its new secret, which is not shown again.",
    responses=problem_responses("not-found"),
)
def rotate_webhook(
    webhook_id: WebhookId, state: StateDep, project: ProjectDep
) -> SecretWebhookView:
    """Give a webhook another secret, at once, and enable it again if it was disabled."""
    return SecretWebhookView.of(state.webhooks.rotate(project, webhook_id))


@router.post(
    "/{webhook_id}/test",
    operation_id="test_webhook",
    summary="Test a webhook",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="Delivery that will be attempted.",
    responses=problem_responses("not-found", "conflict"),
)
def test_webhook(webhook_id: WebhookId, state: StateDep, project: ProjectDep) -> DeliveryView:
    """Send the event `webhook.test` to a webhook; the list of deliveries shows the outcome."""
    return DeliveryView.of(state.webhooks.test(project, webhook_id))


@router.get(
    "/{webhook_id}/deliveries",
    operation_id="list_deliveries",
    summary="List the deliveries of a webhook",
    response_description="Page of deliveries.",
    responses={**LINKED, **problem_responses("not-found", "cursor")},
)
def list_deliveries(
    webhook_id: WebhookId, state: StateDep, project: ProjectDep, paging: PagingDep
) -> DeliveryPage:
    """List the deliveries of a webhook, newest first; they are kept for a week after their end."""
    page = state.webhooks.deliveries(project, webhook_id, limit=paging.limit, cursor=paging.cursor)
    return paging.view(page, DeliveryView.of, DeliveryPage)
