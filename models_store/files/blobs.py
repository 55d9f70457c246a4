"""Blobs: files that are written whole or not at all, under keys, with their hashes.

They lie in a folder, or in a bucket of object storage, of which this machine keeps copies by their
hash. A file is written in the staging folder of this machine, then committed under its key. Keys are
made by this service alone: no caller's text is ever part of a path.
"""

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from models_store.errors import (
    BlobCorruptError,
    BlobDiskError,
    BlobMissingError,
    DiskKeptError,
    StorageFullError,
    WrongStoreError,
)
from models_store.files.buckets import Bucket
from models_store.files.disks import disk_errors, free_bytes
from models_store.files.store_address import StoreAddress

STAGING = "staging"
STORE_ID = "store-id"
"""File that tells one store from another; a copy of the store has it, too."""

KEY = re.compile(r"(datasets|jobs|models|results)(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){1,3}")
_ATTEMPT = re.compile(r"[0-9]{1,9}(?=[-.])")
FOLDERS = ("datasets", "jobs", "models", "results")

_COPIES = "files"
_LOCKS = "locks"
_RESULTS = "results/"
_PIECE_BYTES = 256 * 1024
_GRACE_S = 60.0  # for which a copy stays: who was given its name may not have opened it


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


class Blobs:
    """Files that every process of the service shares.

    Once the identity of a folder was found, nothing is written while another one, or none, is there:
    on a folder whose disk is no longer mounted a file would be lost as soon as it is again. What writes raises
    `StorageFullError` if no space is left, and nothing is stored then; what reads raises `BlobMissingError` if
    there is no such file; all raise `BlobDiskError` if the store cannot be used.

    Args:
        address: Address of the folder or bucket; nothing is written, and no bucket opened, yet.

    Attributes:
        address: Address of the folder or bucket.
        name: The store in log lines and errors, without credentials.
        root: Folder of the store; of a bucket, the folder of its copies on this machine.
        staging: Folder on this machine in which files are written before they are committed.
        is_remote: True for a bucket, which may be away for a while; False for a folder.
    """

    def __init__(self, address: StoreAddress) -> None:
        self.address = address
        self.is_remote = address.is_remote
        self.root = Path(address.cache_dir if self.is_remote else address.url).resolve()
        self.name = address.url if self.is_remote else str(self.root)
        self.staging = self.root / STAGING
        self._identity: str | None = None
        if not self.is_remote:
            with suppress(BlobDiskError):
                self.identity()

    @classmethod
    def in_folder(cls, folder: Path, *, leave_bytes: int = 0) -> Self:
        """Return the store of a folder, of whose disk so many bytes stay free."""
        return cls(StoreAddress(url=str(folder), leave_bytes=leave_bytes))

    @contextmanager
    def staged(self, suffix: str = "") -> Iterator[Path]:
        """Give the path of a new empty file in the staging folder; it goes if not committed.

        Errors of the disk that the body meets are raised as those of the store.
        """
        with _writing(STAGING):
            self._check_mounted(STAGING)
            self._make_staging()
            handle, name = tempfile.mkstemp(suffix=suffix, dir=self.staging)
            os.close(handle)
        try:
            with disk_errors(STAGING):
                yield Path(name)
        finally:
            with suppress(OSError):  # the error of before is the one to tell
                Path(name).unlink(missing_ok=True)

    def commit(self, staged: Path, key: str) -> StoredBlob:
        """Make a staged file durable under a key: it survives a power cut once this returns.

        Raises:
            ValueError: The file is not in the staging folder, or the key is none.
        """
        if staged.parent != self.staging:
            raise ValueError("only a staged file can be committed")
        self.path(key)
        self.check_room()
        return self._store(staged, key)

    def _store(self, staged: Path, key: str) -> StoredBlob:
        target = self.path(key)
        with _writing(key):
            blob = _synced(staged, key)
            if self.is_remote:
                self._bucket.put(key, staged, blob.bytes)
                if not key.startswith(_RESULTS):  # callers fetch these, this machine does not
                    self._keep(staged, blob.sha256)
            else:
                self._check_mounted(key)
                self._make_folder(target.parent)
                staged.replace(target)
                _sync_folder(target.parent)
        return blob

    def open(self, key: str, sha256: str) -> Path:
        """Return a file on this machine with the content of a key, for reading soon.

        The hash of what comes from a bucket is checked when it comes, not each time; see `verify`.

        Raises:
            BlobCorruptError: What came to this machine has another hash.
        """
        path = self.path(key)
        if not self.is_remote:
            with _reading(key):
                path.stat()
            return path
        copy = self._copy(sha256)
        with suppress(FileNotFoundError):
            os.utime(copy)
            return copy
        with _writing(key), self._locked(sha256):
            # What was changed on its way comes right the second time.
            if copy.exists() or self._fetched(key, sha256) or self._fetched(key, sha256):
                return copy
        raise BlobCorruptError(key)

    def verify(self, key: str, sha256: str) -> Path:
        """Return such a file after checking its hash; raises as `open`."""
        path = self.open(key, sha256)
        with _reading(key):
            if _digest(path) == sha256:
                return path
        if not self.is_remote:
            raise BlobCorruptError(key)
        path.unlink(missing_ok=True)  # a copy that was changed on this machine comes again
        return self.open(key, sha256)

    def size(self, key: str) -> int:
        """Return the number of bytes of a key."""
        path = self.path(key)
        if self.is_remote:
            return self._bucket.size(key)
        with _reading(key):
            return path.stat().st_size

    def digest(self, key: str) -> str:
        """Read the bytes of a key in the store itself, and return their hash."""
        hashed = hashlib.sha256()
        for piece in self.stream(key, 0, self.size(key)):
            hashed.update(piece)
        return hashed.hexdigest()

    def stream(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield some bytes of a key, in pieces."""
        path = self.path(key)
        if self.is_remote:
            yield from self._bucket.stream(key, start, stop)
            return
        with _reading(key), path.open("rb") as file:
            file.seek(start)
            while start < stop and (piece := file.read(min(_PIECE_BYTES, stop - start))):
                start += len(piece)
                yield piece

    def delete(self, prefix: str) -> None:
        """Delete a file, or a folder with all in it; nothing there is no error.

        Who has the file open keeps reading it.
        """
        path = self.path(prefix)
        if self.is_remote:
            below = [name for name, _, _ in self._bucket.found(prefix)]
            self._bucket.delete([prefix, *below] if "." in prefix else below or [prefix])
            return
        with _writing(prefix), suppress(FileNotFoundError, NotADirectoryError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of the files in a folder, sorted; none if there is no such folder."""
        path = self.root / prefix if prefix in FOLDERS else self.path(prefix)
        if self.is_remote:
            return sorted(name for name, _, _ in self._bucket.found(prefix))
        return sorted(
            file.relative_to(self.root).as_posix() for file in path.rglob("*") if file.is_file()
        )

    def files(self) -> Iterator[FoundFile]:
        """Give all that lies in the store, but what is staged."""
        aside = (STAGING, STORE_ID)
        for key, size, changed_at in self._bucket.found(None) if self.is_remote else self._found():
            if key.partition("/")[0] not in aside:
                # The store makes no links.
                own = KEY.fullmatch(key) is not None and not (self.root / key).is_symlink()
                yield FoundFile(key=key, bytes=size, age_s=time.time() - changed_at, own=own)

    def staged_files(self, *, older_than_s: float) -> list[FoundFile]:
        """Give what crashed writers left in the staging folder; see `sweep_staging`."""
        found = (
            FoundFile(key=key, bytes=size, age_s=time.time() - changed_at, own=False)
            for key, size, changed_at in self._found(STAGING)
        )
        return [file for file in found if file.age_s >= older_than_s]

    def sweep_staging(self, *, older_than_s: float) -> int:
        """Delete what crashed writers left in the staging folder; a slow upload may still continue."""
        left = self.staged_files(older_than_s=older_than_s)
        for file in left:
            (self.root / file.key).unlink(missing_ok=True)
        return len(left)

    def identity(self) -> str | None:
        """Return what tells this store from others; None: it was never told, or is not there."""
        try:
            if self.is_remote:
                stream = self._bucket.stream(STORE_ID, 0, self._bucket.size(STORE_ID))
                content = b"".join(stream)
            else:
                with _reading(STORE_ID):
                    content = (self.root / STORE_ID).read_bytes()
            found = content.decode("ascii").strip() or None
        except (BlobMissingError, UnicodeDecodeError):
            return None
        self._identity = self._identity or found
        return found

    def check_identity(self, identity: str) -> None:
        """Raise `WrongStoreError` if this is not the store of an identity, or none is there."""
        found = self.identity()
        if found == identity:
            return
        what = f"is store {found}" if found else "has no file store-id: nothing is mounted there"
        raise WrongStoreError(
            f"{self.name} {what}; the database belongs to store {identity}. Mount that one, or,"
            f" where this is it, write {identity} into its file store-id."
        )

    def mark(self, identity: str) -> None:
        """Give the store its identity, durably."""
        with self.staged(".id") as path, _writing(STORE_ID):
            path.write_text(f"{identity}\n", encoding="ascii")
            blob = _synced(path, STORE_ID)
            if self.is_remote:
                self._bucket.put(STORE_ID, path, blob.bytes)
            else:
                path.replace(self.root / STORE_ID)
                _sync_folder(self.root)
        self._identity = identity

    def look(self) -> None:
        """Check that the store can be read and has room, without writing to it."""
        if self.is_remote:
            self.identity()
        elif not os.access(self.staging, os.W_OK):
            raise BlobDiskError(STAGING, "cannot be written")
        with _writing(STAGING):
            if free_bytes(self.root) == 0:
                raise StorageFullError

    def check_room(self) -> None:
        """Raise `DiskKeptError` if less of the disk is free than is to stay so; who writes a large file asks meanwhile."""
        leave_bytes = self.address.leave_bytes
        with suppress(OSError):  # a disk that fails is told of by the next write
            if leave_bytes and free_bytes(self.root) < leave_bytes:
                raise DiskKeptError(leave_bytes)

    def ping(self, size: int = 5) -> None:
        """Write, read back and remove a probe file of this many bytes."""
        folder = f"jobs/probe_{secrets.token_hex(8)}"
        with self.staged() as path:
            path.write_bytes(secrets.token_bytes(size))
            stored = self._store(path, f"{folder}/0-0.probe")  # also on a disk that is nearly full
        found = self.digest(stored.key)
        self.delete(folder)
        if found != stored.sha256:
            raise BlobDiskError(STAGING, "does not keep what is written to it")

    @cached_property
    def _bucket(self) -> Bucket:
        """The bucket, opened when it is first needed: its threads must not be there before a fork."""
        return Bucket(self.address)

    def path(self, key: str) -> Path:
        """Return where the file of a key lies, or would lie, below the root; raises ValueError for what is no key."""
        if KEY.fullmatch(key) is None:
            raise ValueError("this is no key of the blob store")
        return self.root / key

    def _check_mounted(self, key: str) -> None:
        known = self._identity
        if not self.is_remote and known is not None and self.identity() != known:
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

    def _found(self, folder: str = "") -> Iterator[tuple[str, int, float]]:
        """Yield path below the root, size and time of change of the files in a folder."""
        for path in sorted((self.root / folder).rglob("*")):
            with suppress(FileNotFoundError):
                status = path.lstat()
                if not path.is_dir() or path.is_symlink():
                    key = path.relative_to(self.root).as_posix()
                    yield key, status.st_size, status.st_mtime

    def _copy(self, sha256: str) -> Path:
        return self.root / _COPIES / sha256[:2] / sha256

    def _fetched(self, key: str, sha256: str) -> bool:
        """Bring an object to this machine, and return whether it has the hash."""
        with self.staged() as staged:
            with staged.open("wb") as file:
                for piece in self._bucket.stream(key, 0, self._bucket.size(key)):
                    file.write(piece)
            if _synced(staged, key).sha256 != sha256:
                return False
            self._keep(staged, sha256)
            return True

    def _keep(self, staged: Path, sha256: str) -> None:
        """Keep a copy by its hash; those that were not used for the longest time go first."""
        copy = self._copy(sha256)
        copy.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(copy)
        found = sorted((used_at, size, key) for key, size, used_at in self._found(_COPIES))
        excess = sum(size for _, size, _ in found) - self.address.cache_bytes
        for used_at, size, key in found:
            if excess <= 0 or used_at > time.time() - _GRACE_S:
                return
            (self.root / key).unlink(missing_ok=True)
            excess -= size

    @contextmanager
    def _locked(self, sha256: str) -> Iterator[None]:
        """Let one process of this machine at a time fetch a file."""
        locks = self.root / _LOCKS
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / sha256[:2]).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _synced(path: Path, key: str) -> StoredBlob:
    """Hash a file, and make its content durable."""
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


@contextmanager
def _reading(key: str) -> Iterator[None]:
    """Raise the store's errors for a file that goes, or cannot be read, while it is used."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise BlobMissingError(key) from None
    except OSError as error:
        raise BlobDiskError(key, "cannot be read") from error


@contextmanager
def _writing(key: str) -> Iterator[None]:
    """Raise the store's errors for a disk that is full or fails."""
    try:
        with disk_errors(key):
            yield
    except OSError as error:
        raise BlobDiskError(key, "cannot be written") from error
