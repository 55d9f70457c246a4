"""Disks: what they answer as errors of the store, and free space, some of which projects leave to each other."""

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from models_store.errors import BlobDiskError, StorageFullError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk without room: the last one for a file beyond what the system lets a file grow to."""

_RESERVED_PART = 10
_FAILED = frozenset({errno.EIO, errno.EROFS, errno.ESTALE, errno.ENXIO, errno.ENODEV})


@contextmanager
def disk_errors(key: str) -> Iterator[None]:
    """Raise the store's error when the disk is full or failed; other errors pass through.

    Args:
        key: the file, for the error.

    Raises:
        StorageFullError: no space is left.
        BlobDiskError: the disk failed, or cannot be written any more.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFullError from error
        if error.errno in _FAILED:
            raise BlobDiskError(key, "cannot be written") from error
        raise


class FreeSpace:
    """Free space of some disks, as it was when it was looked at.

    Args:
        folders: Folders on these disks, that of the store first.
        reserve: Bytes that projects leave to each other on each, where that is no more than a tenth of it.
    """

    def __init__(self, folders: Sequence[Path], *, reserve: int) -> None:
        self._folders = folders
        self._reserve = reserve
        self._found: list[tuple[int, int]] = []

    def look(self) -> None:
        """Look at the disks, which may take as long as they like."""
        found = []
        for folder in self._folders:
            with suppress(OSError):
                found.append((free_bytes(folder), reserve_of(folder, self._reserve)))
        self._found = found

    def most_stored(self, quota: int) -> int:
        """Return the bytes that a project may store: its quota, and less where the reserve is touched."""
        touched = [(free, reserve) for free, reserve in self._found if free < reserve]
        return min([quota, *(reserve * free // (reserve - free) for free, reserve in touched)])

    def reserve(self) -> int:
        """Return the bytes that projects leave to each other of the disk of the store."""
        return reserve_of(self._folders[0], self._reserve)

    def left(self) -> int:
        """Return the bytes that are free on the disk of the store, or a great many where that is not known."""
        return next((free for free, _ in self._found), sys.maxsize)


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk of a folder, which may not have been made yet.

    Raises:
        OSError: The disk cannot be looked at.
    """
    disk = _disk_of(folder)
    return disk.f_bavail * disk.f_frsize


def reserve_of(folder: Path, reserve: int) -> int:
    """Return the bytes of the disk of a folder that projects leave to each other: a tenth of it at most."""
    try:
        disk = _disk_of(folder)
    except OSError:
        return reserve
    return min(reserve, disk.f_blocks * disk.f_frsize // _RESERVED_PART)


def _disk_of(folder: Path) -> os.statvfs_result:
    made = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    return os.statvfs(made)
