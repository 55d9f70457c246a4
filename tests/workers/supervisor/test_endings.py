"""Exits of trainers, and whom they speak against."""

import signal
from pathlib import Path

import pytest

from models_store.jobs.retries import AttemptEnd, Ending
from workers.supervisor.trainers import end_of, out_of_memory_kills


def read(status: int, **changes: bool | float | None) -> AttemptEnd | None:
    known = {"started": True, "stalled_s": None, "memory_ran_out": False}
    return end_of(status, **known | changes)  # type: ignore[arg-type]  # each test knows its own


@pytest.mark.parametrize(
    ("status", "changes", "ending"),
    [
        (1, {}, Ending.CRASHED),
        (0, {}, Ending.CRASHED),
        (-signal.SIGSEGV, {}, Ending.CRASHED),
        (-signal.SIGABRT, {}, Ending.CRASHED),
        (-signal.SIGSEGV, {"started": False}, Ending.NOT_STARTED),
        (1, {"started": False}, Ending.NOT_STARTED),
        (-signal.SIGKILL, {}, Ending.KILLED),
        (-signal.SIGKILL, {"started": False}, Ending.KILLED),
        (-signal.SIGHUP, {}, Ending.KILLED),
        (-signal.SIGRTMIN, {}, Ending.KILLED),
        (-signal.SIGKILL, {"memory_ran_out": True}, Ending.OUT_OF_MEMORY),
        (-signal.SIGSEGV, {"memory_ran_out": True}, Ending.CRASHED),
        (-signal.SIGKILL, {"stalled_s": 900.0}, Ending.STALLED),
        (-signal.SIGKILL, {"stalled_s": 900.0, "started": False}, Ending.NOT_STARTED),
    ],
)
def test_an_exit_says_whose_failure_it_was(
    status: int, changes: dict[str, bool | float], ending: Ending
) -> None:
    end = read(status, **changes)
    assert end is not None
    assert end.ending is ending


def test_the_end_that_sigterm_brings_is_nobodys_failure() -> None:
    assert read(-signal.SIGTERM) is None


def test_the_kernel_counts_what_it_kills_for_memory(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    assert out_of_memory_kills(vmstat) == 0
    vmstat.write_text("nr_free_pages 12\noom_kill 3\nswap_ra 0\n")
    assert out_of_memory_kills(vmstat) == 3
    assert out_of_memory_kills() >= 0
