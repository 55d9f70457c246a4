"""A bucket in memory, a chosen request to which goes wrong: the client that stands between is a stand-in for obstore."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore

from models_store.files import buckets
from models_store.files.store_address import StoreAddress

Listed = list[dict[str, Any]]


class Wrong(StrEnum):
    """Way in which a request goes wrong, once all that the client tries again itself is tried.

    Attributes:
        REFUSED: an error, and no effect.
        LOST: it has its effect, and an error.
        HALVED: half of what was asked for is given as if that were all.
        ALTERED: what was asked for is given with a bit changed.
        OLD: a list as it was when the same one was asked for before, or empty.
    """

    REFUSED = "refused"
    LOST = "lost"
    HALVED = "halved"
    ALTERED = "altered"
    OLD = "old"


@dataclass(frozen=True)
class Fault:
    """A request that goes wrong.

    Attributes:
        at: number of the request, from 1.
        wrong: what becomes of it.
        lasting: so do all like it after it, until the bucket is mended.
    """

    at: int
    wrong: Wrong
    lasting: bool = False


@dataclass
class FaultyBucket:
    """The bucket.

    Args:
        fault: what goes wrong, once.

    Attributes:
        requests: What was asked for, as the name of the function and the key.
    """

    fault: Fault | None = None
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._store = MemoryStore()
        self._lists: dict[str | None, Listed] = {}
        self._faulty: str | None = None

    @contextmanager
    def mounted(self) -> Iterator["FaultyBucket"]:
        """Stand where the service has the client of its buckets."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(buckets, "from_url", lambda *_, **__: self._store)
            patch.setattr(buckets, "obstore", self)
            yield self

    def address(self, folder: Path) -> StoreAddress:
        """Return the address of the bucket, with a folder for the copies of a machine."""
        return StoreAddress(url="s3://bucket", cache_dir=str(folder), cache_bytes=2**30)

    def mend(self) -> None:
        """Let nothing more go wrong."""
        self.fault = self._faulty = None

    def put(self, store: MemoryStore, key: str, content: Path | bytes, **options: Any) -> None:
        with self._tried(f"put {key}"):
            obstore.put(store, key, content, **options)

    def head(self, store: MemoryStore, key: str) -> Any:
        with self._tried(f"head {key}"):
            return obstore.head(store, key)

    def get(self, store: MemoryStore, key: str) -> "_Content":
        with self._tried(f"get {key}") as wrong:
            return _Content(_spoilt(bytes(obstore.get(store, key).bytes()), wrong))

    def get_range(self, store: MemoryStore, key: str, *, start: int, length: int) -> bytes:
        with self._tried(f"get {key}") as wrong:
            content = obstore.get_range(store, key, start=start, length=length)
            return _spoilt(bytes(content), wrong)

    def list(self, store: MemoryStore, prefix: str | None) -> Iterator[Listed]:
        with self._tried(f"list {prefix}") as wrong:
            found: Any = [one for page in obstore.list(store, prefix) for one in page]
            older = self._lists.get(prefix, [])
            self._lists[prefix] = found
            yield older if wrong is Wrong.OLD else found

    def delete(self, store: MemoryStore, key: str) -> None:
        with self._tried(f"delete {key}"):
            obstore.delete(store, key)

    @contextmanager
    def _tried(self, request: str) -> Iterator[Wrong | None]:
        """Count a request, and have it fail before its effect or after, if it is to; else tell how it goes wrong."""
        self.requests.append(request)
        fault, wrong = self.fault, None
        if fault is not None and (len(self.requests) == fault.at or request == self._faulty):
            wrong = fault.wrong
            self._faulty = request if fault.lasting else None
        if wrong is Wrong.REFUSED:
            raise GenericError("refused")
        yield wrong
        if wrong is Wrong.LOST:
            raise GenericError("lost")


@dataclass(frozen=True)
class _Content:
    """Answer to a request for a whole object."""

    content: bytes

    def bytes(self) -> bytes:
        return self.content


def _spoilt(content: bytes, wrong: Wrong | None) -> bytes:
    if wrong is Wrong.HALVED:
        return content[: len(content) // 2]
    if wrong is Wrong.ALTERED and content:
        return content[:-1] + bytes([content[-1] ^ 1])
    return content
