"""Copies of files from one blob store to another; each is hashed on its way."""

import hashlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from models_store.consistency import NamedFile, UnusableFile
from models_store.errors import BlobCorruptError, BlobMissingError
from models_store.files.blobs import Blobs

Tell = Callable[[int, int, int], None]
"""Function that is called with how many files are done, of how many, and their bytes."""

_THREADS = 8


class FileCopier:
    """Copies files that are not in the target yet, several at a time.

    Attributes:
        files: Number of files that are in the target by now.
        bytes: Number of bytes of these files.

    Args:
        source: Store that has the files.
        target: Store that gets them, under the same keys.
        tell: Function that is called for each file.
    """

    def __init__(self, source: Blobs, target: Blobs, *, tell: Tell) -> None:
        self._source, self._target, self._tell = source, target, tell
        self._lock = threading.Lock()
        self._done: set[NamedFile] = set()
        self.files = self.bytes = 0

    def copy_all(self, files: Iterable[NamedFile]) -> list[UnusableFile]:
        """Copy files; return those that the source does not have, or with another content.

        Raises:
            StorageFullError: The target has no space left.
            BlobError: A store cannot be used.
        """
        todo = sorted({file.key: file for file in files}.values(), key=lambda file: file.key)

        def copy(file: NamedFile) -> UnusableFile | None:
            try:
                self.copy(file)
                self._tell(self.files, max(self.files, len(todo)), self.bytes)
            except (BlobMissingError, BlobCorruptError) as error:
                return UnusableFile(file=file, error=error)
            return None

        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                return [bad for bad in pool.map(copy, todo) if bad is not None]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def copy(self, file: NamedFile) -> None:
        """Copy one file; one that is there with the right content stays.

        Raises:
            BlobMissingError: The source does not have it.
            BlobCorruptError: It has another content there.
            StorageFullError: The target has no space left.
            BlobError: A store cannot be used.
        """
        if file in self._done:
            return
        size = self._target.size(file.key) if self._is_there(file) else self._send(file)
        with self._lock:
            self._done.add(file)
            self.files += 1
            self.bytes += size

    def _is_there(self, file: NamedFile) -> bool:
        try:
            return self._target.digest(file.key) == file.sha256
        except BlobMissingError:
            return False

    def _send(self, file: NamedFile) -> int:
        size, hashed = self._source.size(file.key), hashlib.sha256()
        with self._target.staged() as staged:
            with staged.open("wb") as copy:
                for piece in self._source.stream(file.key, 0, size):
                    hashed.update(piece)
                    copy.write(piece)
            if hashed.hexdigest() != file.sha256:
                raise BlobCorruptError(file.key)
            self._target.commit(staged, file.key)
        return size
