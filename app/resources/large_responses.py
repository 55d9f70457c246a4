"""Large JSON responses, which wait on the disk instead of in memory for slow callers."""

import logging
import os
import tempfile
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel
from starlette.responses import Response

from app.fairness.turns import in_thread
from app.http.streaming import Piece, StreamedResponse
from app.problems.problem import Problem
from app.resources.etags import Preconditions, etag_of, json_of
from models_store.files.blobs import Blobs

log = logging.getLogger(__name__)

_MEDIA_TYPE = "application/json"
_SMALL_BYTES = 64 * 1024
PIECE_BYTES = 64 * 1024
"""Bytes of a response in memory at once: hundreds of callers may read theirs slowly."""


def respond_large(
    view: BaseModel,
    blobs: Blobs,
    conditions: Preconditions | None = None,
    *,
    status_code: int = HTTPStatus.OK,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """Return the response that shows a view; call it in a thread.

    Args:
        view: View to send.
        blobs: Store with the disk that holds the response while it is sent.
        conditions: Conditions of the request; the response then has an ETag.
        status_code: Status of the response.
        headers: Further headers.

    Raises:
        Problem: `precondition`.
    """
    content = json_of(view)
    headers = dict(headers)
    if conditions is not None:
        tag = headers["ETag"] = etag_of(content)
        if not conditions.matched(tag):
            raise Problem("precondition", "The resource has another ETag.")
        if not conditions.new(tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return respond_content(
        content, blobs, media_type=_MEDIA_TYPE, headers=headers, status_code=status_code
    )


def respond_content(
    content: bytes,
    blobs: Blobs,
    *,
    media_type: str,
    headers: Mapping[str, str],
    status_code: int = HTTPStatus.OK,
) -> Response:
    """Return a response that waits on the disk for its caller if it is large; call it in a thread.

    Args:
        content: Body of the response.
        blobs: Store with the disk that holds the body while it is sent.
        media_type: Media type of the body.
        headers: Further headers.
        status_code: Status of the response.
    """
    if len(content) <= _SMALL_BYTES:
        return Response(content, status_code, headers=headers, media_type=media_type)
    return StreamedResponse(
        pieces_of(content, blobs),
        media_type=media_type,
        headers={**headers, "Content-Length": str(len(content))},
        status_code=status_code,
    )


def pieces_of(content: bytes, blobs: Blobs) -> AsyncGenerator[Piece, None]:
    """Return bytes in pieces that are read from the disk as they are sent; call it in a thread.

    Args:
        content: Bytes to send.
        blobs: Store with the disk that holds them meanwhile.
    """
    try:
        blobs.staging.mkdir(parents=True, exist_ok=True)
        stored = _Stored(content, blobs.staging)
    except OSError as error:  # reading works on a full disk, too
        log.debug("a large response is sent from memory: %s", error)
        return _from_memory(content)
    return _from_disk(stored)


class _Stored:
    """Bytes on the disk, in a file without a name that is deleted with this object."""

    def __init__(self, content: bytes, folder: Path) -> None:
        self.size = len(content)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(content)
            file.flush()
            self._handle = os.dup(file.fileno())

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)

    def read(self, start: int) -> bytes:
        """Return a chunk."""
        return os.pread(self._handle, PIECE_BYTES, start)


async def _from_disk(stored: _Stored) -> AsyncGenerator[Piece, None]:
    for start in range(0, stored.size, PIECE_BYTES):
        yield await in_thread(stored.read, start)


async def _from_memory(content: bytes) -> AsyncGenerator[Piece, None]:
    yield content
