"""Callers: project and scope of the API key of a request, cached for a second."""

import asyncio
import hashlib
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from starlette.requests import Request

from app.fairness.turns import QueueFullError, Turns
from app.problems.problem import Problem
from models_store.errors import DatabaseError
from models_store.keys import Keys, Scope

DEFAULT_PROJECT = "default"
_SCHEME = b"bearer"
_MAX_KNOWN = 10_000
_SUBNET = 64  # bits
_MAX_NEW = 64  # queries for unknown keys of one address that wait; more are refused


@dataclass(frozen=True, slots=True)
class Caller:
    """Sender of a request.

    Args:
        project: Project that the caller belongs to.
        scope: Scope of the key.
        key_id: Id of the key; None where none is needed.
        rate: Requests per second; None for the rate of the settings.
    """

    project: str
    scope: Scope
    key_id: str | None = None
    rate: float | None = None


ANYBODY = Caller(DEFAULT_PROJECT, Scope.ADMIN)
"""Caller of a service that has no keys."""


@dataclass(slots=True)
class _Known:
    """Caller of a key, and the query for it that is running."""

    caller: Caller | None = None
    looked_at: float = -math.inf
    failed_at: float = -math.inf  # when the database did not answer
    silent: bool = False  # the look takes longer than anybody waits for it
    look: "asyncio.Task[Caller | None] | None" = None


