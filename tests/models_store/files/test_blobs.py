"""The blob store keeps whole files, and nothing outside its folder."""

import errno
import hashlib
import os
import resource
import threading
import time
from pathlib import Path

import pytest

from models_store.database.ids import new_id
from models_store.errors import BlobCorruptError, BlobError, BlobMissingError, StorageFullError
from models_store.files.blobs import Blobs, checkpoint_key, model_key, table_key

KEY = "datasets/ds_1/table.npy"
NO_KEYS = [
    *("", "/", ".", "..", "datasets", "staging/x", "../datasets/x", "/etc/passwd", "jobs/a/b/c/d"),
    *("datasets/../../x", "datasets/./x", "datasets//x", "datasets/x/", "datasets/.hidden"),
    *("datasets/a\0b", "models/a b", "jobs/x\n", "jobs/\u00e9", "datasets\\x/y"),
]


def put(blobs: Blobs, content: bytes, key: str = KEY) -> str:
    with blobs.staged() as path:
        path.write_bytes(content)
        return blobs.commit(path, key).sha256


def staging(blobs: Blobs) -> list[Path]:
    return list((blobs.root / "staging").glob("*"))


def test_a_committed_file_is_there_whole_with_its_hash(blobs: Blobs) -> None:
    content = os.urandom(3_000_000)
    with blobs.staged(".npy") as path:
        assert path.suffix == ".npy"
        path.write_bytes(content)
        stored = blobs.commit(path, KEY)
    assert (stored.key, stored.bytes) == (KEY, len(content))
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert blobs.path(KEY).read_bytes() == content
    assert blobs.verify(KEY, stored.sha256) == blobs.path(KEY)
    assert staging(blobs) == []


def test_a_file_that_is_not_committed_goes(blobs: Blobs) -> None:
    with blobs.staged() as path:
        path.write_bytes(b"x")
    with pytest.raises(KeyError), blobs.staged():
        raise KeyError
    assert staging(blobs) == []
    with pytest.raises(BlobMissingError):
        blobs.size(KEY)


def test_a_new_file_under_an_old_key_replaces_it_at_once(blobs: Blobs) -> None:
    put(blobs, b"old")
    reader = blobs.path(KEY).open("rb")
    put(blobs, b"new")
    with reader:
        assert reader.read() == b"old"
    assert blobs.path(KEY).read_bytes() == b"new"


def test_a_file_beyond_the_largest_that_there_may_be_finds_no_room(
    blobs: Blobs,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageFullError):
            put(blobs, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert staging(blobs) == []


def test_many_writers_leave_whole_files(blobs: Blobs) -> None:
    keys = [f"datasets/ds_{number}/table.npy" for number in range(40)]
    threads = [threading.Thread(target=put, args=(blobs, b"x" * 10_000, key)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blobs.keys("datasets") == sorted(keys)
    assert {blobs.path(key).stat().st_size for key in keys} == {10_000}


def test_a_flipped_bit_is_found(blobs: Blobs) -> None:
    sha256 = put(blobs, b"\0" * 1000)
    with blobs.path(KEY).open("r+b") as file:
        file.seek(500)
        file.write(b"\1")
    with pytest.raises(BlobCorruptError, match=KEY):
        blobs.verify(KEY, sha256)


@pytest.mark.parametrize("size", [0, 500, 999])
def test_a_truncated_file_is_found(blobs: Blobs, size: int) -> None:
    sha256 = put(blobs, b"\0" * 1000)
    os.truncate(blobs.path(KEY), size)
    with pytest.raises(BlobCorruptError):
        blobs.verify(KEY, sha256)


def test_a_file_that_is_gone_is_missing(blobs: Blobs) -> None:
    sha256 = put(blobs, b"x")
    blobs.path(KEY).unlink()
    for look in (lambda: blobs.size(KEY), lambda: blobs.verify(KEY, sha256)):
        with pytest.raises(BlobMissingError):
            look()


@pytest.mark.parametrize("bad", NO_KEYS)
def test_what_is_no_key_reaches_no_file(blobs: Blobs, bad: str) -> None:
    for use in (blobs.path, blobs.delete, lambda key: put(blobs, b"x", key)):
        with pytest.raises(ValueError, match="key"):
            use(bad)


def test_the_stores_own_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "blobs").symlink_to(tmp_path / "disk")
    blobs = Blobs.in_folder(tmp_path / "blobs")
    sha256 = put(blobs, b"x")
    assert blobs.verify(KEY, sha256).read_bytes() == b"x"


def test_only_a_staged_file_is_committed(blobs: Blobs, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"x")
    with pytest.raises(ValueError, match="staged"):
        blobs.commit(other, KEY)
    with blobs.staged() as path:
        path.unlink()
        path.symlink_to(other)
        with pytest.raises(BlobError):
            blobs.commit(path, KEY)
    assert other.exists()


def test_a_deleted_file_stays_for_who_has_it_open(blobs: Blobs) -> None:
    put(blobs, b"x")
    with blobs.path(KEY).open("rb") as reader:
        blobs.delete("datasets/ds_1")
        assert reader.read() == b"x"
    with pytest.raises(BlobMissingError):
        blobs.size(KEY)


def test_deleting_takes_a_file_or_a_folder_and_forgives_nothing_there(blobs: Blobs) -> None:
    keys = [checkpoint_key("job_1", 1, number=number) for number in (1, 2)]
    for key in (*keys, checkpoint_key("job_2", 1, number=1)):
        put(blobs, b"x", key)
    blobs.delete(keys[0])
    assert blobs.keys("jobs/job_1") == [keys[1]]
    for _ in range(2):
        blobs.delete("jobs/job_1")
    blobs.delete(keys[0])
    assert blobs.keys("jobs") == ["jobs/job_2/1-1.safetensors"]
    assert blobs.keys("models") == []


def test_no_two_attempts_share_a_key() -> None:
    job_id = new_id("job")
    keys = {model_key(job_id, 1), model_key(job_id, 2)}
    keys |= {checkpoint_key(job_id, 1, number=12), checkpoint_key(job_id, 11, number=2)}
    assert len({*keys, table_key(new_id("ds"))}) == 5


def test_old_staged_files_are_swept_and_fresh_ones_spared(blobs: Blobs) -> None:
    assert blobs.sweep_staging(older_than_s=0) == 0
    with blobs.staged() as old, blobs.staged() as fresh:
        past = time.time() - 1000
        os.utime(old, (past, past))
        assert blobs.sweep_staging(older_than_s=500) == 1
        assert staging(blobs) == [fresh]
        assert blobs.sweep_staging(older_than_s=0) == 1


def test_a_ping_leaves_nothing(blobs: Blobs) -> None:
    blobs.ping()
    assert staging(blobs) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BlobError, match="cannot be written"):
        Blobs.in_folder(tmp_path / "file").ping()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_is_told_and_nothing_is_left(blobs: Blobs, code: int) -> None:
    put(blobs, b"old")
    with pytest.raises(StorageFullError), blobs.staged():
        raise OSError(code, "no space")
    assert staging(blobs) == []
    assert blobs.path(KEY).read_bytes() == b"old"


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.ENOSPC, StorageFullError), (errno.EIO, BlobError)]
)
def test_a_failed_fsync_stores_nothing(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[Exception]
) -> None:
    put(blobs, b"old")

    def fail(_handle: int) -> None:
        raise OSError(code, "disk")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(expected):
            put(blobs, b"new")
    assert blobs.path(KEY).read_bytes() == b"old"
    assert staging(blobs) == []
