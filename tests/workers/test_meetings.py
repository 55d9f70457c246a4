"""Folders in which trainers and their helpers meet."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.servers import tied
from workers.meetings import meeting, remove_abandoned


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_there_as_long_as_its_context(temporary: Path) -> None:
    with meeting() as folder:
        (folder / "file").write_text("x")
        remove_abandoned()
        assert [*temporary.iterdir()] == [folder]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "file").exists()
    assert [*temporary.iterdir()] == []


def test_the_folder_of_a_killed_process_is_removed(temporary: Path) -> None:
    program = "from workers.meetings import meeting\nwith meeting(): print(flush=True); input()"
    command = tied(sys.executable, "-c", program)
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        remove_abandoned()
        [folder] = temporary.iterdir()
        process.kill()
        process.wait()
    assert folder.exists()
    remove_abandoned()
    assert not folder.exists()


def test_what_is_not_such_a_folder_stays(temporary: Path) -> None:
    kept = temporary / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    (temporary / "densityd-helpers-link").symlink_to(kept)
    (temporary / "densityd-helpers-file").write_text("x")
    (temporary / "other").mkdir()
    remove_abandoned()
    assert (kept / "file").exists()
    assert len([*temporary.iterdir()]) == 4


def test_a_folder_that_was_removed_before_it_was_locked_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, removed = tempfile.mkdtemp, list[str]()

    def hasty(*, prefix: str) -> str:
        folder = make(prefix=prefix)
        if not removed:
            removed.append(folder)
            Path(folder).rmdir()
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", hasty)
    with meeting() as folder:
        assert [*temporary.iterdir()] == [folder]
    assert removed
