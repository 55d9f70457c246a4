"""A database file on a network file system is told."""

from pathlib import Path

import pytest

from models_store.database import database as database_module
from models_store.database.database import Database
from models_store.database.filesystems import network_filesystem

MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /srv rw - nfs4 server:/srv rw,vers=4.2
31 30 0:41 / /srv/me/fast\040disk rw master:2 - ext4 /dev/vdb rw
32 22 0:42 / /mnt/share rw - fuse.sshfs me@host: rw
""".strip()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/densityd.sqlite3", None),
        ("/srv/me/data/densityd.sqlite3", "nfs4"),
        ("/srv/me/fast disk/densityd.sqlite3", None),
        ("/mnt/share/densityd.sqlite3", "fuse.sshfs"),
        ("/srvwork/densityd.sqlite3", None),
    ],
)
def test_a_path_lies_on_the_innermost_mount(
    tmp_path: Path, path: str, expected: str | None
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert network_filesystem(Path(path), mounts=mounts) == expected


def test_without_a_list_of_mounts_every_path_is_local(tmp_path: Path) -> None:
    assert network_filesystem(tmp_path, mounts=tmp_path / "none") is None


def test_a_database_on_a_network_file_system_warns_at_the_start(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(sqlite_url)
    database.check_revision()
    assert [record for record in caplog.records if record.name.startswith("models_store")] == []
    monkeypatch.setattr(database_module, "network_filesystem", lambda _path: "nfs4")
    database.check_revision()
    database.dispose()
    [told] = [record for record in caplog.records if record.name.startswith("models_store")]
    assert told.levelname == "WARNING"
    assert "nfs4" in told.getMessage()
