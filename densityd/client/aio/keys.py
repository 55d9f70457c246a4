"""API keys of the project, for callers with the scope `admin`."""

from densityd.client.aio.transport import AsyncTransport
from densityd.client.call import Call, Retry, build_path, encode_json
from densityd.client.records import Key, KeyList, NewKey

_PATH = "/v1/keys"
Found = list[Key]  # inside the class, `list` is its method


class AsyncKeys:
    """API keys of the project."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
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
        return await self._transport.send(call)

    async def list(self) -> Found:
        """Return the keys of the project, oldest first, with expired and revoked ones."""
        return (await self._transport.send(Call("GET", _PATH, KeyList.of))).items

    async def get(self, key_id: str) -> Key:
        """Return a key."""
        return await self._transport.send(Call("GET", build_path(_PATH, key_id), Key.of))

    async def rotate(self, key_id: str, *, grace_s: int = 0) -> NewKey:
        """Create a key like another one, which ends.

        Args:
            key_id: Id of the old key.
            grace_s: Seconds for which the old key is still valid.
        """
        path = build_path(_PATH, key_id, "rotate")
        body = encode_json({"grace_s": grace_s})
        call = Call("POST", path, NewKey.of, body=body, retry=Retry.REFUSED)
        return await self._transport.send(call)

    async def revoke(self, key_id: str) -> Key:
        """Revoke a key for good."""
        return await self._transport.send(Call("DELETE", build_path(_PATH, key_id), Key.of))
