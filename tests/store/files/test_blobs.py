"""The blob store keeps whole files: what each promises, in a folder and on a real server, and what a folder does."""

import errno
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models_store.errors import (
    BlobCorruptError,
    BlobDiskError,
    BlobError,
    BlobMissingError,
    StorageFullError,
    WrongStoreError,
)
from models_store.files.blobs import Blobs, table_key
from models_store.files.store_address import StoreAddress, checked_store_url
from tests.support.bucket_servers import S3Server

KEY = "datasets/ds_1/table.npy"
NO_KEYS = [
    *(
        "",
        "/",
        "store-id",
        ".",
        "..",
        "datasets",
        "staging/x",
        "../datasets/x",
        "/etc/passwd",
        "jobs/a/b/c/d",
    ),
    *("datasets/../../x", "datasets/./x", "datasets//x", "datasets/x/", "datasets/.hidden"),
    *("datasets/a\0b", "models/a b", "jobs/x\n", "jobs/\u00e9", "datasets\\x/y"),
]


def put(blobs: Blobs, content: bytes, key: str = KEY) -> str:
    with blobs.staged(".npy") as path:
        path.write_bytes(content)
        return blobs.commit(path, key).sha256


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Blobs:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    prefix = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    blobs = Blobs(s3_server.address(tmp_path / "cache", prefix=prefix))
    s3_server.wait_ready(blobs)
    return blobs


@pytest.fixture
def folder(tmp_path: Path) -> Blobs:
    return Blobs(StoreAddress(url=str(tmp_path / "blobs")))


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest) -> Blobs:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def another(blobs: Blobs, folder: Path) -> Blobs:
    """The same store, seen from another machine."""
    if not blobs.is_remote:
        return blobs
    return Blobs(blobs.address.model_copy(update={"cache_dir": str(folder)}))


def test_what_is_committed_is_read_everywhere(blobs: Blobs, tmp_path: Path) -> None:
    content = os.urandom(20_000_001)  # three parts
    sha256 = put(blobs, content)
    assert sha256 == hashlib.sha256(content).hexdigest()
    other = another(blobs, tmp_path / "other")
    assert other.open(KEY, sha256).read_bytes() == content
    assert other.verify(KEY, sha256).read_bytes() == content
    assert other.size(KEY) == len(content)
    assert other.digest(KEY) == sha256
    assert b"".join(other.stream(KEY, 5, 9_000_000)) == content[5:9_000_000]
    assert list(other.stream(KEY, 7, 7)) == []
    assert not list(blobs.staging.iterdir())


def test_a_missing_key_is_missing(blobs: Blobs) -> None:
    for use in (blobs.size, blobs.digest, lambda key: blobs.verify(key, "0" * 64)):
        with pytest.raises(BlobMissingError):
            use(KEY)
    with pytest.raises(BlobMissingError):
        list(blobs.stream(KEY, 0, 1))
    assert blobs.keys("datasets/ds_1") == []
    blobs.delete(KEY)
    blobs.delete("datasets/ds_1")


def test_no_other_text_is_a_key(blobs: Blobs) -> None:
    for key in NO_KEYS:
        for use in (blobs.size, blobs.delete, lambda key: put(blobs, b"x", key)):
            with pytest.raises(ValueError, match="key"):
                use(key)


def test_another_hash_is_corruption(blobs: Blobs, tmp_path: Path) -> None:
    put(blobs, b"one")
    with pytest.raises(BlobCorruptError):
        another(blobs, tmp_path / "other").verify(KEY, hashlib.sha256(b"two").hexdigest())


def test_a_folder_goes_with_all_in_it_and_nothing_else(blobs: Blobs) -> None:
    for key in (KEY, "datasets/ds_1/table.parquet", "datasets/ds_10/table.npy"):
        put(blobs, b"x", key)
    assert blobs.keys("datasets/ds_1") == [KEY, "datasets/ds_1/table.parquet"]
    blobs.delete(KEY)
    assert blobs.keys("datasets/ds_1") == ["datasets/ds_1/table.parquet"]
    blobs.delete("datasets/ds_1")
    assert blobs.keys("datasets") == ["datasets/ds_10/table.npy"]
    assert [(file.key, file.own) for file in blobs.files()] == [("datasets/ds_10/table.npy", True)]


def test_a_store_knows_whose_it_is(blobs: Blobs) -> None:
    with pytest.raises(WrongStoreError, match="has no file"):
        blobs.check_identity("a" * 32)
    blobs.mark("a" * 32)
    blobs.check_identity("a" * 32)
    with pytest.raises(WrongStoreError, match="is store a"):
        blobs.check_identity("b" * 32)
    assert list(blobs.files()) == []


