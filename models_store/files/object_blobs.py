"""Blobs in object storage, with copies on the disk of this machine."""

import hashlib
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from models_store.errors import (
    BlobCorruptError,
    BlobDiskError,
    BlobError,
    BlobMissingError,
    StorageFullError,
)
from models_store.files.blob_cache import BlobCache
from models_store.files.blobs import FOLDERS, KEY, STAGING, STORE_ID, FoundFile, StoredBlob
from models_store.files.buckets import Bucket
from models_store.files.disks import disk_errors
from models_store.files.local_blobs import LocalBlobs
from models_store.files.store_address import StoreAddress

_PROBES = "probes"
_RESULTS = "results/"


class ObjectBlobs:
    """Blobs in a bucket; a file is read once, then from this machine, while it is in use there."""

    is_remote = True

    def __init__(self, address: StoreAddress) -> None:
        """Name the bucket; nothing is opened yet."""
        self._address = address
        self._lock = threading.Lock()
        self._opened: Bucket | None = None
        self._local = LocalBlobs(Path(address.cache_dir))
        self._cache = BlobCache(self._local.root, address.cache_bytes)
        self.name = address.url
        self.staging = self._local.staging

    @property
    def _bucket(self) -> Bucket:
        """The bucket, opened when it is first needed: its threads must not be there before a fork."""
        with self._lock:
            if self._opened is None:
                self._opened = Bucket(self._address)
            return self._opened

    def staged(self, suffix: str = "") -> AbstractContextManager[Path]:
        """Give a new file on this machine, as `Blobs.staged` says."""
        return self._local.staged(suffix)

    def staged_files(self, *, older_than_s: float) -> list[FoundFile]:
        """Give what crashed writers left, as `Blobs.staged_files` says."""
        return self._local.staged_files(older_than_s=older_than_s)

    def sweep_staging(self, *, older_than_s: float) -> int:
        """Delete what crashed writers left, as `Blobs.sweep_staging` says."""
        return self._local.sweep_staging(older_than_s=older_than_s)

    def commit(self, staged: Path, key: str) -> StoredBlob:
        """Send a staged file and see it back, as `Blobs.commit` says."""
        _check_key(key)
        if staged.parent != self.staging or staged.is_symlink():
            raise ValueError("only a staged file can be committed")
        with disk_errors(key), staged.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
        self._bucket.put(key, staged, size)
        if not key.startswith(_RESULTS):  # callers fetch these, this machine does not
            with disk_errors(key):
                self._cache.add(staged, sha256)
        return StoredBlob(key=key, sha256=sha256, bytes=size)

    def open(self, key: str, sha256: str) -> Path:
        """Return a copy on this machine, as `Blobs.open` says."""
        _check_key(key)
        return self._cache.find(sha256) or self._fetched(key, sha256)

    def verify(self, key: str, sha256: str) -> Path:
        """Return a copy on this machine whose hash was checked now, as `Blobs.verify` says."""
        _check_key(key)
        return self._cache.hashed(sha256) or self._fetched(key, sha256)

    def _fetched(self, key: str, sha256: str) -> Path:
        size = self._bucket.size(key)

        def download(file: IO[bytes]) -> str:
            hashed = hashlib.sha256()
            file.seek(0)
            for piece in self._bucket.stream(key, 0, size):
                hashed.update(piece)
                with disk_errors(key):
                    file.write(piece)
            return hashed.hexdigest()

        with disk_errors(key):
            found = self._cache.fetch(sha256, download)
            if found is None:  # what was changed on its way comes right the second time
                found = self._cache.fetch(sha256, download)
        if found is None:
            raise BlobCorruptError(key)
        return found

    def size(self, key: str) -> int:
        """Return the size of an object, as `Blobs.size` says."""
        return self._bucket.size(_check_key(key))

    def digest(self, key: str) -> str:
        """Return the hash of an object that is read whole, as `Blobs.digest` says."""
        hashed = hashlib.sha256()
        for piece in self.stream(key, 0, self.size(key)):
            hashed.update(piece)
        return hashed.hexdigest()

    def stream(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """Yield some bytes of an object, as `Blobs.stream` says."""
        return self._bucket.stream(_check_key(key), start, stop)

    def link(self, key: str, *, valid_s: float) -> str | None:
        """Return a signed address, as `Blobs.link` says."""
        return self._bucket.link(_check_key(key), valid_s=valid_s)

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix, as `Blobs.keys` says."""
        if prefix not in FOLDERS:
            _check_key(prefix)
        return sorted(name for name, _, _ in self._bucket.found(prefix))

    def files(self) -> Iterator[FoundFile]:
        """Give all objects below the store's own prefix, as `Blobs.files` says."""
        now = self._now()
        for name, size, changed_at in self._bucket.found(None):
            if name != STORE_ID and not name.startswith(f"{_PROBES}/"):
                own = KEY.fullmatch(name) is not None
                yield FoundFile(key=name, bytes=size, age_s=now - changed_at, own=own)

    def delete(self, prefix: str) -> None:
        """Delete an object and those below it, as `Blobs.delete` says."""
        _check_key(prefix)
        below = [name for name, _, _ in self._bucket.found(prefix)]
        self._bucket.delete([prefix, *below] if "." in prefix else below or [prefix])

    def identity(self) -> str | None:
        """Return the identity of the store, as `Blobs.identity` says."""
        try:
            return self._bucket.get_bytes(STORE_ID).decode("ascii").strip() or None
        except (BlobMissingError, UnicodeDecodeError):
            return None

    def mark(self, identity: str) -> None:
        """Give the store its identity, as `Blobs.mark` says."""
        self._bucket.put_bytes(STORE_ID, f"{identity}\n".encode("ascii"))

    def look(self) -> None:
        """Read the identity, and check that this machine has room for copies."""
        self.identity()
        folder = self._local.root
        while not folder.exists():
            folder = folder.parent
        if shutil.disk_usage(folder).free == 0:
            raise StorageFullError

    def _now(self) -> float:
        """Return the time by the clock of the bucket: by this machine's, new objects might seem old."""
        key = f"{_PROBES}/{secrets.token_hex(8)}"
        try:
            self._bucket.put_bytes(key, b"")
            found = self._bucket.found(_PROBES)
            now = max((changed_at for _, _, changed_at in found), default=time.time())
            self._bucket.delete([key])
        except (BlobError, StorageFullError):
            return time.time()
        return now

    def check_room(self) -> None:
        """Return: nothing is kept of the disk, which has only files on their way."""

    def ping(self, size: int = 5) -> None:
        """Write, read back and remove a probe, as `Blobs.ping` says."""
        key, probe = f"{_PROBES}/{secrets.token_hex(8)}", secrets.token_bytes(size)
        self._local.ping()
        self._bucket.put_bytes(key, probe)
        if self._bucket.get_bytes(key) != probe:
            raise BlobDiskError(STAGING, "does not keep what is written to it")
        self._bucket.delete([key])


def _check_key(key: str) -> str:
    if KEY.fullmatch(key) is None:
        raise ValueError("this is no key of the blob store")
    return key
