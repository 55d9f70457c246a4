"""The pool of processes: its limits, its environment, and what a task that ends badly leaves."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tabular import processes
from tabular.errors import (
    SandboxCrashError,
    SandboxKilledError,
    SandboxLimitError,
    TableError,
)
from tests.support.servers import end_fork_servers


@pytest.fixture(scope="module", autouse=True)
def _end() -> Iterator[None]:
    end_fork_servers()
    yield
    processes.close()


def add(one: int, two: int) -> int:
    return one + two


def process() -> int:
    return os.getpid()


def refuse() -> None:
    raise TableError("dataset-shape", "It has no shape.", column="a", row=3, errors=[("a", "b")])


def environment() -> tuple[list[str], bytes]:
    return list(os.environ), Path("/proc/self/environ").read_bytes()


def swell() -> None:
    kept = []
    while True:
        kept.append(bytearray(16 << 20))


def hang() -> None:
    while True:
        time.sleep(1)


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_function_is_called_in_another_process_and_its_errors_come_back() -> None:
    assert processes.run(add, 1, 2) == 3
    assert processes.run(process) != os.getpid()
    with pytest.raises(TableError) as caught:
        processes.run(refuse)
    error = caught.value
    assert (error.slug, error.column, error.row, error.errors) == (
        "dataset-shape",
        "a",
        3,
        [("a", "b")],
    )


def test_a_task_may_have_a_process_of_its_own() -> None:
    assert len({processes.run(process, alone=True) for _ in range(3)}) == 3


def test_no_secret_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    processes.close()
    monkeypatch.setenv("DENSITYD_DATABASE_URL", "postgresql://a:secret@b/c")
    names, raw = processes.run(environment)
    assert "DENSITYD_DATABASE_URL" not in names
    assert b"secret" not in raw
    assert os.environ["DENSITYD_DATABASE_URL"].startswith("postgresql")


@pytest.mark.parametrize("alone", [False, True])
def test_a_task_that_ends_badly_ends_nothing_else(alone: bool) -> None:
    with pytest.raises(SandboxLimitError, match="memory"):
        processes.run(swell, memory_bytes=256 << 20, alone=alone)
    with pytest.raises(SandboxLimitError, match="longer"):
        processes.run(hang, timeout_s=0.5, alone=alone)
    with pytest.raises(SandboxCrashError):
        processes.run(end_by, signal.SIGSEGV, alone=alone)
    with pytest.raises(SandboxKilledError):
        processes.run(end_by, signal.SIGKILL, alone=alone)
    with pytest.raises(RuntimeError, match="status 3"):
        processes.run(os._exit, 3, alone=alone)
    assert processes.run(add, 1, 2, alone=alone) == 3
