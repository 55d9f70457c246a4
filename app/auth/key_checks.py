"""Keys of requests that take long: looked at again, since they may be revoked meanwhile."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Message, Receive, Send

from app.auth.callers import Callers
from app.problems.problem import Problem
from models_store.errors import StoreError

log = logging.getLogger(__name__)

_LOOK_S = 1.0


class Lease:
    """Permission for one request: a key that holds.

    Attributes:
        ended: why it does not hold any more; None as long as it does.
    """

    def __init__(self) -> None:
        self.ended: Problem | None = None
        self._told: list[Callable[[], None]] = []

    def on_end(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once the key does not hold any more."""
        self._told.append(tell)

    def end(self, problem: Problem) -> None:
        """End the request: the next piece of its body or its answer is the last."""
        self.ended = problem
        for tell in self._told:
            tell()

    def receiving(self, receive: Receive) -> Receive:
        """Wrap `receive`: what comes after the end is refused."""

        async def checked() -> Message:
            message = await receive()
            if self.ended is not None and message["type"] == "http.request":
                raise self.ended
            return message

        return checked

    def sending(self, send: Send) -> Send:
        """Wrap `send`: an answer is cut off at the end, unless it is told of it, or a refusal."""
        refusing = False

        async def checked(message: Message) -> None:
            nonlocal refusing
            if self.ended is not None and not (self._told or refusing):
                refusing = message["type"] == "http.response.start" and message["status"] >= 400
                if not refusing:
                    raise self.ended
            await send(message)

        return checked


class Leases:
    """The keys behind the requests under way; belongs to one event loop.

    Args:
        callers: knows which keys hold.
    """

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._open: dict[bytes, set[Lease]] = {}

    @contextmanager
    def lease(self, authorization: list[bytes]) -> Iterator[Lease]:
        """Serve a request as long as the context lasts, and its key holds.

        Args:
            authorization: the headers that it was let in with.
        """
        key, lease = b"\n".join(authorization), Lease()
        leases = self._open.setdefault(key, set())
        leases.add(lease)
        try:
            yield lease
        finally:
            leases.discard(lease)
            if not leases and self._open.get(key) is leases:
                del self._open[key]

    async def run(self) -> None:
        """Look at each key once a second, for ever; one look serves all requests of a key."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for key in list(self._open):
                await self._check(key)

    async def _check(self, key: bytes) -> None:
        try:
            await self._callers.identify([key] if key else [])
        except Problem as problem:
            if problem.status != 401:
                return
            detail = "The API key was revoked or has expired."
            for lease in list(self._open.get(key, ())):
                lease.end(Problem(problem.type.slug, detail, headers=problem.headers))
        except StoreError as error:
            log.warning("keys cannot be looked at, requests go on: %s", error)
        except Exception:  # all keys live on this
            log.exception("keys cannot be looked at, requests go on")
