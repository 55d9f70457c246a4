"""The data directory: created, checked, and locked by one service at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from densityd.errors import StartError

_LOCK = "densityd.lock"


@contextmanager
def lock_data_dir(folder: Path, *, address: str) -> Iterator[None]:
    """Create the data directory if there is none, and lock it.

    The kernel releases the lock when this process ends.

    Args:
        address: Address of this service, for the error of a second one.

    Raises:
        StartError: The folder cannot be created or written, or another service has locked it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(f"the data directory {folder} cannot be used: {reason}.") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartError(_describe_holder(folder, lock)) from error
        with suppress(OSError):  # a full disk, on which the service starts without it
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()}, {address}".encode(), 0)
        yield
    finally:
        os.close(lock)


def _describe_holder(folder: Path, lock: int) -> str:
    holder = os.pread(lock, 500, 0).decode(errors="replace")
    by = f" ({holder})" if holder else ""
    return f"another densityd{by} is already running on {folder}."
