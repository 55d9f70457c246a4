"""The blob store: files under one folder, each written whole or not at all, with their hashes.

A file is written in the staging folder, then committed under its key. Keys are made by this
service alone: no caller's text is ever part of a path.
"""

import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from models_store.errors import (
    BlobCorruptError,
    BlobDiskError,
    BlobError,
    BlobMissingError,
    WrongStoreError,
)
from models_store.files.disk_errors import disk_errors

STAGING = "staging"
STORE_ID = "store-id"
"""File that tells one store from another; a copy of the store has it, too."""

_KEY = re.compile(r"(datasets|jobs|models|results)(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){1,3}")
_ATTEMPT = re.compile(r"[0-9]{1,9}(?=[-.])")
_FOLDERS = ("datasets", "jobs", "models", "results")


def table_key(dataset_id: str) -> str:
    """Return the key of a dataset's stored table."""
    return f"datasets/{dataset_id}/table.npy"


def next_table_key(dataset_id: str) -> str:
    """Return a new key for a table that takes the place of a dataset's present one."""
    return f"datasets/{dataset_id}/table-{secrets.token_hex(8)}.npy"


def cells_key(table: str) -> str:
    """Return the key of the cells that are no numbers, beside the table of a key."""
    return f"{table.removesuffix('.npy')}.parquet"


def checkpoint_key(job_id: str, attempt: int, *, number: int) -> str:
    """Return the key of a training state, the so-manieth that an attempt writes."""
    return f"jobs/{job_id}/{attempt}-{number}.safetensors"


def model_key(job_id: str, attempt: int) -> str:
    """Return the key of a finished model.

    The attempt is part of it: a worker that lost the job cannot replace the file of the one that
    finished it.
    """
    return f"models/{job_id}/{attempt}.safetensors"


def job_of(key: str) -> str | None:
    """Return the id of the job that stored a model; None: it was imported."""
    owner = key.split("/")[1]
    return owner if owner.startswith("job_") else None


def imported_key() -> str:
    """Return a new key for a model that was trained elsewhere."""
    return f"models/imported/{secrets.token_hex(16)}.safetensors"


def part_key(job_id: str, attempt: int, *, number: int) -> str:
    """Return the key of some rows of a result that is not whole yet."""
    return f"jobs/{job_id}/{attempt}-{number}.part"


def parts_key(job_id: str, attempt: int, *, number: int) -> str:
    """Return the key of the list of the parts up to one."""
    return f"jobs/{job_id}/{attempt}-{number}.json"


def result_key(job_id: str, attempt: int, *, suffix: str) -> str:
    """Return the key of a bulk job's file; no two attempts share one."""
    return f"results/{job_id}/{attempt}.{suffix}"


def attempt_of(key: str) -> int:
    """Return the attempt that made a file of a job; 0 for a name that none makes."""
    found = _ATTEMPT.match(key.rpartition("/")[2])
    return 0 if found is None else int(found[0])


@dataclass(frozen=True, kw_only=True)
class StoredBlob:
    """A durable file: its key, the hash of its bytes and their number."""

    key: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """Something that lies in the store.

    Attributes:
        key: its path below the store's folder.
        age_s: seconds since it was last written to.
        own: True if it can be one of the store's files: a plain file under a key.
    """

    key: str
    bytes: int
    age_s: float
    own: bool


