"""What the bodies of requests take while they come: of all together no more than a bound."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from app.problems import Problem


class BodyMemory:
    """Counts the bytes of bodies that are kept whole in memory and have not come completely.

    Each is small, but callers who send slowly can have thousands of them under way.

    Args:
        max_bytes: of all together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    async def gather(self, pieces: AsyncIterator[bytes]) -> bytes:
        """Join the pieces of a body.

        Raises:
            Problem: `overloaded`, as soon as the bodies of all callers take too much.
        """
        came: list[bytes] = []
        with self.share() as share:
            async for piece in pieces:
                share.hold(share.size + len(piece))
                if piece:
                    came.append(piece)
        return came[0] if len(came) == 1 else b"".join(came)

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one request holds, which is nothing any more when the context is left."""
        share = Share(self)
        try:
            yield share
        finally:
            share.hold(0)

    def change(self, size: int) -> None:
        """Count so many bytes more, or fewer.

        Raises:
            Problem: `overloaded`, if that is too much.
        """
        self._held += size
        if size > 0 and self._held > self._max_bytes:
            raise Problem("overloaded", "Too many bodies are on their way. Try again.")


class Share:
    """The bytes that one request holds.

    Attributes:
        size: how many.
    """

    def __init__(self, memory: BodyMemory) -> None:
        self.size = 0
        self._memory = memory

    def hold(self, size: int) -> None:
        """Hold so many in all.

        Raises:
            Problem: `overloaded`, as soon as the bodies of all callers take too much.
        """
        more, self.size = size - self.size, size
        self._memory.change(more)