class Callers:
    """Cache of callers by the key in their `Authorization` header; belongs to one event loop.

    Keys are read in threads that nothing else uses, so that no request delays the next one. A key
    in use is read again beside its requests, which do not wait for that, and unknown keys have a
    thread of their own.

    Args:
        keys: Keys of all projects.
        anonymous: True if no key is needed as long as none was ever made.
        known_for_s: Seconds for which a key is valid without another query, and again while that is
            running: a key that was revoked is accepted for as long.
        stale_s: Seconds for which a key is valid while the database cannot be reached.
    """

    def __init__(
        self, keys: Keys, *, anonymous: bool, known_for_s: float = 1.0, stale_s: float = 0.0
    ) -> None:
        self._keys = keys
        self._anonymous = anonymous
        self._known_for_s = known_for_s
        self._stale_s = stale_s
        self._known: dict[bytes, _Known] = {}
        self._used: set[str] = set()
        self._keyless_until = self._keyless_stale_at = 0.0
        self._keyless_look: asyncio.Task[None] | None = None
        self._silent = False
        self._new = Turns(1, each=1, waiting=_MAX_NEW)
        self._for_known = ThreadPoolExecutor(1, thread_name_prefix="keys")
        self._for_new = ThreadPoolExecutor(1, thread_name_prefix="new-keys")

    def close(self) -> None:
        """Read no further keys."""
        self._for_known.shutdown(wait=False, cancel_futures=True)
        self._for_new.shutdown(wait=False, cancel_futures=True)

    async def identify(
        self, authorization: list[bytes], *, client: tuple[str, int] | None = None
    ) -> Caller:
        """Return the caller who sent these `Authorization` headers.

        Args:
            authorization: Values of the headers.
            client: Address of the sender: addresses take turns at unknown keys.

        Raises:
            Problem: `unauthorized`, or `rate-limited` when the address sent too many unknown keys.
            DatabaseError: The keys cannot be read.
        """
        if self._anonymous and await self._no_keys(sure=bool(authorization)):
            return ANYBODY
        if len(authorization) != 1:
            raise _unauthorized("Send one `Authorization: Bearer` header with an API key.")
        caller = await self._bearer(authorization[0], client)
        if caller is None:
            raise _unauthorized(
                "The API key is not valid: it is unknown, revoked or expired, or the header is not `Authorization: Bearer key_...`.",
                error='error="invalid_token"',
            )
        if caller.key_id is not None:
            self._used.add(caller.key_id)
        return caller

    def known_key(self, authorization: bytes) -> str | None:
        """Return the id of the key in an `Authorization` header if it was valid when it was last read."""
        known = self._known.get(_digest(_token(authorization)))
        return None if known is None or known.caller is None else known.caller.key_id

    def take_used(self) -> set[str]:
        """Return the ids of the keys that were used since the last call."""
        used, self._used = self._used, set()
        return used

    async def _no_keys(self, *, sure: bool) -> bool:
        """Return whether there are no keys; who sends one knows of a first one, made a moment ago."""
        if sure and self._keyless_look is not None:
            await self._look_for_keys()  # which began before the request
        if sure or time.monotonic() >= self._keyless_until:
            await self._look_for_keys()
        return self._anonymous

    async def _look_for_keys(self) -> None:
        """Look whether there are keys now; a database that does not answer delays nobody twice."""
        look = self._keyless_look
        if look is None:
            look = self._keyless_look = asyncio.create_task(self._find_keys())
            look.add_done_callback(_retrieve)
        is_stale = time.monotonic() < self._keyless_stale_at
        patience_s = 0.0 if self._silent else self._known_for_s
        await asyncio.wait({look}, timeout=patience_s if is_stale else None)
        if look.done():
            look.result()
        else:
            self._silent = True

    async def _find_keys(self) -> None:
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            exist = await loop.run_in_executor(self._for_known, self._keys.exist)
            self._anonymous = not exist  # keys are never deleted
            self._keyless_stale_at = began + self._stale_s
        except DatabaseError:
            if time.monotonic() >= self._keyless_stale_at:
                raise
        finally:
            self._keyless_look, self._silent = None, False
        self._keyless_until = time.monotonic() + self._known_for_s

    async def _bearer(self, authorization: bytes, client: tuple[str, int] | None) -> Caller | None:
        token = _token(authorization)
        digest = _digest(token)
        known = self._known.get(digest)
        if known is None:
            if len(self._known) >= _MAX_KNOWN:
                self._forget()
            known = self._known[digest] = _Known()
        now = time.monotonic()
        age_s = now - max(known.looked_at, known.failed_at)
        if age_s >= self._known_for_s and known.look is None:
            known.look = self._look(known, token, client)
        if known.look is None or (known.caller is not None and age_s < 2 * self._known_for_s):
            return known.caller
        if self._is_stale(known):  # a database that does not answer delays nobody twice
            look = known.look
            await asyncio.wait({look}, timeout=0.0 if known.silent else self._known_for_s)
            if look.done():
                return look.result()
            known.silent = True
            known.failed_at = time.monotonic()
            return known.caller
        # Shielded: other requests may wait for the same query.
        return await asyncio.shield(known.look)

    def _is_stale(self, known: _Known) -> bool:
        """Return whether a key is to be accepted as it was when the database answered last."""
        return known.caller is not None and time.monotonic() < known.looked_at + self._stale_s

    def _forget(self) -> None:
        """Make room: texts that are no keys go first, since any number of them can be sent."""
        keys = {digest: known for digest, known in self._known.items() if known.caller is not None}
        self._known = {} if len(keys) >= _MAX_KNOWN else keys

    def _look(
        self, known: _Known, token: bytes, client: tuple[str, int] | None
    ) -> "asyncio.Task[Caller | None]":
        """Begin to read a key, in the turn of the address if it is unknown."""
        loop = asyncio.get_running_loop()

        async def read() -> Caller | None:
            if known.caller is not None:
                return await loop.run_in_executor(self._for_known, self._look_up, token)
            try:
                async with self._new.turn(group_of_address(client)):
                    return await loop.run_in_executor(self._for_new, self._look_up, token)
            except QueueFullError:
                detail = "Too many unknown API keys were sent. Try again."
                raise Problem("rate-limited", detail) from None

        async def look() -> Caller | None:
            began = time.monotonic()
            try:
                known.caller = await read()
                known.looked_at, known.failed_at = began, -math.inf
            except DatabaseError:
                if not self._is_stale(known):
                    raise
                known.failed_at = time.monotonic()
            finally:
                known.look, known.silent = None, False
            return known.caller

        task = asyncio.create_task(look())
        task.add_done_callback(_retrieve)  # there may be nobody who waits for it
        return task

    def _look_up(self, token: bytes) -> Caller | None:
        key = self._keys.bearer(token.decode("latin-1"))
        return None if key is None else Caller(key.project, key.scope, key.id, key.rate)


def group_of_address(client: tuple[str, int] | None) -> str:
    """Return the group of the callers at an address; one caller has all of an IPv6 network."""
    host = "" if client is None else client[0].partition("%")[0]
    if ":" in host:
        host = str(IPv6Network((IPv6Address(host), _SUBNET), strict=False))
    return f"address {host}"


def _token(authorization: bytes) -> bytes:
    """Return the key in a header, empty if there is none: however it is spelled, it is one key."""
    scheme, _, token = authorization.partition(b" ")
    return token.strip(b" ") if scheme.lower() == _SCHEME else b""


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _retrieve(look: "asyncio.Task[Caller | None] | asyncio.Task[None]") -> None:
    if not look.cancelled():
        look.exception()


def _unauthorized(detail: str, *, error: str = "") -> Problem:
    challenge = 'Bearer realm="densityd"' + (f", {error}" if error else "")
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": challenge})


def caller_of(request: Request) -> Caller:
    """Return the caller of a request."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


def project_of(request: Request) -> str:
    """Return the project of a request's caller."""
    return caller_of(request).project
