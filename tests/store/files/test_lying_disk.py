"""Every call of the blob store fails once, and the power fails at every call."""

import errno
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from models_store.errors import BlobError, StorageFullError
from models_store.files.blobs import STAGING, Blobs, StoredBlob, model_key, part_key, table_key
from tests.support.lying_disk import Failure, LyingDisk

KEYS = (
    table_key("ds_1"),
    model_key("job_1", 1),
    model_key("job_2", 1),
    part_key("job_1", 1, number=1),
)


class Promises:
    """What the store has promised so far: the files that must be there."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.kept: dict[str, StoredBlob] = {}

    def store(self, key: str, content: bytes) -> None:
        with self._blobs.staged(".bin") as path:
            path.write_bytes(content)
            self.kept[key] = self._blobs.commit(path, key)

    def delete(self, prefix: str) -> None:
        # From here on nobody relies on it: no row names it any more.
        for key in [key for key in self.kept if key.startswith(prefix)]:
            del self.kept[key]
        self._blobs.delete(prefix)

    def check(self, root: Path) -> None:
        found = Blobs.in_folder(root)
        for blob in self.kept.values():
            found.verify(blob.key, blob.sha256)


def steps(promises: Promises) -> Iterator[Callable[[], None]]:
    """The life of a store: new files, a replaced one, deleted ones, and new ones in their place."""
    for number, key in enumerate(KEYS):
        yield lambda key=key, number=number: promises.store(key, bytes([number]) * 5000)  # type: ignore[misc]
    yield lambda: promises.delete("jobs/job_1")
    yield lambda: promises.delete(KEYS[1])
    yield lambda: promises.store(KEYS[1], b"new")
    yield lambda: promises.store(part_key("job_1", 2, number=1), b"again")
    yield lambda: promises.delete("datasets/ds_1")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


def calls_of_a_life(root: Path) -> list[str]:
    disk = LyingDisk(root)
    with disk.mounted():
        for step in steps(Promises(Blobs.in_folder(root))):
            step()
    return disk.calls


def test_a_power_cut_at_any_call_takes_nothing_that_was_stored(root: Path, tmp_path: Path) -> None:
    numbers, promises = count(), Promises(Blobs.in_folder(root))

    def cut() -> None:
        for names_first in (False, True):
            image = tmp_path / f"cut-{next(numbers)}"
            promises.check(disk.after_power_cut(image, names_first=names_first))

    disk = LyingDisk(root, at_call=cut)
    with disk.mounted():
        for step in steps(promises):
            step()
        cut()
    assert next(numbers) > 50


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_call_that_fails_is_told_and_the_next_try_is_whole(tmp_path: Path, code: int) -> None:
    template = tmp_path / "template"
    template.mkdir()
    calls = calls_of_a_life(template)
    told = 0
    for number in range(1, len(calls) + 1):
        root = tmp_path / str(number)
        root.mkdir()
        disk = LyingDisk(root, Failure(at=number, code=code))
        promises = Promises(Blobs.in_folder(root))
        with disk.mounted():
            for step in steps(promises):
                try:
                    step()
                except (BlobError, StorageFullError):
                    told += 1
                    step()
        promises.check(root)
        promises.check(disk.after_power_cut(tmp_path / f"cut-{number}", names_first=False))
        # What could not be deleted is old enough to be swept one day.
        Blobs.in_folder(root).sweep_staging(older_than_s=-1)
        assert not list((root / STAGING).iterdir())
    assert told > len(calls) / 2
