"""Memory and disk space of requests and their results, bounded for all of them together."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from threading import RLock
from typing import TypeVar
from weakref import WeakSet

from fastapi import Request

from app.auth.callers import project_of
from app.fairness.turns import QueueFullError, Turns
from app.http.pieces import Pieces
from app.problems.problem import Problem

STREAMS_PART = 0.75
"""Part of the memory that streamed responses may take; bodies, which cannot wait, have the rest."""

_PATIENCE_S = 10.0
_LOOK_S = 0.05
_MOST_WAITING = 512  # of a project: as many as its keys have open, unless the settings allow more

_Piece = TypeVar("_Piece")


class BodyMemory:
    """Counter of the bytes of bodies and results that are kept in memory, or on the disk.

    Each is small, but callers who send slowly can have thousands of them at once. A project holds no
    more than is left over: half of the memory where it is alone, a third where another does the same,
    so that a project that holds little always finds room.

    Args:
        max_bytes: Most bytes of all bodies together.
        left: Function that returns how many more there is place for, such as on a disk; None: any number.

    Attributes:
        rooms: Shares of what could not be divided, of all projects.
        looks: Turns at looking for room, of which each project has one.
    """

    def __init__(self, max_bytes: int, *, left: Callable[[], int] | None = None) -> None:
        self._max_bytes = max_bytes
        self._left = left
        self._held = 0
        self._held_by: Counter[str] = Counter()
        self._lock = RLock()  # a share may be released where its last owner is, even in here
        self.rooms: WeakSet[Share] = WeakSet()
        self.looks = Turns(sys.maxsize, each=1, waiting=_MOST_WAITING)
        self._patience: dict[str, set[asyncio.Timeout]] = {}

    @asynccontextmanager
    async def patience(self, project: str) -> AsyncIterator[None]:
        """Bound the time that a caller waits since it came, or since one of the project had its turn.

        Raises:
            TimeoutError: It waits no longer.
        """
        async with asyncio.timeout(_PATIENCE_S) as limit:
            waiting = self._patience.setdefault(project, set())
            waiting.add(limit)
            try:
                yield
            finally:
                waiting.remove(limit)
                if not waiting:
                    del self._patience[project]

    def renew_patience(self, project: str) -> None:
        """Let all who wait begin to wait anew: there is room now and then, and each has a turn at it."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        for limit in self._patience.get(project, ()):
            if not limit.expired():
                limit.reschedule(deadline)

    @property
    def held(self) -> int:
        """Bytes that all bodies take now."""
        return self._held

    def of(self, project: str) -> "ProjectMemory":
        """Return the memory of the bodies of a project."""
        return ProjectMemory(self, project)

    def change(self, project: str, size: int) -> None:
        """Count `size` bytes more, or fewer where it is negative.

        Raises:
            Problem: `overloaded`, when that is too much.
        """
        with self._lock:
            self._held += size
            self._held_by[project] += size
            if self._held_by[project] == 0:
                del self._held_by[project]
        if size > 0 and self._held_by[project] > self._room(self._max_bytes - self._held):
            raise Problem("overloaded", "Too many bodies and results are on their way. Try again.")

    def has_room(self, project: str, size: int, *, part: float = 1.0) -> bool:
        """Return whether `size` bytes more of a project, with all that is held, fit into a part of the memory."""
        left = self._room(part * self._max_bytes - self._held, size)
        return self._held_by[project] + size <= left

    def _room(self, left: float, size: int = 0) -> float:
        """Return what is left once `size` bytes more are held, of what the bound and the place leave."""
        return (left if self._left is None else min(left, self._left())) - size

    def most_at_once(self, size: int) -> int:
        """Return the bytes to count for what takes `size` and cannot be refused for ever."""
        return min(size, self._max_bytes // 8)


class ProjectMemory:
    """Memory, or disk space, that the bodies of one project take.

    Args:
        memory: Memory of all projects.
        project: Project that the bodies belong to.
    """

    def __init__(self, memory: BodyMemory, project: str) -> None:
        self._memory = memory
        self._project = project

    async def room(
        self,
        size: int | Callable[[], Awaitable[int]],
        *,
        part: float = 1.0,
        share: "Share | None" = None,
    ) -> "Share":
        """Wait until there is room for what cannot be divided; return its share, as `kept_share` does.

        Callers of a project get it in the order in which they came. While none of them has any, the
        first one may take what is kept for others: those that wait and hold something meanwhile do not
        wait for each other, nor a new project for those that had all.

        Args:
            size: Bytes to hold, or a function that makes what is held and returns its bytes, which is
                called when the caller is the first one of the project: others hold nothing meanwhile.
            part: Part of the memory that it must fit into, with all that is held already.
            share: Share of the project that holds them beside what it has; a new one without.

        Raises:
            Problem: `overloaded`, when there is none for a while, or too many wait.
        """
        share = self.kept_share() if share is None else share
        try:
            async with (
                self._memory.patience(self._project),
                self._memory.looks.turn(self._project),
            ):
                bare = size if isinstance(size, int) else await size()
                wanted = share.size + self._memory.most_at_once(bare)
                while not share.may_hold(wanted, part=self._part(part)):  # noqa: ASYNC110 - it is given back in any thread
                    await asyncio.sleep(_LOOK_S)
                self._memory.renew_patience(self._project)
        except (TimeoutError, QueueFullError):
            detail = "Too many responses of many rows are on their way. Try again."
            raise Problem("overloaded", detail) from None
        self._memory.rooms.add(share)
        return share

    def _part(self, part: float) -> float:
        has_some = any(share.project == self._project for share in self._memory.rooms)
        return part if has_some else 1.0

    async def holding(
        self, size: int, pieces: AsyncGenerator[_Piece, None]
    ) -> AsyncGenerator[_Piece, None]:
        """Yield the same pieces of a streamed response, once there is room for what it holds meanwhile.

        Args:
            size: Bytes to hold.
            pieces: Pieces of the response.

        Raises:
            Problem: As of `room`.
        """
        room = await self.room(size, part=STREAMS_PART)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
        del room  # it was held until here

    def kept_share(self) -> "Share":
        """Return a share that is released with the last object that refers to it."""
        return Share(self._memory, self._project)

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """Yield a share for one request, which is released at the end of the context."""
        share = self.kept_share()
        try:
            yield share
        finally:
            share.hold(0)


class Share:
    """Bytes that one request holds.

    Args:
        memory: Memory of all projects.
        project: Project that the request belongs to.

    Attributes:
        size: Number of bytes.
        project: Project that it counts for.
    """

    def __init__(self, memory: BodyMemory, project: str) -> None:
        self.size = 0
        self.project = project
        self._memory = memory

    def hold(self, size: int) -> None:
        """Hold `size` bytes in all.

        Raises:
            Problem: `overloaded`, as soon as the bodies of a project, or all, take too much.
        """
        more, self.size = size - self.size, size
        if more != 0:
            self._memory.change(self.project, more)

    async def gather(self, pieces: AsyncIterator[bytes]) -> bytes:
        """Join the chunks of a body, all of which the share holds then.

        Raises:
            Problem: `overloaded`, as soon as the bodies of a project, or all, take too much.
        """
        came = Pieces()
        async for piece in pieces:
            self.hold(self.size + len(piece))
            came.add(piece)
        return came.take()

    def may_hold(self, size: int, *, part: float = 1.0) -> bool:
        """Hold `size` bytes in all if they fit into a part of the memory; return whether they do."""
        fits = self._memory.has_room(self.project, size - self.size, part=part)
        if fits:
            self.hold(size)
        return fits

    def __del__(self) -> None:
        self.hold(0)


def body_files_of(request: Request) -> ProjectMemory:
    """Return the disk space of the bodies and results of the caller's project."""
    files: BodyMemory = request.app.state.body_files
    return files.of(project_of(request))


def body_memory_of(request: Request) -> ProjectMemory:
    """Return the memory of the bodies of the caller's project."""
    memory: BodyMemory = request.app.state.body_memory
    return memory.of(project_of(request))
