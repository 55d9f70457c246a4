"""What the bodies of requests take while they come: of all together no more than a bound."""

from collections.abc import AsyncIterator

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
        size = 0
        try:
            async for piece in pieces:
                size += len(piece)
                self._held += len(piece)
                if self._held > self._max_bytes:
                    raise Problem("overloaded", "Too many bodies are on their way. Try again.")
                if piece:
                    came.append(piece)
        finally:
            self._held -= size
        return came[0] if len(came) == 1 else b"".join(came)
