import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from densityd.service.children import Child, end_all
from tests.waiting import is_alive, wait_until


def python(code: str, tmp_path: Path, *, name: str = "child") -> Child:
    return Child(name, [sys.executable, "-u", "-c", code], log_path=tmp_path / f"{name}.log")


def pid_in(child: Child) -> int:
    wait_until(lambda: child.read_last_message() != "")
    return int(child.read_last_message().split()[-1])


SLEEPS = "import os, time; print(os.getpid()); time.sleep(100)"
STUBBORN = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print(os.getpid()); time.sleep(100)"
)


def test_a_child_that_is_killed_is_noticed_and_planned_again_with_growing_pauses(
    tmp_path: Path,
) -> None:
    child = python(SLEEPS, tmp_path)
    for pause_s in (0.5, 1.0, 2.0):
        child.start()
        wait_until(lambda: child.running)
        child.send(signal.SIGKILL)
        wait_until(lambda: not child.running)
        before = time.monotonic()
        how = child.check_end()
        after = time.monotonic()
        assert how is not None
        assert "signal 9" in how
        assert child.restart_at is not None
        assert before + pause_s <= child.restart_at <= after + pause_s
    assert child.failures == 3
    assert child.check_end() is None, "the same end was noticed twice"


def test_children_end_in_order_and_the_stubborn_are_killed(tmp_path: Path) -> None:
    first = python(STUBBORN, tmp_path, name="first")
    last = python(SLEEPS, tmp_path, name="last")
    for child in (first, last):
        child.start()
        pid_in(child)
    seen_last: list[bool] = []

    def pause(seconds: float) -> None:
        seen_last.append(last.running)
        time.sleep(seconds)

    began = time.monotonic()
    end_all([[first], [last]], grace_s=[0.5, 5.0], pause=pause, hurry=lambda: False)

    assert not first.running
    assert not last.running
    assert seen_last[0], "the last group was ended before the first was gone"
    assert time.monotonic() - began < 60


def test_whoever_is_in_a_hurry_does_not_wait_for_the_grace(tmp_path: Path) -> None:
    child = python(STUBBORN, tmp_path)
    child.start()
    pid_in(child)

    began = time.monotonic()
    end_all([[child]], grace_s=[60.0], pause=time.sleep, hurry=lambda: True)

    assert not child.running
    assert time.monotonic() - began < 60


def test_kill_9_of_the_parent_leaves_no_child(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from densityd.service.children import Child
child = Child("c", [sys.executable, "-u", "-c", {SLEEPS!r}], log_path=Path(sys.argv[1]))
child.start()
time.sleep(100)
"""
    log = tmp_path / "child.log"
    parent = subprocess.Popen([sys.executable, "-c", code, str(log)])  # noqa: S603 - our own code
    wait_until(lambda: log.exists() and log.read_text().strip() != "")
    child_pid = int(log.read_text())
    os.kill(child_pid, 0)

    parent.kill()
    parent.wait()

    wait_until(lambda: not is_alive(child_pid))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("plain text", "plain text"),
        ('{"level": "ERROR", "message": "no database"}', "no database"),
        (
            '{"message": "it failed", "exception": "Traceback\\n  x\\nOSError: why"}',
            "it failed: OSError: why",
        ),
        ("[1]", "[1]"),
    ],
)
def test_the_last_words_of_a_child_are_for_people(tmp_path: Path, line: str, words: str) -> None:
    child = python("", tmp_path)
    assert child.read_last_message() == ""
    (tmp_path / "child.log").write_text(f"before\n{line}\n")

    assert child.read_last_message() == words


def test_a_long_log_is_put_aside_at_the_next_start(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    with log.open("wb") as file:
        file.truncate(17 * 2**20)
    child = python(SLEEPS, tmp_path)
    child.start()
    try:
        pid_in(child)
        assert log.stat().st_size < 100
        assert (tmp_path / "child.log.1").stat().st_size == 17 * 2**20
    finally:
        end_all([[child]], grace_s=[5.0], pause=time.sleep, hurry=lambda: False)


def test_a_child_that_cannot_be_started_is_planned_again(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    child = python(SLEEPS, folder)
    for failures in (1, 2):
        told = child.start()
        assert told is not None
        assert "cannot be started: No such file or directory; it starts again in" in told
        assert (child.failures, child.running) == (failures, False)
        assert child.restart_at is not None
    folder.mkdir()
    try:
        assert child.start() is None
        assert child.restart_at is None
        pid_in(child)
    finally:
        end_all([[child]], grace_s=[5.0], pause=time.sleep, hurry=lambda: False)
