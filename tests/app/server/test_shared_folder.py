"""Folder that API processes share, which outlives them until the next start at most."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.server.shared_folder import shared_folder
from tests.servers import tied

HOLDER = """
import signal, subprocess, sys
from app.server.shared_folder import shared_folder
with shared_folder() as folder:
    if "child" in sys.argv:
        child = subprocess.Popen(["sleep", "600"], pass_fds=[folder.lock], stdout=subprocess.DEVNULL)
        print(child.pid)
    print(folder.path, flush=True)
    signal.pause()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The system's temporary directory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def held(folder, *options):
    """A process that has a folder, and what it printed: the folder last."""
    with subprocess.Popen(  # noqa: S603  our own text
        tied(sys.executable, "-c", HOLDER, *options),
        env={"TMPDIR": str(folder), "PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, [process.stdout.readline().strip() for _ in range(1 + len(options))]
        finally:
            process.kill()


def test_a_folder_is_in_use_until_its_block_ends(temporary):
    with shared_folder() as one, shared_folder() as other:
        assert {one.path, other.path} == set(temporary.iterdir())
    assert not list(temporary.iterdir())


def test_the_folder_of_a_process_that_was_killed_goes_at_the_next_start(temporary):
    with held(temporary) as (process, [folder]):
        with shared_folder():
            assert Path(folder).exists()
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        assert Path(folder).exists()
        with shared_folder() as now:
            assert set(temporary.iterdir()) == {now.path}


def test_a_folder_stays_while_a_process_uses_it_whose_parent_was_killed(temporary):
    with held(temporary, "child") as (process, [child, folder]):
        process.kill()
        process.wait(60)
        try:
            with shared_folder():
                assert Path(folder).exists()
        finally:
            os.kill(int(child), signal.SIGKILL)
    with Path(folder, "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # free once the kernel has ended it
    with shared_folder():
        assert not Path(folder).exists()


def test_what_others_made_stays(temporary):
    precious = temporary / "precious"
    precious.mkdir()
    (precious / "lock").touch()
    (temporary / "densityd-api-link").symlink_to(precious)
    (temporary / "densityd-api-file").touch()
    (temporary / "densityd-api-without-lock").mkdir()
    before = set(temporary.rglob("*"))
    with shared_folder():
        pass
    assert set(temporary.rglob("*")) == before


def test_a_folder_that_was_taken_for_unused_is_made_anew(temporary, monkeypatch):
    real = fcntl.flock
    deleted: list[Path] = []

    def flock(file, operation):
        if not deleted:
            deleted.append(Path(file.name).parent)
            shutil.rmtree(deleted[0])
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with shared_folder() as folder:
        assert set(temporary.iterdir()) == {folder.path}
        assert folder.path != deleted[0]
