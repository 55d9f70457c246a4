"""Disks: what they answer as errors of the store, and their free space."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models_store.errors import BlobDiskError, StorageFullError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk without room: the last one for a file beyond what the system lets a file grow to."""

_FAILED = frozenset({errno.EIO, errno.EROFS, errno.ESTALE, errno.ENXIO, errno.ENODEV})


@contextmanager
def disk_errors(key: str) -> Iterator[None]:
    """Raise the store's error when the disk is full or failed; other errors pass through.

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


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk of a folder, which may not have been made yet.

    Raises:
        OSError: The disk cannot be looked at.
    """
    made = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    disk = os.statvfs(made)
    return disk.f_bavail * disk.f_frsize
