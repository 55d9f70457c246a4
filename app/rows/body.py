"""The body of a request that brings rows, on its way to arrays."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from app.connections.unfinished import UNFINISHED
from app.fairness.parsers import Parsers
from app.fairness.turns import in_thread, in_thread_alone
from app.http.body_memory import ProjectMemory
from app.http.pieces import Pieces
from app.rows.shape import RowsShape
from app.settings import ApiSettings
from models_store.files.blobs import Blobs
from tabular.formats import TableFormat, TableWarning

INLINE_BYTES = 32 * 1024
"""Largest body that is decoded on the event loop."""
_WRITE_BYTES = 128 * 1024

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


@dataclass(eq=False)
class RowsBody:
    """Request body on its way to a decoder of rows.

    Args:
        chunks: Bytes as they come, of a bounded number in all.
        format: Format that its media type names.
        parameters: Parameters of its media type.
        shape: Shape that the rows must have.
        settings: Settings with the limits.
        blobs: Store of temporary files for bodies that do not fit into memory.
        parsers: Threads that wait for the processes that parse files.
        memory: Counter of the bytes of bodies that are kept in memory.
        files: Counter of the bytes of bodies that are kept on the disk.
        declared_bytes: Length of the body, where the client declares it.
        total_rows: Number of rows of the body, set by the reader before its first rows where nothing
            can be wrong with those that follow.
        warnings: Warnings about the body, set by the reader: all of them once all rows have been read.
    """

    chunks: AsyncIterator[bytes]
    format: TableFormat
    parameters: Mapping[str, str]
    shape: RowsShape
    settings: ApiSettings
    blobs: Blobs
    parsers: Parsers
    memory: ProjectMemory
    files: ProjectMemory
    declared_bytes: int | None = None
    total_rows: int | None = None
    warnings: Sequence[TableWarning] = ()


def is_headerless(parameters: Mapping[str, str]) -> bool:
    """Return whether the media type of a CSV file says that it has no header (RFC 4180)."""
    return parameters.get("header", "present") == "absent"


async def write_to_disk(body: AsyncIterator[bytes], destination: Path) -> int:
    """Write a body to an existing file, and return its number of bytes.

    Raises:
        ClientDisconnect: The client disconnected before the end.
    """
    size = 0
    waiting = Pieces()
    file = await in_thread(destination.open, "wb")
    try:
        async for chunk in body:
            size += len(chunk)
            waiting.add(chunk)
            del chunk  # the next one may come late
            if waiting.size >= UNFINISHED.piece_bytes(_WRITE_BYTES):
                await in_thread(file.write, waiting.take())
        await in_thread(file.write, waiting.take())
    finally:
        await in_thread(file.close)  # some file systems first write what they have of it
    return size


async def in_thread_if_large(
    decode: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
) -> _Result:
    """Call `decode`, of a body as its first argument; off the event loop if the body is large."""
    body = args[0]
    if isinstance(body, bytes) and len(body) > INLINE_BYTES:
        return await in_thread_alone(decode, *args, **kwargs)
    return decode(*args, **kwargs)
