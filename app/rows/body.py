"""The body of a request that brings rows."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from app.limits import Threads, in_thread
from app.rows.shape import Floats, RowsShape
from app.settings import ApiSettings
from models_store.files.blobs import Blobs
from tabular.formats import TableFormat, TableWarning

INLINE_BYTES = 32 * 1024
"""Largest body of text that is decoded on the event loop."""
_WRITE_BYTES = 128 * 1024


@dataclass(frozen=True)
class RowsBody:
    """Request body, and what it takes to read rows from it.

    Args:
        content: Bytes of the body.
        format: Format that its media type names.
        parameters: Parameters of its media type.
        shape: Shape that the rows must have.
        settings: Settings with the limits.
        blobs: Store of temporary files.
        parsers: Processes that parse files.
    """

    content: bytes
    format: TableFormat
    parameters: Mapping[str, str]
    shape: RowsShape
    settings: ApiSettings
    blobs: Blobs
    parsers: Threads


class Decoded(NamedTuple):
    """Rows of a body.

    Attributes:
        rows: Array of shape (rows, columns), of the model's columns in their order.
        warnings: Warnings about the body.
    """

    rows: Floats
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
    waiting = bytearray()
    file = await in_thread(destination.open, "wb")
    try:
        async for chunk in body:
            size += len(chunk)
            waiting += chunk
            if len(waiting) >= _WRITE_BYTES:
                await in_thread(file.write, waiting)
                waiting = bytearray()
        await in_thread(file.write, waiting)
    finally:
        await in_thread(file.close)  # some file systems first write what they have of it
    return size
