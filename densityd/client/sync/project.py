# Generated from densityd/client/aio/project.py by tools/sync_client.py; do not edit.
"""API keys and webhooks of the project, and all projects for administrators of the service."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from densityd.client.call import Call, Retry, build_deletion, build_path, encode_json
from densityd.client.record import Page
from densityd.client.records import (
    Delivery,
    Key,
    KeyList,
    NewKey,
    Project,
    ProjectList,
    SecretWebhook,
    Webhook,
    WebhookPage,
)

if TYPE_CHECKING:  # httpx takes a while
    from densityd.client.sync.transport import Transport

_KEYS = "/v1/keys"
_PROJECTS = "/v1/projects"
_WEBHOOKS = "/v1/webhooks"


class Keys:
    """API keys of the project."""

    def __init__(self, transport: "Transport") -> None:
        self._transport = transport

    def create(
        self,
        scope: str = "read",
        *,
        label: str | None = None,
        expires_days: float | None = None,
        rate: float | None = None,
    ) -> NewKey:
        """Create a key; only this and `rotate` return its token.

        Args:
            scope: Scope of the key: `read`, `write` or `admin`.
            rate: Most requests per second; None: the usual.
        """
        body = {"scope": scope, "label": label, "expires_days": expires_days, "rate": rate}
        call = Call("POST", _KEYS, NewKey.of, body=encode_json(body), retry=Retry.REFUSED)
        return self._transport.send(call)

    def list(self) -> "Sequence[Key]":
        """Return the keys of the project, oldest first, with expired and revoked ones."""
        return (self._transport.send(Call("GET", _KEYS, KeyList.of))).items

    def get(self, key_id: str) -> Key:
        """Return a key."""
        return self._transport.fetch(Key, _KEYS, key_id)

    def rotate(self, key_id: str, *, grace_s: int = 0) -> NewKey:
        """Create a key like another one, which ends.

        Args:
            grace_s: Seconds for which the old key is still valid.
        """
        path = build_path(_KEYS, key_id, "rotate")
        body = encode_json({"grace_s": grace_s})
        call = Call("POST", path, NewKey.of, body=body, retry=Retry.REFUSED)
        return self._transport.send(call)

    def revoke(self, key_id: str) -> Key:
        """Revoke a key for good."""
        return self._transport.send(Call("DELETE", build_path(_KEYS, key_id), Key.of))


class Projects:
    """Projects of the service, for administrators of the project `default`."""

    def __init__(self, transport: "Transport") -> None:
        self._transport = transport

    def list(self) -> "Sequence[Project]":
        """Return all projects by name."""
        return (self._transport.send(Call("GET", _PROJECTS, ProjectList.of))).items

    def get(self, name: str) -> Project:
        """Return a project."""
        return self._transport.fetch(Project, _PROJECTS, name)

    def put(
        self, name: str, *, max_bytes: int | None = None, max_queued_jobs: int | None = None
    ) -> Project:
        """Make a project, or set its limits.

        Args:
            max_bytes: Most bytes of its files; None: as the service has it.
            max_queued_jobs: Most jobs that wait; None: as the service has it.
        """
        body = encode_json({"max_bytes": max_bytes, "max_queued_jobs": max_queued_jobs})
        call = Call("PUT", build_path(_PROJECTS, name), Project.of, body=body, retry=Retry.ALWAYS)
        return self._transport.send(call)

    def create_key(self, name: str, scope: str = "read", *, label: str | None = None) -> NewKey:
        """Create a key of a project, whose token is not shown again.

        Args:
            scope: Scope of the key: `read`, `write` or `admin`.
        """
        body = encode_json({"scope": scope, "label": label})
        path = build_path(_PROJECTS, name, "keys")
        call = Call("POST", path, NewKey.of, body=body, retry=Retry.REFUSED)
        return self._transport.send(call)


class Webhooks:
    """URLs that are notified when jobs end."""

    def __init__(self, transport: "Transport") -> None:
        self._transport = transport

    def create(
        self, url: str, *, events: Sequence[str] | None = None, description: str | None = None
    ) -> SecretWebhook:
        """Notify a URL when jobs end; only this and `rotate` return the secret.

        Args:
            events: Names of the events, such as `job.failed`; None for all.
        """
        body: dict[str, object] = {"url": url, "description": description}
        body |= {} if events is None else {"events": list(events)}
        call = Call(
            "POST", _WEBHOOKS, SecretWebhook.of, body=encode_json(body), retry=Retry.REFUSED
        )
        return self._transport.send(call)

    def list(self) -> "Sequence[Webhook]":
        """Return the webhooks of the project, oldest first."""
        return (self._transport.send(Call("GET", _WEBHOOKS, WebhookPage.of))).items

    def get(self, webhook_id: str) -> Webhook:
        """Return a webhook."""
        return self._transport.send(Call("GET", build_path(_WEBHOOKS, webhook_id), Webhook.of))

    def rotate(self, webhook_id: str) -> SecretWebhook:
        """Give a webhook another secret, and enable it again."""
        path = build_path(_WEBHOOKS, webhook_id, "rotate")
        return self._transport.send(Call("POST", path, SecretWebhook.of, retry=Retry.REFUSED))

    def test(self, webhook_id: str) -> Delivery:
        """Send a webhook the event `webhook.test`; return its delivery, which is due."""
        path = build_path(_WEBHOOKS, webhook_id, "test")
        return self._transport.send(Call("POST", path, Delivery.of, retry=Retry.REFUSED))

    def deliveries(self, webhook_id: str) -> Iterator[Delivery]:
        """Return an iterator over the deliveries of a webhook, newest first."""
        path = build_path(_WEBHOOKS, webhook_id, "deliveries")
        return self._transport.iter_items(path, Page[Delivery].of)

    def delete(self, webhook_id: str) -> None:
        """Delete a webhook and its pending deliveries."""
        self._transport.send(build_deletion(_WEBHOOKS, webhook_id))
