import os
from pathlib import Path

import pytest

from models_store.files.private_files import close_to_others, create_private_files


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
