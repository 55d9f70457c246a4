"""Callers: project and scope of the API key of a request, cached for two seconds."""

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from starlette.requests import Request
from starlette.types import Scope as AsgiScope

from app.auth.identity import Issuer, Person, Proxy, SignIn
from app.http.exchange import Exchange, exchange_of
from app.limits import Caller
from app.problems.problem import Problem
from app.remembered import Remembered
from models_store.errors import DatabaseError
from models_store.keys import Keys, Scope

DEFAULT_PROJECT = "default"
KNOWN_FOR_S = 2.0
"""Seconds for which a key is valid without another query."""
_SCHEME = b"bearer"
_KEY = b"key_"
_PROJECT = b"x-project"
_MAX_KNOWN = 10_000
_READERS = 2

_Value = TypeVar("_Value")


ANYBODY = Caller(DEFAULT_PROJECT, Scope.ADMIN)
"""Caller of a service that has no keys."""


class Callers:
    """Cache of callers by the key in their `Authorization` header; belongs to one event loop.

    Keys are read in threads that nothing else uses, so that no request delays the next one.

    Args:
        keys: Keys of all projects.
        anonymous: True if no key is needed as long as none was ever made.
        known_for_s: Seconds for which a key is valid without another query.
        stale_s: Seconds for which a key is valid while the database cannot be reached.
        issuer: Issuer whose tokens are accepted beside keys.
        proxy: Proxies whose word about who is signed in is taken.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        anonymous: bool,
        known_for_s: float = KNOWN_FOR_S,
        stale_s: float = 0.0,
        issuer: Issuer | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._keys = keys
        self._anonymous = anonymous
        self._known_for_s = known_for_s
        self._stale_s = stale_s
        self._known: dict[bytes, Remembered[Caller | Person | None]] = {}
        self._used: set[str] = set()
        self._issuer = issuer
        self._proxy = proxy
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="keys")
        # An issuer that is slow delays nobody who has a key.
        self._issuer_pool = ThreadPoolExecutor(1, thread_name_prefix="issuer")
        self._keyless = self._remembered(lambda: not keys.exist(), self._pool, stale_s=stale_s)

    def close(self) -> None:
        """Read no further keys."""
        for pool in (self._pool, self._issuer_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    async def sign_in(self) -> SignIn | None:
        """Return how a page signs somebody in; None without an issuer, or while it is away."""
        if self._issuer is None:
            return None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._issuer_pool, self._issuer.sign_in)

    def at_hand(self, exchange: Exchange) -> Caller | None:
        """Return the caller of a request whose key was looked up a moment ago; None: `identify` finds out."""
        authorization = exchange.head.get(b"authorization")
        if authorization is None:
            # No proxy may speak for others as long as nobody needs a key.
            return ANYBODY if self._anonymous and self._keyless.at_hand(self._known_for_s) else None
        if self._anonymous or exchange.repeats:
            return None
        known = self._known.get(hashlib.sha256(_token(authorization)).digest())
        caller = None if known is None else known.at_hand(self._known_for_s)
        if not isinstance(caller, Caller):
            return None
        if caller.key_id is not None:
            self._used.add(caller.key_id)
        return caller

    async def identify(self, authorization: list[bytes], scope: AsgiScope | None = None) -> Caller:
        """Return the caller who sent these `Authorization` headers, or for whom a trusted proxy speaks.

        Args:
            authorization: The headers.
            scope: Request, of whose other headers some count for those who signed in.

        Raises:
            Problem: `unauthorized`, `forbidden` for somebody who may not use the project, or `issuer-away`.
            DatabaseError: The keys cannot be read.
        """
        if self._anonymous:
            # Who sends a key knows of a first one, made a moment ago.
            fresh_s = 0.0 if authorization else self._known_for_s
            self._anonymous = await self._keyless.get(fresh_s)  # keys are never deleted
            if self._anonymous:
                return ANYBODY
        person = None if authorization else self._proxied(scope)
        if person is not None:
            return person.caller(_wanted_project(scope))
        if len(authorization) != 1:
            raise _unauthorized("Send one `Authorization: Bearer` header with an API key.")
        caller = await self._bearer(_token(authorization[0]))
        if isinstance(caller, Person):
            return caller.caller(_wanted_project(scope))
        if caller is None:
            raise _unauthorized(
                "The API key is not valid: it is unknown, revoked or expired, or the header is not `Authorization: Bearer key_...`.",
                error='error="invalid_token"',
            )
        if caller.key_id is not None:
            self._used.add(caller.key_id)
        return caller

    def take_used(self) -> set[str]:
        """Return the ids of the keys that were used since the last call."""
        used, self._used = self._used, set()
        return used

    def _proxied(self, scope: AsgiScope | None) -> Person | None:
        """Return the person for whom a trusted proxy sends a request."""
        if self._proxy is None or scope is None:
            return None
        address = scope["client"][0] if scope.get("client") else None
        return self._proxy.person(address, scope["headers"])

    async def _bearer(self, token: bytes) -> Caller | Person | None:
        digest = hashlib.sha256(token).digest()
        known = self._known.get(digest)
        if known is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            known = self._known[digest] = self._reader_of(token)
        caller = None
        try:
            caller = await known.get(self._known_for_s)
            return caller
        finally:
            if caller is None:  # of texts that are no keys, any number can be sent
                self._known.pop(digest, None)

    def _reader_of(self, token: bytes) -> Remembered[Caller | Person | None]:
        text = token.decode("latin-1")
        if self._issuer is not None and not token.startswith(_KEY):
            person = partial(self._issuer.person, text)
            return self._remembered(person, self._issuer_pool, stale_s=0.0)
        return self._remembered(partial(self._look_up, text), self._pool, stale_s=self._stale_s)

    @staticmethod
    def _remembered(
        read: Callable[[], _Value], pool: ThreadPoolExecutor, *, stale_s: float
    ) -> Remembered[_Value]:
        def query() -> asyncio.Future[_Value]:
            return asyncio.get_running_loop().run_in_executor(pool, read)

        return Remembered(query, stale_s=stale_s)

    def _look_up(self, token: str) -> Caller | None:
        key = self._keys.bearer(token)
        return None if key is None else Caller(key.project, key.scope, key.id, key.rate)


async def check_again(scope: AsgiScope) -> None:
    """Look whether the key of a request that lasts is still valid.

    Raises:
        Problem: `unauthorized`.
    """
    callers: Callers = scope["app"].state.callers
    try:
        await callers.identify(authorization_of(scope), scope)
    except DatabaseError:
        return  # what has begun goes on
    except Problem as problem:
        if problem.status == 401:
            raise _unauthorized("The API key was revoked or has expired.") from None


def authorization_of(scope: AsgiScope) -> list[bytes]:
    """Return the `Authorization` headers of a request."""
    return [value for name, value in scope["headers"] if name == b"authorization"]


def _wanted_project(scope: AsgiScope | None) -> str | None:
    """Return the project that somebody who may use several names in a header."""
    if scope is None:
        return None
    found = [value for name, value in scope["headers"] if name == _PROJECT]
    return found[0].decode("latin-1") if found else None


def _token(authorization: bytes) -> bytes:
    """Return the key in a header, empty if there is none: however it is spelled, it is one key."""
    scheme, _, token = authorization.partition(b" ")
    return token.strip(b" ") if scheme.lower() == _SCHEME else b""


def _unauthorized(detail: str, *, error: str = "") -> Problem:
    challenge = 'Bearer realm="densityd"' + (f", {error}" if error else "")
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": challenge})


def caller_of(request: Request) -> Caller:
    """Return the caller of a request."""
    caller = exchange_of(request).caller
    assert caller is not None  # noqa: S101  the routes that ask are open to nobody
    return caller


def project_of(request: Request) -> str:
    """Return the project of a request's caller."""
    return exchange_of(request).project
