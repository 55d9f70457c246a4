"""A database and its store know each other, on both databases."""

import os
import shutil
from pathlib import Path

import pytest

from models_store.errors import BlobDiskError, WrongStoreError
from models_store.files.blobs import STORE_ID, Blobs
from models_store.files.private_files import close_to_others, create_private_files
from models_store.files.store_identity import adopt, known_identity
from models_store.jobs.jobs import Jobs
from models_store.registry import Registry
from tests.store.makers import PROJECT, a_version, added, submitted


def test_the_first_start_ties_them_together_and_the_next_finds_it_so(database, blobs):
    assert known_identity(database) is None
    adopt(database, blobs)
    identity = known_identity(database)
    assert identity is not None
    assert (blobs.root / STORE_ID).read_text() == f"{identity}\n"
    adopt(database, blobs)
    assert known_identity(database) == identity
    assert list(blobs.files()) == []


@pytest.mark.parametrize("spoil", ["another", "unmounted"])
def test_another_store_and_none_are_refused_and_left_alone(database, blobs, tmp_path, spoil):
    adopt(database, blobs)
    other = Blobs.in_folder(tmp_path / "other")
    if spoil == "another":
        other.root.mkdir()
        other.mark("f" * 32)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WrongStoreError, match=str(known_identity(database))):
        adopt(database, other)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_restored_database_takes_the_identity_of_its_store(database, blobs):
    blobs.mark("a" * 32)
    added(Registry(database))
    adopt(database, blobs)
    assert known_identity(database) == "a" * 32


def test_a_new_database_does_not_take_the_store_of_another_one(database, blobs):
    blobs.mark("a" * 32)
    with blobs.staged() as path:
        blobs.commit(path, "datasets/ds_1/table.npy")
    with pytest.raises(WrongStoreError, match="another database"):
        adopt(database, blobs)
    assert known_identity(database) is None
    (blobs.root / STORE_ID).unlink()
    adopt(database, Blobs.in_folder(blobs.root))
    assert known_identity(database) == Blobs.in_folder(blobs.root).identity()


def test_a_database_with_rows_is_not_tied_to_an_empty_folder(database, blobs):
    dataset = added(registry := Registry(database))
    registry.add_version(PROJECT, "m", a_version(submitted(Jobs(database))))  # whose file is lost
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
    database, blobs, monkeypatch, where
):
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
    database, blobs, tmp_path, instead
):
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


def test_a_file_is_not_kept_where_its_disk_goes_while_it_is_written(database, blobs):
    adopt(database, blobs)
    identity = blobs.root / STORE_ID
    with blobs.staged() as path:
        identity.rename(blobs.root.parent / "away")
        with pytest.raises(BlobDiskError):
            blobs.commit(path, "datasets/ds_1/table.npy")
    assert list(blobs.files()) == []


@pytest.fixture(autouse=True)
def _open_umask() -> None:
    os.umask(0o022)


def test_what_an_earlier_version_left_open_is_closed_and_the_folder_is_named(tmp_path):
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