def test_a_look_and_a_ping_leave_nothing(blobs: Blobs) -> None:
    blobs.ping(100_000)
    blobs.look()
    assert list(blobs.files()) == []


def test_wrong_credentials_are_told_without_them(s3, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("wrong-secret\n")
    right = os.environ["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY_FILE", str(secret))
    with pytest.raises(BlobDiskError, match="refuses the credentials") as raised:
        Blobs(s3.address).ping()
    assert "wrong-secret" not in str(raised.value)
    assert raised.value.__cause__ is None
    secret.write_text(f"{right}\n")
    Blobs(s3.address).ping()


def test_what_names_no_store_is_refused_in_one_line() -> None:
    for url, words in (
        ("relative/path", "absolute path"),
        ("file:///srv", "no store of this version"),
        ("s3://", "s3://BUCKET"),
        ("s3://key:secret@bucket/x", "variables of the environment"),
        ("s3://bucket?token=x", "variables of the environment"),
        ("s3://bucket#secret", "variables of the environment"),
    ):
        with pytest.raises(ValueError, match=words) as refused:
            checked_store_url(url)
        assert "\n" not in str(refused.value)
        assert "secret" not in str(refused.value)
    for url in ("/srv/blobs", "s3://bucket", "gs://bucket/prefix", "az://container/a/b"):
        assert checked_store_url(url) == url


def staging(folder: Blobs) -> list[Path]:
    return list((folder.root / "staging").glob("*"))


def test_a_file_that_is_not_committed_goes(folder: Blobs) -> None:
    with folder.staged() as path:
        path.write_bytes(b"x")
    with pytest.raises(KeyError), folder.staged():
        raise KeyError
    assert staging(folder) == []
    with pytest.raises(BlobMissingError):
        folder.size(KEY)


def test_a_new_file_under_an_old_key_replaces_it_at_once(folder: Blobs) -> None:
    put(folder, b"old")
    reader = folder.path(KEY).open("rb")
    put(folder, b"new")
    with reader:
        assert reader.read() == b"old"
    assert folder.path(KEY).read_bytes() == b"new"


def test_only_a_staged_file_is_committed(folder: Blobs, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"x")
    with pytest.raises(ValueError, match="staged"):
        folder.commit(other, KEY)
    with folder.staged() as path:
        path.unlink()
        path.symlink_to(other)
        with pytest.raises(BlobError):
            folder.commit(path, KEY)
    assert other.exists()


def test_old_staged_files_are_swept_and_fresh_ones_spared(folder: Blobs) -> None:
    assert folder.sweep_staging(older_than_s=0) == 0
    with folder.staged() as old, folder.staged() as fresh:
        past = time.time() - 1000
        os.utime(old, (past, past))
        assert folder.sweep_staging(older_than_s=500) == 1
        assert staging(folder) == [fresh]
        assert folder.sweep_staging(older_than_s=0) == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BlobError, match="cannot be written"):
        Blobs.in_folder(tmp_path / "file").ping()


def test_what_the_disk_answers_whoever_writes_is_told_and_nothing_is_left(folder: Blobs) -> None:
    put(folder, b"old")
    for code, error in (
        *((code, StorageFullError) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
        *((code, BlobDiskError) for code in (errno.EIO, errno.EROFS, errno.ESTALE)),
        (errno.EMFILE, OSError),
    ):
        with pytest.raises(error), folder.staged():
            raise OSError(code, "disk")
    assert staging(folder) == []
    assert folder.path(KEY).read_bytes() == b"old"


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.ENOSPC, StorageFullError), (errno.EIO, BlobError)]
)
def test_a_failed_fsync_stores_nothing(folder, monkeypatch, code, expected):
    put(folder, b"old")

    def fail(_handle: int) -> None:
        raise OSError(code, "disk")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(expected):
            put(folder, b"new")
    assert folder.path(KEY).read_bytes() == b"old"
    assert staging(folder) == []


def test_a_store_commits_nothing_that_takes_what_stays_free(tmp_path):
    Blobs.in_folder(tmp_path, leave_bytes=1).check_room()
    blobs = Blobs.in_folder(tmp_path, leave_bytes=10**18)
    with blobs.staged() as path:
        path.write_bytes(b"rows")
        with pytest.raises(StorageFullError, match="make room on the disk"):
            blobs.commit(path, table_key("ds_1"))
    assert blobs.keys("datasets") == []
    assert list(blobs.staging.iterdir()) == []
