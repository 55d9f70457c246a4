"""Webhooks of the project."""

from collections.abc import AsyncIterator, Sequence

from densityd.client.aio.transport import AsyncTransport
from densityd.client.call import Call, Retry, build_path, encode_json, ignore
from densityd.client.record import Page
from densityd.client.records import Delivery, SecretWebhook, Webhook, WebhookPage

_PATH = "/v1/webhooks"
Found = list[Webhook]  # inside the class, `list` is its method


class AsyncWebhooks:
    """URLs that are notified when jobs end."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self, url: str, *, events: Sequence[str] | None = None, description: str | None = None
    ) -> SecretWebhook:
        """Notify a URL when jobs end; only this and `rotate` return the secret.

        Args:
            url: Address that gets the events.
            events: Names of the events, such as `job.failed`; None for all.
            description: Text for people.
        """
        body: dict[str, object] = {"url": url, "description": description}
        body |= {} if events is None else {"events": list(events)}
        call = Call("POST", _PATH, SecretWebhook.of, body=encode_json(body), retry=Retry.REFUSED)
        return await self._transport.send(call)

    async def list(self) -> Found:
        """Return the webhooks of the project, oldest first."""
        return (await self._transport.send(Call("GET", _PATH, WebhookPage.of))).items

    async def get(self, webhook_id: str) -> Webhook:
        """Return a webhook."""
        return await self._transport.send(Call("GET", build_path(_PATH, webhook_id), Webhook.of))

    async def rotate(self, webhook_id: str) -> SecretWebhook:
        """Give a webhook another secret, and enable it again."""
        path = build_path(_PATH, webhook_id, "rotate")
        return await self._transport.send(Call("POST", path, SecretWebhook.of, retry=Retry.REFUSED))

    async def test(self, webhook_id: str) -> Delivery:
        """Send a webhook the event `webhook.test`; return its delivery, which is due."""
        path = build_path(_PATH, webhook_id, "test")
        return await self._transport.send(Call("POST", path, Delivery.of, retry=Retry.REFUSED))

    def deliveries(self, webhook_id: str) -> AsyncIterator[Delivery]:
        """Return an iterator over the deliveries of a webhook, newest first."""
        path = build_path(_PATH, webhook_id, "deliveries")
        return self._transport.iter_items(path, Page[Delivery].of)

    async def delete(self, webhook_id: str) -> None:
        """Delete a webhook and its pending deliveries."""
        path = build_path(_PATH, webhook_id)
        await self._transport.send(Call("DELETE", path, ignore, retry=Retry.REFUSED))
