"""Space beside the embedded database, kept so that a full disk can still be emptied.

Deleting a row writes to the log of the database. On a disk without one free byte that fails, and
nothing could be deleted for want of what deleting would free.
"""

import fcntl
import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

NAME = "ballast"
_STEP_BYTES = 2**20
_FREE_SHARES = 4


class Ballast:
    """A file of random bytes, which no file system stores in less; shared by all processes.

    Args:
        folder: Folder of the database's file.
        size_bytes: Size of the whole ballast; 0: none is kept.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._file = folder / NAME
        self._size_bytes = size_bytes

    def release(self) -> bool:
        """Give a piece of it back to the disk; return whether there was one."""
        try:
            with self._file.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                left = file.seek(0, os.SEEK_END) - _STEP_BYTES
                if left + _STEP_BYTES <= 0:
                    return False
                file.truncate(max(0, left))
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("the ballast cannot be released: %s", error)
            return False
        log.warning("the disk is full: released ballast, %d bytes are left", max(0, left))
        return True

    def restore(self) -> None:
        """Make up for what was released, as far as several times the ballast stays free."""
        with suppress(OSError):  # the next time is as good
            if self._file.stat().st_size >= self._size_bytes:
                return
        if self._size_bytes == 0:
            return
        try:
            with self._file.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._fill(file.fileno())
        except OSError as error:
            log.info("the ballast is not whole yet: %s", error)

    def _fill(self, file: int) -> None:
        while (missing := self._size_bytes - (size := os.fstat(file).st_size)) > 0:
            step, disk = min(missing, _STEP_BYTES), os.fstatvfs(file)
            if disk.f_bavail * disk.f_frsize < _FREE_SHARES * (size + step):
                return
            os.write(file, secrets.token_bytes(step))
            os.fsync(file)
