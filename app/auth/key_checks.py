"""Keys of requests that take long: read again, since they may be revoked meanwhile."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Send

from app.auth.callers import Callers
from app.connections.groups import Connection
from app.problems.problem import Problem
from models_store.errors import StoreError

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_FAREWELL_S = 0.5  # of what was informed, to say why it ends


class Lease:
    """Permission for one request, as long as its key is valid.

    Args:
        connection: Connection of the request; None if it has none of its own.

    Attributes:
        ended: Problem of the key; None as long as it is valid.
    """

    def __init__(self, connection: Connection | None = None) -> None:
        self.ended: Problem | None = None
        self._connection = connection
        self._told: list[Callable[[], None]] = []
        self._responding = False  # its response has begun, and is not complete

    def on_end(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once the key is no longer valid."""
        self._told.append(tell)

    def end(self, problem: Problem) -> None:
        """End the request: at the next chunk of its body, or now, though its caller reads slowly."""
        self.ended = problem
        for tell in self._told:
            tell()
        if self._told:
            asyncio.get_running_loop().call_later(_FAREWELL_S, self._break_off)
        else:
            self._break_off()

    def _break_off(self) -> None:
        if self._responding and self._connection is not None:
            self._connection.break_off()

    def receiving(self, receive: Receive) -> Receive:
        """Wrap `receive`: chunks after the end are refused."""

        async def checked() -> Message:
            message = await receive()
            if self.ended is not None and message["type"] == "http.request":
                raise self.ended
            return message

        return checked

    def sending(self, send: Send) -> Send:
        """Wrap `send`: a response is cut off at the end, unless it was informed or is a refusal."""
        refusing = False

        async def checked(message: Message) -> None:
            nonlocal refusing
            if self.ended is not None and not (self._told or refusing):
                refusing = message["type"] == "http.response.start" and message["status"] >= 400
                if not refusing:
                    raise self.ended
            self._responding = True
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._responding = False

        return checked


class Leases:
    """Keys of the requests that are being served; belongs to one event loop.

    Args:
        callers: Cache that tells which keys are valid.
    """

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._open: dict[bytes, set[Lease]] = {}

    @contextmanager
    def lease(
        self, authorization: list[bytes], connection: Connection | None = None
    ) -> Iterator[Lease]:
        """Yield the permission for a request, checked until the end of the context.

        Args:
            authorization: `Authorization` headers of the request.
            connection: Connection of the request; None if it has none of its own.

        Raises:
            Problem: Of the key, in place of `ClientDisconnect`, where the response was broken off.
        """
        key, lease = b"\n".join(authorization), Lease(connection)
        leases = self._open.setdefault(key, set())
        leases.add(lease)
        try:
            yield lease
        except ClientDisconnect:
            if lease.ended is not None:
                raise lease.ended from None
            raise
        finally:
            leases.discard(lease)
            if not leases and self._open.get(key) is leases:
                del self._open[key]

    async def run(self) -> None:
        """Check each key once a second, for ever; one check serves all requests of a key."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for key in list(self._open):
                await self._check(key)

    async def _check(self, key: bytes) -> None:
        try:
            await self._look(key)
        except StoreError as error:
            log.warning("keys cannot be looked at, requests continue: %s", error)
        except Exception:  # all keys live on this
            log.exception("keys cannot be looked at, requests continue")

    async def _look(self, key: bytes) -> None:
        try:
            await self._callers.identify([key] if key else [])
        except Problem as problem:
            if problem.status != 401:
                return
            detail = "The API key was revoked or has expired."
            for lease in list(self._open.get(key, ())):
                lease.end(Problem(problem.type.slug, detail, headers=problem.headers))
