"""The body of a request that brings rows, on its way to arrays."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from app.fairness.turns import Threads, in_thread, in_thread_alone
from app.http.body_memory import ProjectMemory
from app.rows.shape import RowsShape
from app.settings import ApiSettings
from models_store.files.blobs import BlobStore
from tables.formats import TableFormat

_INLINE_BYTES = 32 * 1024  # larger bodies are decoded in a thread
_WRITE_BYTES = 1024 * 1024

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


@dataclass(eq=False)
class Incoming:
    """What a decoder of rows is given.

    Args:
        body: the pieces as they come, of which there is a bounded number of bytes in all.
        format: what it says it is.
        parameters: those of its media type.
        shape: what the rows must look like.
        settings: the limits.
        blobs: where what does not fit into memory may lie for the while.
        parsers: threads that wait for the processes that parse files.
        memory: counts what is kept whole.
        declared_bytes: the length of the body, where it is told beforehand.
        total_rows: Number of rows of the body, set by the reader before its first rows where nothing
            can be wrong with those that follow.
    """

    body: AsyncIterator[bytes]
    format: TableFormat
    parameters: Mapping[str, str]
    shape: RowsShape
    settings: ApiSettings
    blobs: BlobStore
    parsers: Threads
    memory: ProjectMemory
    declared_bytes: int | None = None
    total_rows: int | None = None

    async def whole(self) -> bytes:
        """All of it; for formats whose limit is small."""
        return await self.memory.gather(self.body)


def is_headerless(parameters: Mapping[str, str]) -> bool:
    """Whether the media type of a CSV file says that it begins with its first row (RFC 4180)."""
    return parameters.get("header", "present") == "absent"


async def write_to_disk(body: AsyncIterator[bytes], destination: Path) -> int:
    """Write a body to an existing file, and say how many bytes it had.

    Raises:
        ClientDisconnect: the caller left before the end.
    """
    size = 0
    waiting = bytearray()
    file = await in_thread(destination.open, "wb")
    with file:
        async for piece in body:
            size += len(piece)
            waiting += piece
            if len(waiting) >= _WRITE_BYTES:
                await in_thread(file.write, waiting)
                waiting = bytearray()
        await in_thread(file.write, waiting)
    return size


async def in_thread_if_large(
    decode: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
) -> _Result:
    """Call `decode`, whose first argument is a body, off the event loop, one at a time, if that takes long."""
    body = args[0]
    if isinstance(body, bytes) and len(body) > _INLINE_BYTES:
        return await in_thread_alone(decode, *args, **kwargs)
    return decode(*args, **kwargs)
