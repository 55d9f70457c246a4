"""Large responses that wait on the disk, or where it is full in memory, until their callers have read them."""

import logging
import os
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

from app.fairness.turns import in_thread, owner_here
from app.http.body_memory import STREAMS_PART, BodyMemory, Share
from app.http.streaming import Piece
from app.problems.problem import Problem

log = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024
"""Bytes of a response in memory at once: hundreds of callers may read theirs slowly."""


class StoredResponses:
    """Large responses of all callers that wait to be read, which count until they were.

    Args:
        folder: Folder on the disk that holds them.
        files: Disk space of bodies and results.
        memory: Memory of these, which has them where the disk takes none: reading works on a full disk, too.
    """

    def __init__(self, folder: Path, *, files: BodyMemory, memory: BodyMemory) -> None:
        self._folder = folder
        self._files = files
        self._memory = memory

    def pieces_of(self, content: bytes) -> AsyncGenerator[Piece, None]:
        """Return bytes in pieces that are read from the disk as they are sent; call it in a thread.

        Raises:
            Problem: `overloaded`: the caller's project leaves too much unread.
        """
        share = self._files.of(owner_here()).kept_share()
        try:
            if share.may_hold(len(content)):
                self._folder.mkdir(parents=True, exist_ok=True)
                return _from_disk(_Stored(content, self._folder), share)
        except OSError as error:
            log.debug("a large response is sent from memory: %s", error)
        share = self._memory.of(owner_here()).kept_share()
        if not share.may_hold(len(content), part=STREAMS_PART):
            raise Problem(
                "overloaded", "Too many responses wait to be read. Read them, and try again."
            )
        return _from_memory(content, share)


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


async def _from_disk(stored: _Stored, share: Share) -> AsyncGenerator[Piece, None]:
    for start in range(0, stored.size, PIECE_BYTES):
        yield await in_thread(stored.read, start)
    del share  # it was held until here


async def _from_memory(content: bytes, share: Share) -> AsyncGenerator[Piece, None]:
    # What waits in the connection is copied: little of it, so that the last of it does not keep the whole.
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]
    del share
