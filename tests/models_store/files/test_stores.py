"""What every blob store promises, in a folder and on real servers of object storage."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models_store.errors import (
    BlobCorruptError,
    BlobDiskError,
    BlobMissingError,
    WrongStoreError,
)
from models_store.files.blobs import Blobs
from models_store.files.store_address import StoreAddress, refuse_store_url
from tests.bucket_servers import S3Server

KEY = "datasets/ds_1/table.npy"


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


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "folder":
        return Blobs(StoreAddress(url=str(tmp_path / "blobs")))
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


def test_an_empty_file_is_a_file(blobs: Blobs, tmp_path: Path) -> None:
    sha256 = put(blobs, b"")
    assert another(blobs, tmp_path / "other").verify(KEY, sha256).read_bytes() == b""


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
    for key in ("", "/", "..", "datasets/../../x", "store-id", "datasets/a b", "models/a\0b"):
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


@pytest.mark.cluster
def test_a_server_that_is_away_is_told_in_time_and_copies_are_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = S3Server()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    blobs = Blobs(server.address(tmp_path / "cache"))
    server.wait_ready(blobs)
    try:
        sha256 = put(blobs, b"seen")
        server.kill()
        assert blobs.verify(KEY, sha256).read_bytes() == b"seen"
        calls: list[Callable[[], object]] = [
            blobs.look,
            blobs.identity,
            lambda: blobs.size(KEY),
            lambda: blobs.delete(KEY),
        ]
        calls += [lambda: put(blobs, b"new", "models/m/1.safetensors"), lambda: blobs.keys("jobs")]
        for use in calls:
            with pytest.raises(BlobDiskError) as raised:
                use()
            assert "not-in-any-log" not in str(raised.value)
            assert "http" not in str(raised.value)
        server.start()
        server.wait_ready(blobs)
        assert another(blobs, tmp_path / "other").verify(KEY, sha256).read_bytes() == b"seen"
        with pytest.raises(BlobMissingError):
            blobs.size("models/m/1.safetensors")
    finally:
        server.close()


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


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("relative/path", "absolute path"),
        ("ftp://host/x", "no store of this version"),
        ("file:///srv", "no store of this version"),
        ("s3://", "s3://BUCKET"),
        ("s3://key:secret@bucket/x", "variables of the environment"),
        ("s3://bucket?token=x", "variables of the environment"),
    ],
)
def test_what_names_no_store_is_refused_in_one_line(url: str, words: str) -> None:
    refusal = refuse_store_url(url)
    assert refusal is not None
    assert words in refusal
    assert "\n" not in refusal
    assert "secret" not in refusal


def test_stores_are_named_by_urls() -> None:
    for url in ("/srv/blobs", "s3://bucket", "gs://bucket/prefix", "az://container/a/b"):
        assert refuse_store_url(url) is None
