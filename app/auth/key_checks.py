"""Keys of requests that take long, and the files that they read: either may be gone meanwhile."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope as AsgiScope, Send

from app.auth.callers import Callers
from app.fairness.turns import in_thread
from app.problems.problem import Problem
from models_store.errors import StoreError

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_DELETED_S = 10.0  # for which responses go on that read a file which was deleted


class Lease:
    """Permission for one request, as long as its key is valid and the files that it reads exist.

    Attributes:
        ended: Problem of the key or of a file; None as long as both are there.
        files: Stored files that the response reads.
    """

    def __init__(self) -> None:
        self.ended: Problem | None = None
        self.files: list[Path] = []
        self._told: list[Callable[[], None]] = []

    def on_end(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once the key is no longer valid."""
        self._told.append(tell)

    def end(self, problem: Problem) -> None:
        """End the request at the next chunk of its body."""
        self.ended = problem
        for tell in self._told:
            tell()

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
            await send(message)

        return checked


class Leases:
    """Keys of the requests that are being served; belongs to one event loop.

    Args:
        callers: Cache that tells which keys are valid.
    """

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._open: dict[bytes, set[Lease]] = {}
        self._deleted: dict[Path, float] = {}  # and when that was noticed

    @contextmanager
    def lease(self, authorization: list[bytes]) -> Iterator[Lease]:
        """Yield the permission for a request, checked until the end of the context.

        Args:
            authorization: `Authorization` headers of the request.

        Raises:
            Problem: Of the key, in place of `ClientDisconnect`, where the response was broken off.
        """
        key, lease = b"\n".join(authorization), Lease()
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

    async def watch_files(self) -> None:
        """Look once a second, for ever, whether files are deleted that responses read.

        What has one open keeps its bytes on the disk, where they count in no quota, for as long as its
        caller likes.
        """
        while True:
            await asyncio.sleep(_LOOK_S)
            reading = [lease for leases in self._open.values() for lease in leases if lease.files]
            try:
                await self._end_deleted(reading)
            except Exception:  # the quotas of all projects depend on this
                log.exception("files cannot be looked at, responses continue")

    async def _end_deleted(self, reading: list[Lease]) -> None:
        files = {file for lease in reading for file in lease.files}
        missing = await in_thread(_missing, files) if files else []
        now = time.monotonic()
        self._deleted = {file: self._deleted.get(file, now) for file in missing}
        over = {file for file, since in self._deleted.items() if now - since >= _DELETED_S}
        for lease in reading:
            if lease.ended is None and not over.isdisjoint(lease.files):
                lease.end(Problem("not-found", "It was deleted while it was being sent."))


def _missing(files: Iterable[Path]) -> list[Path]:
    return [file for file in files if not file.exists()]


def tell_of_file(scope: AsgiScope, file: Path) -> None:
    """Have the response to a request end a while after a file that it reads is deleted.

    Args:
        scope: Scope of the request.
        file: File, which is never made again once it is deleted.
    """
    lease: Lease | None = scope.get("state", {}).get("lease")
    if lease is not None:
        lease.files.append(file)
