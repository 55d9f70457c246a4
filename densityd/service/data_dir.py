"""The data directory: made, checked, and held by one service at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from densityd.errors import StartError

_LOCK = "densityd.lock"
# The kernel's limit of a Unix socket's path, without the closing NUL.
_SOCKET_PATH_BYTES = 107


@contextmanager
def held(folder: Path, *, address: str) -> Iterator[None]:
    """Make `folder` if need be and keep every other service off it.

    The kernel gives the lock back when this process ends, however that happens.

    Args:
        folder: the data directory.
        address: told to whoever comes second.

    Raises:
        StartError: it cannot be made or written, or another service holds it.
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
            raise StartError(_taken(folder, lock)) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()}, {address}".encode(), 0)
        yield
    finally:
        os.close(lock)


def check_socket_path(path: Path) -> None:
    """Refuse a socket path that the kernel cannot take.

    Raises:
        StartError: it is too long.
    """
    length = len(os.fsencode(path))
    if length > _SOCKET_PATH_BYTES:
        raise StartError(
            f"the data directory's path is too long for the private Redis: its socket {path} has"
            f" {length} bytes, the limit is {_SOCKET_PATH_BYTES}; choose a shorter --data-dir or"
            " set DENSITYD_BROKER_URL."
        )


def _taken(folder: Path, lock: int) -> str:
    holder = os.pread(lock, 500, 0).decode(errors="replace")
    by = f" ({holder})" if holder else ""
    return f"another densityd{by} is already running on {folder}."
