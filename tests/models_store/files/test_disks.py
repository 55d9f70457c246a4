"""Free space that projects leave to each other."""

import shutil

import pytest

from models_store.errors import StorageFullError
from models_store.files import disks
from models_store.files.blobs import Blobs, table_key
from models_store.files.disks import FreeSpace
from tabular.formats import kept_free

MIB = 2**20


@pytest.fixture
def disk(monkeypatch):
    """A disk whose free space is what it is told."""
    free = {"bytes": 0}
    monkeypatch.setattr(disks, "free_bytes", lambda _folder: free["bytes"])
    return free


def test_who_stores_more_leaves_more():
    kept = [kept_free(stored * MIB, reserve=100 * MIB) for stored in (0, 100, 900, 10**9)]
    assert kept[:3] == [0, 50 * MIB, 90 * MIB]
    assert 99 * MIB < kept[3] < 100 * MIB
    assert kept_free(0, reserve=0) == kept_free(MIB, reserve=0) == 0


def test_a_quota_is_less_where_the_reserve_is_touched(tmp_path, disk):
    found = FreeSpace([tmp_path], reserve=100 * MIB)
    assert found.most_stored(7) == 7, "it was not looked at"
    for free in range(0, 120 * MIB, 10 * MIB):
        disk["bytes"] = free
        found.look()
        most = found.most_stored(10**12)
        assert (most == 10**12) == (free >= 100 * MIB)
        assert kept_free(most, reserve=100 * MIB) <= free or most == 10**12
        assert kept_free(most + MIB, reserve=100 * MIB) > free or most == 10**12
    assert found.most_stored(7) == 7


def test_without_a_reserve_nothing_is_kept(tmp_path, disk):
    found = FreeSpace([tmp_path], reserve=0)
    disk["bytes"] = 0
    found.look()
    assert (found.most_stored(7), found.reserve()) == (7, 0)


def test_no_more_than_a_tenth_of_a_disk_is_reserved(tmp_path, disk):
    found, tenth = FreeSpace([tmp_path], reserve=10**18), shutil.disk_usage(tmp_path).total // 10
    disk["bytes"] = tenth
    found.look()
    assert found.most_stored(10**17) == 10**17
    disk["bytes"] = tenth // 2
    found.look()
    assert 0.9 * tenth < found.most_stored(10**17) <= tenth
    assert found.reserve() == tenth


def test_what_lies_beside_the_store_has_the_space_of_its_disk(tmp_path, monkeypatch):
    store, database = tmp_path / "store", tmp_path / "database"
    monkeypatch.setattr(disks, "free_bytes", {store: 9 * MIB, database: MIB}.__getitem__)
    found = FreeSpace([store, database], reserve=2 * MIB)
    found.look()
    assert found.left() == 9 * MIB
    assert found.most_stored(10**12) == 2 * MIB, "rows are stored, too"


def test_a_folder_that_was_not_made_yet_has_the_space_of_its_disk(tmp_path):
    assert disks.free_bytes(tmp_path / "no" / "such") > 0


def test_a_store_commits_nothing_that_takes_what_stays_free(tmp_path):
    Blobs.in_folder(tmp_path, leave_bytes=1).check_room()
    blobs = Blobs.in_folder(tmp_path, leave_bytes=10**18)
    with blobs.staged() as path:
        path.write_bytes(b"rows")
        with pytest.raises(StorageFullError):
            blobs.commit(path, table_key("ds_1"))
    assert blobs.keys("datasets") == []
    assert list(blobs.staging.iterdir()) == []
