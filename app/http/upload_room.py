"""Bytes of unfinished uploads by project, which count before they are stored."""

import hashlib
import mmap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import numpy as np
from fastapi import Request

from models_store.errors import LimitError

# Projects whose names share one of these count together, which takes thousands that upload at once.
_SLOTS = 2**16
_LOOK_BYTES = 32 << 20
"""Bytes of an upload after which its project's room is looked up again: others are stored meanwhile."""


class UploadCounts:
    """Bytes of unfinished uploads by project, of all API processes of a machine together.

    Each process has a row of the table and writes nowhere else, so that nothing is locked; the next
    process that has the row of one that died clears it.

    Args:
        memory: Descriptor of the memory that holds the table; None: only this process counts.
        processes: Number of processes.
        index: Row of this process.
    """

    def __init__(self, memory: int | None = None, *, processes: int = 1, index: int = 0) -> None:
        shape = processes, _SLOTS
        if memory is None:
            self._table = np.zeros(shape, np.int64)
        else:
            mapped = mmap.mmap(memory, self.size(processes))
            self._table = np.frombuffer(mapped, np.int64).reshape(shape)
            self._table[index] = 0
        self._mine = self._table[index]

    @staticmethod
    def size(processes: int) -> int:
        """Return the bytes of the table of this many processes, all zero at first."""
        return _SLOTS * processes * np.dtype(np.int64).itemsize

    def add(self, project: str, size: int) -> None:
        """Count `size` bytes more of a project, or fewer where it is negative."""
        self._mine[_slot(project)] += size

    def total(self, project: str) -> int:
        """Return the bytes of a project in all processes."""
        return int(self._table[:, _slot(project)].sum())


class UploadRoom:
    """Bytes of unfinished uploads in the staging folder, by project; belongs to one event loop.

    Replicas on several machines each count their own: together they may exceed a quota for a
    while, but what is stored in the end is counted by the database.
    """

    def __init__(self, counts: UploadCounts | None = None) -> None:
        self._counts = counts or UploadCounts()

    @contextmanager
    def held(
        self, project: str, look_up: Callable[[], Awaitable[int]] | None = None
    ) -> Iterator["Held"]:
        """Count an upload of a project until the end of the block.

        Args:
            project: Project that uploads.
            look_up: Function that returns how many bytes the project may store beyond what it has.
        """
        held = Held(self._counts, project, look_up)
        try:
            yield held
        finally:
            held.release()


class Held:
    """Bytes that one upload takes.

    Attributes:
        room: Bytes that the project may store beyond what it has; none until this is set.
    """

    def __init__(
        self,
        counts: UploadCounts,
        project: str,
        look_up: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self.room = 0
        self._look_up = look_up
        self._counts = counts
        self._project = project
        self._bytes = 0

    @property
    def left(self) -> int:
        """Bytes that the project may still take beside all its unfinished uploads."""
        return max(0, self.room - self._counts.total(self._project))

    async def look(self) -> None:
        """Look up the room of the project.

        Raises:
            LimitError: `quota-storage`; there is none at all.
        """
        if self._look_up is not None:
            self.room = await self._look_up()

    def need(self, size: int) -> None:
        """Take what is missing of this many bytes in all.

        Raises:
            LimitError: `quota-storage`; the project has not so much room.
        """
        more = size - self._bytes
        if more <= 0:
            return
        # Counted first: of two processes that look at the same moment, one at least sees both.
        self._counts.add(self._project, more)
        if self._counts.total(self._project) > self.room:
            self._counts.add(self._project, -more)
            raise _no_room(self.left)
        self._bytes = size

    async def counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks of a file as they arrive.

        Raises:
            LimitError: `quota-storage`; the project has not so much room.
        """
        size = looked_at = 0
        async for chunk in chunks:
            size += len(chunk)
            if size - looked_at > _LOOK_BYTES:
                looked_at = size
                await self.look()
            self.need(size)
            yield chunk

    def release(self) -> None:
        """Release all bytes."""
        self._counts.add(self._project, -self._bytes)
        self._bytes = 0


def _slot(project: str) -> int:
    digest = hashlib.blake2b(project.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % _SLOTS


def declared_bytes(request: Request, most: int) -> int:
    """Return the length that a body says it has, and no more than it may have; 0 if it says none.

    An upload that is too large is refused before its first byte is read, and of two that only fit
    one after the other, one succeeds.
    """
    length = request.headers.get("content-length", "")
    return min(int(length), most) if length.isascii() and length.isdecimal() else 0


def _no_room(left: int) -> LimitError:
    """Return the error of an upload that is larger than the room of its project."""
    return LimitError(
        "quota-storage",
        f"The project may store {left:,} bytes more, uploads that still come included; delete"
        " datasets or results that are not needed.",
    )
