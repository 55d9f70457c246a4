# Generated from densityd/client/aio/keys.py by tools/sync_client.py; do not edit.
"""API keys of the project, for callers with the scope `admin`."""

from densityd.client.call import Call, Retry, build_path, encode_json
from densityd.client.records import Key, KeyList, NewKey
from densityd.client.sync.transport import Transport

_PATH = "/v1/keys"
Found = list[Key]  # inside the class, `list` is its method


class Keys:
    """API keys of the project."""

    def __init__(self, transport: Transport) -> None:
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
            label: Text for people.
            expires_days: Days until the key expires; None: never.
            rate: Most requests per second; None: the usual.
        """
        body = {"scope": scope, "label": label, "expires_days": expires_days, "rate": rate}
        call = Call("POST", _PATH, NewKey.of, body=encode_json(body), retry=Retry.REFUSED)
        return self._transport.send(call)

    def list(self) -> Found:
        """Return the keys of the project, oldest first, with expired and revoked ones."""
        return (self._transport.send(Call("GET", _PATH, KeyList.of))).items

    def get(self, key_id: str) -> Key:
        """Return a key."""
        return self._transport.send(Call("GET", build_path(_PATH, key_id), Key.of))

    def rotate(self, key_id: str, *, grace_s: int = 0) -> NewKey:
        """Create a key like another one, which ends.

        Args:
            key_id: Id of the old key.
            grace_s: Seconds for which the old key is still valid.
        """
        path = build_path(_PATH, key_id, "rotate")
        body = encode_json({"grace_s": grace_s})
        call = Call("POST", path, NewKey.of, body=body, retry=Retry.REFUSED)
        return self._transport.send(call)

    def revoke(self, key_id: str) -> Key:
        """Revoke a key for good."""
        return self._transport.send(Call("DELETE", build_path(_PATH, key_id), Key.of))
