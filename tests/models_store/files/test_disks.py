"""Space of the disk that stays free."""

import pytest

from models_store.errors import StorageFullError
from models_store.files import disks
from models_store.files.blobs import Blobs, table_key


def test_a_folder_that_was_not_made_yet_has_the_space_of_its_disk(tmp_path):
    assert disks.free_bytes(tmp_path / "no" / "such") > 0


def test_a_store_commits_nothing_that_takes_what_stays_free(tmp_path):
    Blobs.in_folder(tmp_path, leave_bytes=1).check_room()
    blobs = Blobs.in_folder(tmp_path, leave_bytes=10**18)
    with blobs.staged() as path:
        path.write_bytes(b"rows")
        with pytest.raises(StorageFullError, match="make room on the disk"):
            blobs.commit(path, table_key("ds_1"))
    assert blobs.keys("datasets") == []
    assert list(blobs.staging.iterdir()) == []
