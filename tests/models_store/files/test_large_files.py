import io
import os
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from models_store.files import large_files
from models_store.files.large_files import close_apart, delete_apart
from models_store.files.local_blobs import LocalBlobs

LARGE = large_files._LARGE_BYTES + 1


def file_of(size: int, path: Path) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


@pytest.fixture
def closers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the threads in which files were closed, so far."""
    seen: list[int] = []
    close = os.close

    def noted(handle: int) -> None:
        seen.append(threading.get_ident())
        close(handle)

    monkeypatch.setattr(os, "close", noted)
    return seen


def wait_for_closing() -> None:
    for thread in threading.enumerate():
        if thread.name == "closing":
            thread.join()


def test_the_space_of_a_large_file_is_freed_in_a_thread(tmp_path, closers):
    file = file_of(LARGE, tmp_path / "large")
    closers.clear()
    delete_apart(file)
    assert not file.exists()
    wait_for_closing()
    assert len(closers) == 1
    assert threading.get_ident() not in closers


def test_a_small_file_is_deleted_without_a_thread(tmp_path, closers):
    file = file_of(LARGE - 1, tmp_path / "small")
    closers.clear()
    delete_apart(file)
    assert not file.exists()
    assert closers == [threading.get_ident()]


def test_a_file_that_is_not_there_or_not_readable_is_no_error(tmp_path, monkeypatch):
    delete_apart(tmp_path / "none")
    file = file_of(LARGE, tmp_path / "large")
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(24, "")))
    delete_apart(file)
    assert not file.exists()


def test_a_large_staged_file_goes_in_a_thread(tmp_path, closers):
    with LocalBlobs(tmp_path).staged(".rows") as path:
        os.truncate(path, LARGE)
        closers.clear()
    assert not path.exists()
    wait_for_closing()
    assert closers
    assert threading.get_ident() not in closers


def test_a_file_without_a_name_is_closed_in_a_thread():
    threads = []

    class Noting(io.BytesIO):
        def close(self) -> None:
            threads.append(threading.get_ident())

    file = Noting()  # closed once more when it goes
    close_apart(file)
    wait_for_closing()
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_large_file_is_closed_though_no_thread_starts(tmp_path, closers, monkeypatch):
    file = file_of(LARGE, tmp_path / "large")
    closers.clear()
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError))
    delete_apart(file)
    assert not file.exists()
    assert len(closers) == 1
