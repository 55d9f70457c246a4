"""Bytes of unfinished uploads by project, which count before they are stored."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from fastapi import Request

from models_store.errors import LimitError


class UploadRoom:
    """Bytes of unfinished uploads in the staging folder, by project; belongs to one event loop.

    Each process counts its own: together they may exceed a quota for a while, but what is
    stored in the end is counted by the database.
    """

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    @contextmanager
    def held(self, project: str) -> Iterator["Held"]:
        """Count an upload of a project until the end of the block."""
        held = Held(self._taken, project)
        try:
            yield held
        finally:
            held.release()


class Held:
    """Bytes that one upload takes.

    Attributes:
        room: Bytes that the project may store beyond what it has; none until this is set.
    """

    def __init__(self, taken: Counter[str], project: str) -> None:
        self.room = 0
        self._taken = taken
        self._project = project
        self._bytes = 0

    @property
    def left(self) -> int:
        """Bytes that the project may still take beside all its unfinished uploads."""
        return max(0, self.room - self._taken[self._project])

    def need(self, size: int) -> None:
        """Take what is missing of so many bytes in all.

        Raises:
            LimitError: `quota-storage`; the project has not so much room.
        """
        more = size - self._bytes
        if more > self.left:
            raise _no_room(self.left)
        if more > 0:
            self._taken[self._project] += more
            self._bytes = size

    async def counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the chunks of a file as they arrive.

        Raises:
            LimitError: `quota-storage`; the project has not so much room.
        """
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            self.need(size)
            yield chunk

    def release(self) -> None:
        """Release all bytes."""
        self._taken[self._project] -= self._bytes
        self._bytes = 0
        if not self._taken[self._project]:
            del self._taken[self._project]


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
