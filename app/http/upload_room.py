"""Room of a project for an upload; the transaction that stores its row is the judge in the end."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from models_store.errors import DatabaseUnavailableError, LimitError
from models_store.files.blobs import Blobs


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


@contextmanager
def unless_refused(blobs: Blobs, key: str) -> Iterator[None]:
    """Delete files again whose row is refused in this context.

    Where the connection was lost, perhaps after the row was committed, they stay, so that no row is
    without its file; doctor finds those that no row names.
    """
    try:
        yield
    except DatabaseUnavailableError:
        raise
    except BaseException:
        blobs.delete(key)
        raise
