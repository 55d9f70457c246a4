"""Who asks: the project and the scope behind a request's API key, remembered for a second."""

import asyncio
import hashlib
import time
from dataclasses import dataclass

from app.problems import Problem
from models_store.errors import StoreError
from models_store.keys import Keys, Scope

DEFAULT_PROJECT = "default"
_SCHEME = "bearer"
_MAX_KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Args:
        project: whose things are seen.
        scope: what may be done to them.
        key_id: the key that was shown; None: none is needed.
        rate: requests a second; None: as the settings have it.
    """

    project: str
    scope: Scope
    key_id: str | None = None
    rate: float | None = None


ANYBODY = Caller(DEFAULT_PROJECT, Scope.ADMIN)
"""Whoever reaches a service that has no keys."""


@dataclass(frozen=True, slots=True)
class _Known:
    look: "asyncio.Task[Caller | None]"
    until: float


class Callers:
    """Turns `Authorization` headers into callers; belongs to one event loop.

    Args:
        keys: of all projects.
        anonymous: whether no key is needed as long as none was ever made.
        known_for_s: how long a key counts without another look: one that is revoked still opens
            for so long.
    """

    def __init__(self, keys: Keys, *, anonymous: bool, known_for_s: float = 1.0) -> None:
        self._keys = keys
        self._anonymous = anonymous
        self._known_for_s = known_for_s
        self._known: dict[bytes, _Known] = {}
        self._keyless_until = 0.0

    async def identify(self, authorization: list[bytes]) -> Caller:
        """Return who sent these `Authorization` headers.

        Raises:
            Problem: `unauthorized`.
            DatabaseError: the keys cannot be read.
        """
        if self._anonymous and await self._no_keys():
            return ANYBODY
        if len(authorization) != 1:
            raise _unauthorized("Send one `Authorization: Bearer` header with an API key.")
        caller = await self._bearer(authorization[0])
        if caller is None:
            raise _unauthorized("The API key is not valid.", error='error="invalid_token"')
        return caller

    async def _no_keys(self) -> bool:
        now = time.monotonic()
        if now >= self._keyless_until:
            if await asyncio.to_thread(self._keys.exist):
                self._anonymous = False  # keys are never deleted
                return False
            self._keyless_until = now + self._known_for_s
        return True

    async def _bearer(self, authorization: bytes) -> Caller | None:
        digest = hashlib.sha256(authorization).digest()
        known, now = self._known.get(digest), time.monotonic()
        if known is None or now >= known.until:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            look = asyncio.create_task(asyncio.to_thread(self._look_up, authorization))
            known = self._known[digest] = _Known(look, now + self._known_for_s)
        try:
            # Shielded: others may wait for the same look.
            return known.look.result() if known.look.done() else await asyncio.shield(known.look)
        except StoreError:
            self._known.pop(digest, None)  # whoever comes next tries again
            raise

    def _look_up(self, authorization: bytes) -> Caller | None:
        scheme, _, token = authorization.decode("latin-1").partition(" ")
        key = self._keys.bearer(token.strip()) if scheme.lower() == _SCHEME else None
        return None if key is None else Caller(key.project, key.scope, key.id, key.rate)


def _unauthorized(detail: str, *, error: str = "") -> Problem:
    challenge = 'Bearer realm="densityd"' + (f", {error}" if error else "")
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": challenge})
