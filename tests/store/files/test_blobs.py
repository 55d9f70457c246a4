"""Files of the store: durable before named, private, known by an identity."""

import errno
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models_store.database.database import Database
from models_store.errors import (
    BlobCorruptError,
    BlobDiskError,
    BlobError,
    BlobMissingError,
    ModelFileError,
    StorageFullError,
    WrongStoreError,
)
from models_store.exports.exported_files import RECORD_KEY, read_record
from models_store.files.blobs import STORE_ID, Blobs, table_key
from models_store.files.model_files import MAX_HEADER_BYTES, read_model_file
from models_store.files.private_files import close_to_others, create_private_files
from models_store.files.store_address import StoreAddress, checked_store_url
from models_store.files.store_identity import adopt, known_identity
from models_store.registry import Registry
from models_store.requests.flow_limits import TrainingLimits
from tests.store.makers import added
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
    return Blobs(blobs._address.model_copy(update={"cache_dir": str(folder)}))


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


_READ_FOUR_TIMES = """
import hashlib, sys, threading
from models_store.files.blobs import Blobs
from models_store.files.store_address import StoreAddress
blobs = Blobs(StoreAddress.model_validate_json(sys.argv[1]))
key, sha256 = sys.argv[2:]
stream, fetched = blobs._bucket.stream, []
blobs._bucket.stream = lambda *arguments: fetched.append(1) or stream(*arguments)
threads = [threading.Thread(target=blobs.open, args=(key, sha256)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(fetched), hashlib.sha256(blobs.open(key, sha256).read_bytes()).hexdigest())
"""


@pytest.mark.cluster
def test_many_readers_of_many_processes_fetch_once(s3: Blobs, tmp_path: Path) -> None:
    sha256 = put(s3, os.urandom(9_000_000))
    address = s3._address.model_copy(update={"cache_dir": str(tmp_path / "shared")})
    command = [sys.executable, "-c", _READ_FOUR_TIMES, address.model_dump_json(), KEY, sha256]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
        for _ in range(2)
    ]
    found = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(count for count, _ in found) == ["0", "1"]
    assert {digest for _, digest in found} == {sha256}


def test_wrong_credentials_are_told_without_them(
    s3: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("wrong-secret\n")
    right = os.environ["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY_FILE", str(secret))
    with pytest.raises(BlobDiskError, match="refuses the credentials") as raised:
        Blobs(s3._address).ping()
    assert "wrong-secret" not in str(raised.value)
    assert raised.value.__cause__ is None
    secret.write_text(f"{right}\n")
    Blobs(s3._address).ping()


def test_what_names_no_store_is_refused_in_one_line() -> None:
    for url, words in (
        ("relative/path", "absolute path"),
        ("file:///srv", "no store of this version"),
        ("s3://", "s3://BUCKET"),
        ("s3://key:secret@bucket/x", "variables of the environment"),
        ("s3://bucket?token=x", "variables of the environment"),
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


def test_a_file_beyond_the_largest_that_there_may_be_finds_no_room(
    folder: Blobs,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageFullError):
            put(folder, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert staging(folder) == []


def test_many_writers_leave_whole_files(folder: Blobs) -> None:
    keys = [f"datasets/ds_{number}/table.npy" for number in range(40)]
    threads = [threading.Thread(target=put, args=(folder, b"x" * 10_000, key)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folder.keys("datasets") == sorted(keys)
    assert {folder.path(key).stat().st_size for key in keys} == {10_000}


def test_a_flipped_bit_is_found(folder: Blobs) -> None:
    sha256 = put(folder, b"\0" * 1000)
    with folder.path(KEY).open("r+b") as file:
        file.seek(500)
        file.write(b"\1")
    with pytest.raises(BlobCorruptError, match=KEY):
        folder.verify(KEY, sha256)


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


def test_a_deleted_file_stays_for_who_has_it_open(folder: Blobs) -> None:
    put(folder, b"x")
    with folder.path(KEY).open("rb") as reader:
        folder.delete("datasets/ds_1")
        assert reader.read() == b"x"
    with pytest.raises(BlobMissingError):
        folder.size(KEY)


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


def test_no_space_is_told_and_nothing_is_left(folder: Blobs) -> None:
    put(folder, b"old")
    for code in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(StorageFullError), folder.staged():
            raise OSError(code, "no space")
    assert staging(folder) == []
    assert folder.path(KEY).read_bytes() == b"old"


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.ENOSPC, StorageFullError), (errno.EIO, BlobError)]
)
def test_a_failed_fsync_stores_nothing(
    folder: Blobs, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[Exception]
) -> None:
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


@pytest.fixture(autouse=True)
def _open_umask() -> None:
    os.umask(0o022)


def test_what_an_earlier_version_left_open_is_closed_and_the_folder_is_named(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o755)
    for name in ("densityd.sqlite3", "densityd.sqlite3-wal", "notes.txt"):
        (tmp_path / name).touch(0o644)
    (tmp_path / "blobs").mkdir(0o755)

    warning = close_to_others(tmp_path)

    assert warning is not None
    assert "mode 755" in warning
    assert (tmp_path / "densityd.sqlite3").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "densityd.sqlite3-wal").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "blobs").stat().st_mode & 0o777 == 0o700
    # Neither is the service's own.
    assert (tmp_path / "notes.txt").stat().st_mode & 0o777 == 0o644
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_closed_folder_and_one_that_is_not_there_need_no_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    assert close_to_others(tmp_path) is None
    assert close_to_others(tmp_path / "missing") is None


