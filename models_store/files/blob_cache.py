"""A bounded folder of files by their hash: copies of blobs that lie in object storage.

Processes of a machine share it: the first that needs a file fetches it while the others wait.
"""

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from models_store.errors import StorageFullError

_GRACE_S = 60.0
"""Seconds since its last use for which a file stays: who was given its name may not have opened it."""


class BlobCache:
    """Files by their SHA-256; those that were not used for the longest time go first.

    Who has a file open, or mapped, keeps it when it goes.

    Args:
        folder: Folder of the cache.
        max_bytes: Bytes of all files; exceeded while more is in use, or by one larger file.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder / "files"
        self._locks = folder / "locks"
        self._max_bytes = max_bytes

    def find(self, sha256: str) -> Path | None:
        """Return the file with a hash, or None."""
        path = self._path(sha256)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def fetch(self, sha256: str, download: Callable[[IO[bytes]], str]) -> Path | None:
        """Return the file with a hash, which is fetched if it is not here.

        Args:
            sha256: Hash of the content.
            download: Function that writes the content into a file and returns its hash.

        Returns:
            None if the content has another hash.

        Raises:
            StorageFullError: No space is left on this machine.
        """
        with self._locked(sha256[:2]):
            found = self.find(sha256)
            if found is not None:
                return found
            try:
                found = self._download(sha256, download)
            except StorageFullError:
                self._trim(self._max_bytes // 2)
                found = self._download(sha256, download)
        self.trim()
        return found

    def add(self, staged: Path, sha256: str) -> None:
        """Take over a file of the same disk; its content is not read again."""
        target = self._path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)
        self.trim()

    def forget(self, sha256: str) -> None:
        """Drop the file with a hash, because its bytes have changed."""
        self._path(sha256).unlink(missing_ok=True)

    def hashed(self, sha256: str) -> Path | None:
        """Return the file with a hash after reading it; None: it is not here, or was changed."""
        path = self.find(sha256)
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None
        if found == sha256:
            return path
        self.forget(sha256)
        return None

    def trim(self) -> None:
        """Delete files until the rest is within the bound."""
        self._trim(self._max_bytes)

    def _trim(self, max_bytes: int) -> None:
        with self._locked("trim"):
            found = sorted(self._found())
            excess = sum(size for _, size, _ in found) - max_bytes
            used_before = time.time() - _GRACE_S
            for used_at, size, path in found:
                if excess <= 0 or used_at > used_before:
                    return
                path.unlink(missing_ok=True)
                excess -= size

    def _found(self) -> Iterator[tuple[float, int, Path]]:
        for path in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                yield status.st_mtime, status.st_size, path

    def _download(self, sha256: str, download: Callable[[IO[bytes]], str]) -> Path | None:
        target = self._path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".", delete=False) as file:
            path = Path(file.name)
            try:
                if download(file) != sha256:
                    return None
                file.flush()
                # A name without its bytes would be taken for the file after a power cut.
                os.fsync(file.fileno())
                path.replace(target)
            finally:
                path.unlink(missing_ok=True)
        return target

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold a lock that other processes and threads wait for; it goes with its holder."""
        self._locks.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._locks / name, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
