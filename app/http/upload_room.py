"""Room of a project for an upload; the transaction that stores its row is the judge in the end."""

from collections.abc import AsyncIterator

from models_store.errors import LimitError


def check_room(size: int, room: int) -> None:
    """Refuse a file that is larger than the room of its project.

    Raises:
        LimitError: `quota-storage`.
    """
    if size > room:
        raise LimitError(
            "quota-storage",
            f"The project may store {room:,} bytes more; delete datasets or results that are not needed.",
        )


async def within_room(chunks: AsyncIterator[bytes], room: int) -> AsyncIterator[bytes]:
    """Yield the chunks of a file as they arrive.

    Raises:
        LimitError: `quota-storage`.
    """
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        check_room(size, room)
        yield chunk