def test_new_files_are_private(tmp_path: Path) -> None:
    create_private_files()

    (tmp_path / "file").touch()

    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_the_first_start_ties_them_together_and_the_next_finds_it_so(
    database: Database, blobs: Blobs
) -> None:
    assert known_identity(database) is None
    adopt(database, blobs)
    identity = known_identity(database)
    assert identity is not None
    assert (blobs.root / STORE_ID).read_text() == f"{identity}\n"
    adopt(database, blobs)
    assert known_identity(database) == identity
    assert list(blobs.files()) == []


@pytest.mark.parametrize("spoil", ["another", "unmounted"])
def test_another_store_and_none_are_refused_and_left_alone(
    database: Database, blobs: Blobs, tmp_path: Path, spoil: str
) -> None:
    adopt(database, blobs)
    other = Blobs.in_folder(tmp_path / "other")
    if spoil == "another":
        other.root.mkdir()
        other.mark("f" * 32)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WrongStoreError, match=str(known_identity(database))):
        adopt(database, other)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_restored_database_takes_the_identity_of_its_store(
    database: Database, blobs: Blobs
) -> None:
    blobs.mark("a" * 32)
    added(Registry(database))
    adopt(database, blobs)
    assert known_identity(database) == "a" * 32


def test_a_new_database_does_not_take_the_store_of_another_one(
    database: Database, blobs: Blobs
) -> None:
    blobs.mark("a" * 32)
    with blobs.staged() as path:
        blobs.commit(path, "datasets/ds_1/table.npy")
    with pytest.raises(WrongStoreError, match="another database"):
        adopt(database, blobs)
    assert known_identity(database) is None
    (blobs.root / STORE_ID).unlink()
    adopt(database, Blobs.in_folder(blobs.root))
    assert known_identity(database) == Blobs.in_folder(blobs.root).identity()


def test_a_database_with_rows_is_not_tied_to_an_empty_folder(
    database: Database, blobs: Blobs
) -> None:
    dataset = added(Registry(database))
    with pytest.raises(WrongStoreError, match="holds nothing"):
        adopt(database, blobs)
    assert blobs.identity() is None
    assert known_identity(database) is None
    with blobs.staged() as path:
        blobs.commit(path, dataset.key)
    adopt(database, blobs)
    assert known_identity(database) == blobs.identity()


@pytest.mark.parametrize("where", ["store", "database"])
def test_a_first_start_that_broke_half_way_is_finished_by_the_next(
    database: Database, blobs: Blobs, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    mark = Blobs.mark

    def breaks(store: Blobs, identity: str) -> None:
        if where == "database":  # the store has it, the row is rolled back
            mark(store, identity)
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Blobs, "mark", breaks)
        with pytest.raises(OSError, match="power cut"):
            adopt(database, blobs)
    assert known_identity(database) is None
    adopt(database, blobs)
    assert known_identity(database) == blobs.identity()


@pytest.mark.parametrize("instead", ["nothing", "an old staging", "another"])
def test_nothing_is_written_while_the_disk_of_a_store_is_not_mounted(
    database: Database, blobs: Blobs, tmp_path: Path, instead: str
) -> None:
    adopt(database, blobs)
    away = tmp_path / "away"
    blobs.root.rename(away)
    if instead != "nothing":
        blobs.staging.mkdir(parents=True)
    if instead == "another":
        (blobs.root / STORE_ID).write_text("f" * 32)
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(BlobDiskError), blobs.staged():
        pytest.fail("a file was begun in its place")
    assert sorted(tmp_path.rglob("*")) == before

    shutil.rmtree(blobs.root, ignore_errors=True)
    away.rename(blobs.root)
    with blobs.staged() as path:
        blobs.commit(path, "datasets/ds_1/table.npy")
    assert blobs.size("datasets/ds_1/table.npy") == 0


def test_a_file_is_not_kept_where_its_disk_goes_while_it_is_written(
    database: Database, blobs: Blobs
) -> None:
    adopt(database, blobs)
    identity = blobs.root / STORE_ID
    with blobs.staged() as path:
        identity.rename(blobs.root.parent / "away")
        with pytest.raises(BlobDiskError):
            blobs.commit(path, "datasets/ds_1/table.npy")
    assert list(blobs.files()) == []


LIMITS = TrainingLimits(
    max_parameters=10**6, max_layers=100, max_memory_bytes=10**9, max_model_bytes=10**9
)
RECORD = {
    "format": 1,
    "metrics": {},
    "held_out": None,
    "dataset_sha256": None,
    "target": None,
    "seed": None,
    "code_version": "1",
    "description": None,
    "tags": {},
}


def a_file(folder: Path, metadata: dict[str, str], *, tensors: int = 1) -> Path:
    path = folder / "model.safetensors"
    named = {f"t{n}": torch.zeros(0) for n in range(tensors)}
    save_file(named, path, metadata=metadata)
    return path


def test_a_header_that_is_too_large_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}")
    for read in (read_record, partial(read_model_file, limits=LIMITS, max_columns=10)):
        with pytest.raises(ModelFileError, match="header has more"):
            read(path)


def test_the_target_of_a_record_may_have_many_values(tmp_path: Path) -> None:
    target = {"loadings": [[0.5] * 100] * 1_100}
    path = a_file(tmp_path, {RECORD_KEY: json.dumps(RECORD | {"target": target})})
    found = read_record(path)
    assert found is not None
    assert found.target == target


def test_a_record_of_large_metrics_is_refused(tmp_path: Path) -> None:
    def read(**changed: object) -> None:
        text = json.dumps({**RECORD, **changed})
        read_record(a_file(tmp_path, {RECORD_KEY: text}))

    read(metrics={"trials": [{"stage": 1}] * 1_000})
    with pytest.raises(ModelFileError):
        read(metrics={"curve": "x" * 65_536})
