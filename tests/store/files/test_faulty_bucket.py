"""Every request to a bucket goes wrong once: it fails, or what it gives is cut, changed or old."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models_store.errors import BlobError, StorageFullError
from models_store.files.blobs import Blobs, StoredBlob, model_key, part_key, table_key
from tests.support.faulty_bucket import Fault, FaultyBucket, Wrong

LARGE = table_key("ds_1")
KEYS = (LARGE, model_key("job_1", 1), model_key("job_2", 1), part_key("job_1", 1, number=1))


class Life:
    """The life of a bucket as its users see it, and what it has promised them so far."""

    def __init__(self, bucket: FaultyBucket, folder: Path, size: int) -> None:
        self._bucket, self._folder, self._size = bucket, folder, size
        self.user = Blobs(bucket.address(folder / "own"))
        self.kept: dict[str, StoredBlob] = {}
        self.contents: dict[str, bytes] = {}

    def steps(self) -> Iterator[Callable[[], None]]:
        for number, key in enumerate(KEYS):
            content = bytes([number]) * (self._size if key == LARGE else 5000)
            yield lambda key=key, content=content: self.store(key, content)  # type: ignore[misc]
        yield lambda: self.read(LARGE)
        yield lambda: self.read(KEYS[2])
        yield self.list_job
        yield lambda: self.delete("jobs/job_1")
        yield lambda: self.delete(KEYS[2])
        yield lambda: self.store(KEYS[2], b"new")
        yield lambda: self.delete("datasets/ds_1")

    def store(self, key: str, content: bytes) -> None:
        with self.user.staged(".bin") as path:
            path.write_bytes(content)
            self.kept[key] = self.user.commit(path, key)
        self.contents[key] = content

    def read(self, key: str) -> None:
        reader = Blobs(self._bucket.address(self._folder / "reader"))
        assert reader.verify(key, self.kept[key].sha256).read_bytes() == self.contents[key]

    def list_job(self) -> None:
        assert set(self.user.keys("jobs/job_1")) <= set(KEYS)

    def delete(self, prefix: str) -> None:
        # From here on nobody relies on it: no row names it any more.
        for key in [key for key in self.kept if key.startswith(prefix)]:
            del self.kept[key]
        self.user.delete(prefix)

    def check(self) -> list[str]:
        """See all that was promised in the bucket itself; the keys of what is there besides."""
        witness = Blobs(self._bucket.address(self._folder / "witness"))
        for blob in self.kept.values():
            witness.verify(blob.key, blob.sha256)
        return sorted({file.key for file in witness.files()} - set(self.kept))


def lived(
    folder: Path, fault: Fault | None, *, size: int = 5000
) -> tuple[list[str], list[str], list[str]]:
    """The requests of a life, the errors that its user saw, and what is left that nobody needs."""
    told = []
    with FaultyBucket(fault).mounted() as bucket:
        life = Life(bucket, folder, size)
        for step in life.steps():
            try:
                step()
            except (BlobError, StorageFullError) as error:
                told.append(f"{error}")
                bucket.mend()
                step()
        requests = [*bucket.requests]
        bucket.mend()
        return requests, told, life.check()


@pytest.mark.parametrize(
    ("wrong", "size"),
    # Larger ones are read in pieces.
    [*((wrong, 5000) for wrong in Wrong), (Wrong.HALVED, 9_000_000), (Wrong.ALTERED, 9_000_000)],
)
def test_a_request_that_goes_wrong_is_tried_again_or_told_and_nothing_stored_is_lost(
    tmp_path, wrong, size
):
    requests, told, left = lived(tmp_path / "undisturbed", None, size=size)
    assert (told, left) == ([], [])
    assert len(requests) > 15
    for number, request in enumerate(requests, 1):
        if size > 5000 and not request.endswith(LARGE):
            continue
        for lasting in (False, True):
            fault = Fault(number, wrong, lasting)
            _, told, left = lived(tmp_path / f"{number}-{lasting}", fault, size=size)
            # A deletion by an old list leaves files, which `doctor` finds.
            assert left == [] or wrong is Wrong.OLD, (fault, request)
            assert bool(told) or wrong not in (Wrong.REFUSED, Wrong.LOST)


def test_copies_that_were_not_used_for_longest_go_and_one_that_was_changed_comes_again(tmp_path):
    with FaultyBucket().mounted() as bucket:
        user = Blobs(bucket.address(tmp_path).model_copy(update={"cache_bytes": 2500}))
        stored, copies = [], []
        for number, key in enumerate(KEYS):
            with user.staged() as path:
                path.write_bytes(bytes([number]) * 1000)
                stored.append(user.commit(path, key))
            copies.append(user.open(key, stored[-1].sha256))
            past = time.time() - 1000 + number
            os.utime(copies[-1], (past, past))
        assert [copy.exists() for copy in copies] == [False, False, True, True]
        copies[-1].write_bytes(b"changed")
        assert user.verify(KEYS[-1], stored[-1].sha256).read_bytes() == bytes([number]) * 1000


def test_many_readers_on_one_machine_fetch_once(tmp_path):
    with FaultyBucket().mounted() as bucket:
        maker = Blobs(bucket.address(tmp_path / "maker"))
        with maker.staged() as path:
            path.write_bytes(os.urandom(5_000_000))
            stored = maker.commit(path, LARGE)
        # Each as a process of its own: a lock of a file is held by whoever opened it.
        readers = [Blobs(bucket.address(tmp_path / "shared")) for _ in range(8)]
        with ThreadPoolExecutor(len(readers)) as pool:
            copies = list(pool.map(lambda one: one.open(LARGE, stored.sha256), readers))
        assert {copy.read_bytes() for copy in copies} == {
            maker.open(LARGE, stored.sha256).read_bytes()
        }
        assert bucket.requests.count(f"get {LARGE}") == 1