class BlobStore:
    """Files under one folder, which every process of the service shares."""

    def __init__(self, root: Path) -> None:
        """Name the folder; it is made with the first file."""
        # The folder itself may be a link to a larger disk; nothing inside it may be one.
        self.root = root.resolve()
        self._staging = self.root / STAGING

    @contextmanager
    def staged(self, suffix: str = "") -> Iterator[Path]:
        """Give the path of a new empty file in the staging folder; it goes if not committed.

        Raises:
            StorageFullError: no space is left, for this file or for what the body writes.
            BlobError: the disk failed, or cannot be written.
        """
        with _translated(STAGING):
            self._make_staging()
            handle, name = tempfile.mkstemp(suffix=suffix, dir=self._staging)
            os.close(handle)
        path = Path(name)
        try:
            with disk_errors(STAGING):
                yield path
        finally:
            # Where nothing can be deleted any more, the error of before is the one to tell.
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def commit(self, staged: Path, key: str) -> StoredBlob:
        """Make a staged file durable under a key: it survives a power cut once this returns.

        Raises:
            ValueError: the file is not in the staging folder, or the key is none.
            StorageFullError: no space is left.
            BlobError: the disk failed; nothing is stored.
        """
        target = self._locate(key)
        if staged.parent != self._staging:
            raise ValueError("only a staged file can be committed")
        with _translated(key):
            blob = _hash_and_sync(staged, key)
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
            return (self.root / STORE_ID).read_text(encoding="ascii").strip() or None
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return None
        except OSError as error:
            raise BlobDiskError(STORE_ID, "cannot be read") from error

    def check_identity(self, identity: str) -> None:
        """Refuse to go on with a store that is not the one of this identity.

        Raises:
            WrongStoreError: it is another one, or is not there.
            BlobDiskError: the disk failed.
        """
        found = self.identity()
        if found == identity:
            return
        what = f"is store {found}" if found else "has no file store-id: nothing is mounted there"
        raise WrongStoreError(
            f"{self.root} {what}; the database belongs to store {identity}. Mount that one, or,"
            f" where this is it, write {identity} into its file store-id."
        )

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
        if not stat.S_ISREG(mode) or path.resolve() != path:
            raise BlobError(key, "is not a plain file of the store")
        return path

    def verify(self, key: str, sha256: str) -> Path:
        """Return the file of a key after checking its hash.

        Raises:
            BlobMissingError: there is none.
            BlobCorruptError: its bytes are not those that were stored.
            BlobDiskError: it cannot be read.
        """
        path = self.path(key)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise BlobMissingError(key) from None
        except OSError as error:
            raise BlobDiskError(key, "cannot be read") from error
        if found != sha256:
            raise BlobCorruptError(key)
        return path

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of the files in a folder, sorted; none if there is no such folder."""
        folder = self.root / prefix if prefix in _FOLDERS else None
        folder = folder or self._locate(prefix)
        return sorted(
            path.relative_to(self.root).as_posix() for path in folder.rglob("*") if path.is_file()
        )

    def files(self) -> Iterator[FoundFile]:
        """Give all that lies in the folder, links among it, but what is staged."""
        for path in sorted(self.root.rglob("*")):
            aside = path.relative_to(self.root).parts[0] in (STAGING, STORE_ID)
            if not aside and (found := self._found(path)) is not None:
                yield found

    def staged_files(self, *, older_than_s: float) -> list[FoundFile]:
        """Give what crashed writers left in the staging folder; see `sweep_staging`."""
        found = map(self._found, sorted(self._staging.glob("*")))
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
            older_than_s: spare files that were written to since; a slow upload may still go on.

        Returns:
            How many were deleted.
        """
        left = self.staged_files(older_than_s=older_than_s)
        for file in left:
            (self.root / file.key).unlink(missing_ok=True)
        return len(left)

    def ping(self, size: int = 5) -> None:
        """Write, read back and remove a probe file of so many bytes.

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

    def _make_staging(self) -> None:
        if self._staging.is_dir():
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with suppress(PermissionError):  # it was made by somebody else, who may sync its name
            _sync_folder(self.root.parent)
        self._staging.mkdir(exist_ok=True)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder below the root, its name and those above it durable.

        They are synced even where they exist: whoever made them may have died, or met an error of
        the disk, before that was done.
        """
        if folder != self.root:
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            _sync_folder(folder.parent)

    def _found(self, path: Path) -> FoundFile | None:
        """Return the status of a file; None for a folder, and for a file that is gone."""
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
            age_s=time.time() - status.st_mtime,
            own=stat.S_ISREG(status.st_mode) and _KEY.fullmatch(key) is not None,
        )

    def _locate(self, key: str) -> Path:
        if _KEY.fullmatch(key) is None:
            raise ValueError("this is no key of the blob store")
        return self.root / key


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
