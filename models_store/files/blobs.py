"""Blobs: files that are written whole or not at all, under keys, with their hashes.

They lie in a folder (`local_blobs`) or in object storage (`object_blobs`). A file is written in the
staging folder of this machine, then committed under its key. Keys are made by this service alone: no
caller's text is ever part of a path.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from models_store.errors import WrongStoreError

STAGING = "staging"
STORE_ID = "store-id"
"""File that tells one store from another; a copy of the store has it, too."""

KEY = re.compile(r"(datasets|jobs|models|results)(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){1,3}")
_ATTEMPT = re.compile(r"[0-9]{1,9}(?=[-.])")
FOLDERS = ("datasets", "jobs", "models", "results")


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


class Blobs(Protocol):
    """Files that every process of the service shares.

    Attributes:
        name: The store in log lines and errors, without credentials.
        staging: Folder on this machine in which files are written before they are committed.
        is_remote: True for a server, which may be away for a while; False for a folder.
    """

    name: str
    staging: Path
    is_remote: bool

    def staged(self, suffix: str = "") -> AbstractContextManager[Path]:
        """Give the path of a new empty file in the staging folder; it goes if not committed.

        Raises:
            StorageFullError: No space is left, for this file or for what the body writes.
            BlobError: The disk failed, or cannot be written.
        """

    def commit(self, staged: Path, key: str) -> StoredBlob:
        """Make a staged file durable under a key: it survives a power cut once this returns.

        Raises:
            ValueError: The file is not in the staging folder, or the key is none.
            StorageFullError: No space is left.
            BlobError: The store failed; nothing is stored.
        """

    def open(self, key: str, sha256: str) -> Path:
        """Return a file on this machine with the content of a key, for reading soon.

        Its hash is checked when it comes to this machine, not each time; see `verify`.

        Raises:
            BlobMissingError: There is none.
            BlobCorruptError: What came to this machine has another hash.
            BlobError: It cannot be read.
        """

    def verify(self, key: str, sha256: str) -> Path:
        """Return a file on this machine with the content of a key after checking its hash.

        Raises:
            BlobMissingError: There is none.
            BlobCorruptError: Its bytes are not those that were stored.
            BlobError: It cannot be read.
        """

    def size(self, key: str) -> int:
        """Return the number of bytes of a key.

        Raises:
            BlobMissingError: There is none.
            BlobError: It cannot be read.
        """

    def digest(self, key: str) -> str:
        """Read the bytes of a key in the store itself, and return their hash.

        Raises:
            BlobMissingError: There is none.
            BlobError: It cannot be read.
        """

    def stream(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield some bytes of a key, in pieces, which come from the store one after the other.

        Raises:
            BlobMissingError: There is none.
            BlobError: It cannot be read.
        """

    def link(self, key: str, *, valid_s: float) -> str | None:
        """Return an address from which anybody may read a key for a while; None: there is none."""

    def delete(self, prefix: str) -> None:
        """Delete a file, or a folder with all in it; nothing there is no error.

        Who has the file open keeps reading it.

        Raises:
            BlobError: It cannot be deleted.
        """

    def keys(self, prefix: str) -> list[str]:
        """Return the keys of the files in a folder, sorted; none if there is no such folder.

        Raises:
            BlobError: The store cannot be read.
        """

    def files(self) -> Iterator[FoundFile]:
        """Give all that lies in the store, but what is staged.

        Raises:
            BlobError: The store cannot be read.
        """

    def staged_files(self, *, older_than_s: float) -> list[FoundFile]:
        """Give what crashed writers left in the staging folder; see `sweep_staging`."""

    def sweep_staging(self, *, older_than_s: float) -> int:
        """Delete what crashed writers left in the staging folder; return how many files.

        Args:
            older_than_s: Age up to which files are spared; a slow upload may still continue.
        """

    def identity(self) -> str | None:
        """Return what tells this store from others; None: it was never told, or is not there.

        Raises:
            BlobDiskError: The store cannot be read.
        """

    def mark(self, identity: str) -> None:
        """Give the store its identity, durably.

        Raises:
            StorageFullError: No space is left.
            BlobError: The store failed.
        """

    def look(self) -> None:
        """Check that the store can be read and has room, without writing to it.

        Raises:
            StorageFullError: No space is left.
            BlobError: It cannot be used.
        """

    def check_room(self) -> None:
        """Check that as much of the disk is free as is to stay free; who writes a large file asks meanwhile.

        Raises:
            DiskKeptError: It is not.
        """

    def ping(self, size: int = 5) -> None:
        """Write, read back and remove a probe file of this many bytes.

        Raises:
            StorageFullError: No space is left.
            BlobError: The store cannot be written, or gives back something else.
        """


def check_identity(blobs: Blobs, identity: str) -> None:
    """Refuse to continue with a store that is not the one of this identity.

    Raises:
        WrongStoreError: It is another one, or is not there.
        BlobDiskError: It cannot be read.
    """
    found = blobs.identity()
    if found == identity:
        return
    what = f"is store {found}" if found else "has no file store-id: nothing is mounted there"
    raise WrongStoreError(
        f"{blobs.name} {what}; the database belongs to store {identity}. Mount that one, or,"
        f" where this is it, write {identity} into its file store-id."
    )
