"""Blobs in one folder, each written whole or not at all."""

import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models_store.errors import (
    BlobCorruptError,
    BlobDiskError,
    BlobError,
    BlobMissingError,
    DiskKeptError,
    StorageFullError,
)
from models_store.files.blobs import (
    FOLDERS,
    KEY,
    STAGING,
    STORE_ID,
    FoundFile,
    StoredBlob,
)
from models_store.files.disks import disk_errors, free_bytes
from models_store.files.large_files import delete_apart

_PIECE_BYTES = 256 * 1024


class LocalBlobs:
    """Files under one folder, which every process of the service shares.

    Once its identity was found, nothing is written while another one, or none, is there: on a folder
    whose disk is no longer mounted a file would be lost as soon as it is again.
    """

    is_remote = False

    def __init__(self, root: Path, *, leave_bytes: int = 0) -> None:
        """Name the folder, and find its identity; it is made with the first file.

        Args:
            root: Folder of the store.
            leave_bytes: Bytes of its disk that stay free.
        """
        self._leave_bytes = leave_bytes
        # The folder itself may be a link to a larger disk; nothing inside it may be one.
        self.root = root.resolve()
        self.name = str(self.root)
        self.staging = self.root / STAGING
        self._identity: str | None = None
        with suppress(BlobDiskError):
            self.identity()

    @contextmanager
    def staged(self, suffix: str = "") -> Iterator[Path]:
        """Give the path of a new empty file in the staging folder; it goes if not committed.

        Raises:
            StorageFullError: no space is left, for this file or for what the body writes.
            BlobError: the disk failed, or cannot be written.
        """
        with _translated(STAGING):
            self._check_identity(STAGING)
            self._make_staging()
            handle, name = tempfile.mkstemp(suffix=suffix, dir=self.staging)
            os.close(handle)
        path = Path(name)
        try:
            with disk_errors(STAGING):
                yield path
        finally:
            # Where nothing can be deleted any more, the error of before is the one to tell.
            with suppress(OSError):
                delete_apart(path)

    def commit(self, staged: Path, key: str) -> StoredBlob:
        """Make a staged file durable under a key: it survives a power cut once this returns.

        Raises:
            ValueError: the file is not in the staging folder, or the key is none.
            StorageFullError: no space is left.
            BlobError: the disk failed; nothing is stored.
        """
        target = self._locate(key)
        if staged.parent != self.staging:
            raise ValueError("only a staged file can be committed")
        self.check_room()
        with _translated(key):
            blob = _hash_and_sync(staged, key)
            self._check_identity(key)
            self._make_folder(target.parent)
            staged.replace(target)
            _sync_folder(target.parent)
        return blob

    def identity(self) -> str | None:
        """Return what tells this store from others; None: it was never told, or is not there.

        Raises:
            BlobDiskError: the disk failed.
        """
        try:
            found = (self.root / STORE_ID).read_bytes().decode("ascii").strip() or None
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return None
        except OSError as error:
            raise BlobDiskError(STORE_ID, "cannot be read") from error
        self._identity = self._identity or found
        return found

    def mark(self, identity: str) -> None:
        """Give the store its identity, durably.

        Raises:
            StorageFullError: no space is left.
            BlobError: the disk failed.
        """
        with self.staged(".id") as path, _translated(STORE_ID):
            path.write_text(f"{identity}\n", encoding="ascii")
            _hash_and_sync(path, STORE_ID)
            path.replace(self.root / STORE_ID)
            _sync_folder(self.root)
        self._identity = identity

    def path(self, key: str) -> Path:
        """Return the file of a key, for reading.

        Raises:
            BlobMissingError: there is none.
            BlobDiskError: the disk cannot be read.
            BlobError: it is a link, or lies behind one.
        """
        path = self._locate(key)
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise BlobMissingError(key) from None
        except OSError as error:
            raise BlobDiskError(key, "cannot be read") from error
        if not stat.S_ISREG(mode) or os.path.realpath(path) != str(path):
            raise BlobError(key, "is not a plain file of the store")
        return path

    def open(self, key: str, sha256: str) -> Path:  # noqa: ARG002 - of other stores
        """Return the file of a key, as `Blobs.open` says."""
        return self.path(key)

    def verify(self, key: str, sha256: str) -> Path:
        """Return the file of a key after checking its hash.

        Raises:
            BlobMissingError: there is none.
            BlobCorruptError: its bytes are not those that were stored.
            BlobDiskError: it cannot be read.
        """
        path = self.path(key)
        if _digest(path, key) != sha256:
            raise BlobCorruptError(key)
        return path

    def size(self, key: str) -> int:
        """Return the number of bytes of a key, as `Blobs.size` says."""
        with _gone_is_missing(key):
            return self.path(key).stat().st_size

    def digest(self, key: str) -> str:
        """Return the hash of a file's bytes, as `Blobs.digest` says."""
        return _digest(self.path(key), key)

    def stream(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield some bytes of a file, as `Blobs.stream` says."""
        with _gone_is_missing(key), self.path(key).open("rb") as file:
            file.seek(start)
            while start < stop and (piece := file.read(min(_PIECE_BYTES, stop - start))):
                start += len(piece)
                yield piece

    def link(self, key: str, *, valid_s: float) -> str | None:  # noqa: ARG002 - of other stores
        """Return None: a folder has no addresses."""
        return None

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of the files in a folder, sorted; none if there is no such folder."""
        folder = self.root / prefix if prefix in FOLDERS else None
        folder = folder or self._locate(prefix)
        return sorted(
            path.relative_to(self.root).as_posix() for path in folder.rglob("*") if path.is_file()
        )

    def files(self) -> Iterator[FoundFile]:
        """Give all that lies in the folder, links among it, but what is staged."""
        now = self._now()
        for path in sorted(self.root.rglob("*")):
            aside = path.relative_to(self.root).parts[0] in (STAGING, STORE_ID)
            if not aside and (found := self._found(path, now)) is not None:
                yield found

    def staged_files(self, *, older_than_s: float) -> list[FoundFile]:
        """Give what crashed writers left in the staging folder; see `sweep_staging`."""
        paths = sorted(self.staging.glob("*"))
        now = self._now() if paths else 0.0
        found = (self._found(path, now) for path in paths)
        return [file for file in found if file is not None and file.age_s >= older_than_s]

    def delete(self, prefix: str) -> None:
        """Delete a file, or a folder with all in it; nothing there is no error.

        Who has the file open keeps reading it.

        Raises:
            BlobError: it cannot be deleted.
        """
        path = self._locate(prefix)
        with _translated(prefix):
            try:
                # A link is removed itself; what it points to stays.
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return

    def sweep_staging(self, *, older_than_s: float) -> int:
        """Delete what crashed writers left in the staging folder.

        Args:
            older_than_s: spare files that were written to since; a slow upload may still continue.

        Returns:
            How many were deleted.
        """
        left = self.staged_files(older_than_s=older_than_s)
        for file in left:
            (self.root / file.key).unlink(missing_ok=True)
        return len(left)

    def look(self) -> None:
        """Check that the folder is there and has room, without writing to it.

        Raises:
            StorageFullError: No space is left.
            BlobDiskError: The folder is not there, or takes no writes.
        """
        try:
            found = os.statvfs(self.root if self.root.is_dir() else self.staging)
            self.staging.stat()
        except OSError as error:
            raise BlobDiskError(STAGING, "cannot be read") from error
        if found.f_flag & os.ST_RDONLY or not os.access(self.staging, os.W_OK):
            raise BlobDiskError(STAGING, "cannot be written")
        if found.f_bavail == 0 or (found.f_files and found.f_favail == 0):
            raise StorageFullError

    def check_room(self) -> None:
        """Check that as much of the disk is free as is to stay free, as `Blobs.check_room` says."""
        with suppress(OSError):  # a disk that fails is told of by the next write
            if self._leave_bytes and free_bytes(self.root) < self._leave_bytes:
                raise DiskKeptError

    def ping(self, size: int = 5) -> None:
        """Write, read back and remove a probe file of this many bytes.

        Raises:
            StorageFullError: no space is left.
            BlobError: the folder cannot be written, or gives back something else.
        """
        probe = secrets.token_bytes(size)
        with self.staged(".probe") as path, _translated(STAGING):
            path.write_bytes(probe)
            _hash_and_sync(path, STAGING)
            if path.read_bytes() != probe:
                raise BlobDiskError(STAGING, "does not keep what is written to it")

    def _check_identity(self, key: str) -> None:
        known = self._identity
        if self.identity() != known and known is not None:
            raise BlobDiskError(key, "cannot be written: its store is not mounted any more")

    def _make_staging(self) -> None:
        if self.staging.is_dir():
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with suppress(PermissionError):  # it was made by somebody else, who may sync its name
            _sync_folder(self.root.parent)
        self.staging.mkdir(exist_ok=True)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder below the root, its name and those above it durable.

        They are synced even where they exist: whoever made them may have died, or met an error of
        the disk, before that was done.
        """
        if folder != self.root:
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            _sync_folder(folder.parent)

    def _now(self) -> float:
        """Return the time by the clock that stamps the files, that of a server for a shared folder.

        By this machine's, a wrong one, files would seem old that are being written.
        """
        try:
            with self.staged(".probe") as path:
                return path.stat().st_mtime
        except (BlobError, StorageFullError):
            return time.time()

    def _found(self, path: Path, now: float) -> FoundFile | None:
        """Return the status of a file at a time; None for a folder, and for a file that is gone."""
        try:
            status = path.lstat()
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(status.st_mode):
            return None
        key = path.relative_to(self.root).as_posix()
        return FoundFile(
            key=key,
            bytes=status.st_size,
            age_s=now - status.st_mtime,
            own=stat.S_ISREG(status.st_mode) and KEY.fullmatch(key) is not None,
        )

    def _locate(self, key: str) -> Path:
        if KEY.fullmatch(key) is None:
            raise ValueError("this is no key of the blob store")
        return self.root / key


def _digest(path: Path, key: str) -> str:
    with _gone_is_missing(key), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _gone_is_missing(key: str) -> Iterator[None]:
    """Raise the store's errors for a file that goes, or cannot be read, while it is used."""
    try:
        yield
    except FileNotFoundError:
        raise BlobMissingError(key) from None
    except OSError as error:
        raise BlobDiskError(key, "cannot be read") from error


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        with disk_errors(key):
            yield
    except OSError as error:
        raise BlobDiskError(key, "cannot be written") from error


def _hash_and_sync(path: Path, key: str) -> StoredBlob:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(handle, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        # A failed fsync is final: the kernel may have dropped the pages, and a second try lies.
        os.fsync(file.fileno())
        return StoredBlob(key=key, sha256=digest, bytes=file.tell())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
