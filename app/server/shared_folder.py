"""Folder of metrics that the API processes of a machine share, in the system's temporary directory."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_PREFIX = "densityd-api-"
_LOCK = "lock"


@dataclass(frozen=True)
class SharedFolder:
    """Folder that is in use as long as a process has its lock open.

    Attributes:
        path: Path of the folder.
        lock: Descriptor of the locked file, to be passed to the processes that use the folder.
    """

    path: Path
    lock: int


@contextmanager
def shared_folder() -> Iterator[SharedFolder]:
    """Make a folder, which is deleted at the end of the block, and delete those that nobody uses.

    A process that is killed leaves its folder behind; the kernel gives up its lock. The folder itself
    is locked, too, by which programs that clean temporary directories of old files leave it alone.
    """
    _delete_unused()
    path, lock = _make()
    with lock, _locked(path):
        try:
            yield SharedFolder(path, lock.fileno())
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _make() -> tuple[Path, IO[bytes]]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = (path / _LOCK).open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (path / _LOCK).exists():
            return path, lock
        lock.close()  # another process took it for unused before it was locked


def _delete_unused() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # in use, or gone meanwhile
            found = path.lstat()
            # Anybody may make a file or a link of that name.
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                with (path / _LOCK).open("r+b") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
