"""Trainers as processes: forked from a server that has loaded everything, gone with their worker, and how they end."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from models_store.errors import BlobMissingError, DiskKeptError, StorageFullError
from models_store.files.blobs import STORE_ID
from models_store.files.store_address import StoreAddress
from models_store.files.store_identity import adopt, known_identity
from models_store.job_states import JobState
from models_store.jobs.retries import QUOTA_STORAGE, AttemptEnd, Ending
from tests.jobs.workers.place import ENDLESS, Running, fork_servers_of, trainers_of
from tests.support.waiting import is_alive, wait_until
from workers.errors import TrainingError
from workers.protocol import (
    Failed,
    ImputationTask,
    SamplingTask,
    ScoringTask,
    TrainingTask,
    Unfit,
    VariationalTask,
)
from workers.supervisor.trainers import Trainers, end_of, out_of_memory_kills
from workers.trainer import work

Supervise = Callable[..., Running]


def _told() -> None:
    """What a trainer begins with, by its exit status."""
    import torch  # noqa: PLC0415

    loaded = "workers.trainer.training" in sys.modules
    alone = len([*Path("/proc/self/task").iterdir()]) == 1
    touched = torch.cuda.is_initialized()
    os._exit(40 + loaded + 2 * alone + 4 * touched)


def test_the_server_has_loaded_all_and_started_no_thread_and_no_accelerator(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[3])  # where the child finds this module
    Trainers()
    process = get_context("forkserver").Process(target=_told)
    process.start()
    process.join(120)
    assert process.exitcode == 40 + 1 + 2


def test_the_server_serves_many_trainers_and_ends_when_it_is_idle(place, supervise):
    dataset = place.add_dataset()
    for _ in range(2):
        job_id = place.submit(dataset, max_epochs=1)
        supervise().join()
        assert place.state(job_id) is JobState.SUCCEEDED
    server = Trainers()
    endless = place.submit(dataset, **ENDLESS)
    running = Running(place.database, place.settings, server)
    wait_until(lambda: bool(trainers_of(os.getpid())))
    [pid] = [one for one in fork_servers_of(os.getpid()) if trainers_of(os.getpid())]
    server.end_if_idle(0)
    assert is_alive(pid), "a trainer runs"
    place.jobs.cancel("default", endless)
    running.join()
    server.end_if_idle(3600)
    assert is_alive(pid)
    server.end_if_idle(0)
    wait_until(lambda: not is_alive(pid))
    job_id = place.submit(dataset, max_epochs=1)
    supervise().join()
    assert place.state(job_id) is JobState.SUCCEEDED


def test_a_job_whose_trainer_a_frozen_server_does_not_start_can_be_cancelled(place, supervise):
    dataset = place.add_dataset()
    place.submit(dataset, max_epochs=1)
    supervise().join()
    [server] = fork_servers_of(os.getpid())
    os.kill(server, signal.SIGSTOP)
    try:
        job_id = place.submit(dataset, max_epochs=1)
        running = supervise()
        wait_until(lambda: place.state(job_id) is JobState.RUNNING)
        place.jobs.cancel("default", job_id)
        running.join()
        assert place.state(job_id) is JobState.CANCELLED
    finally:
        os.kill(server, signal.SIGCONT)


def test_a_server_that_is_killed_takes_its_trainers_along_and_their_jobs_go_on(place, supervise):
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    running = supervise()
    wait_until(lambda: place.epoch(job_id) >= 1)
    [server], [trainer] = fork_servers_of(os.getpid()), trainers_of(os.getpid())
    os.kill(server, signal.SIGKILL)
    running.join()
    assert not is_alive(trainer)
    job = place.job(job_id)
    assert job.state is JobState.QUEUED
    assert "killed" in place.messages(job_id)[-1]
    place.no_wait(job_id)
    reached = place.epoch(job_id)
    running = supervise()
    wait_until(lambda: place.epoch(job_id) > reached)


def test_a_trainer_dies_with_its_worker(place, start_worker):
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    worker = start_worker()
    wait_until(lambda: place.epoch(job_id) >= 1)
    [server], [trainer] = fork_servers_of(worker.pid), trainers_of(worker.pid)
    worker.kill()
    worker.wait()
    wait_until(lambda: not is_alive(trainer) and not is_alive(server))


def read(status: int, **changes: bool | float | None) -> AttemptEnd | None:
    known = {"started": True, "stalled_s": None, "memory_ran_out": False}
    return end_of(status, **known | changes)  # type: ignore[arg-type]  # each test knows its own


ENDINGS: tuple[tuple[int, dict[str, Any], Ending], ...] = (
    (1, {}, Ending.CRASHED),
    (0, {}, Ending.CRASHED),
    (-signal.SIGSEGV, {}, Ending.CRASHED),
    (-signal.SIGABRT, {}, Ending.CRASHED),
    (-signal.SIGSEGV, {"started": False}, Ending.NOT_STARTED),
    (1, {"started": False}, Ending.NOT_STARTED),
    (-signal.SIGKILL, {}, Ending.KILLED),
    (-signal.SIGKILL, {"started": False}, Ending.KILLED),
    (-signal.SIGHUP, {}, Ending.KILLED),
    (-signal.SIGRTMIN - 1, {}, Ending.KILLED),
    (-signal.SIGKILL, {"memory_ran_out": True}, Ending.OUT_OF_MEMORY),
    (-signal.SIGSEGV, {"memory_ran_out": True}, Ending.CRASHED),
    (-signal.SIGKILL, {"stalled_s": 900.0}, Ending.STALLED),
    (-signal.SIGKILL, {"stalled_s": 900.0, "started": False}, Ending.NOT_STARTED),
)


def test_an_exit_says_whose_failure_it_was() -> None:
    for status, changes, ending in ENDINGS:
        end = read(status, **changes)
        assert end is not None
        assert end.ending is ending, (status, changes)
        assert ("memory had run out" in end.detail) == (ending is Ending.OUT_OF_MEMORY)
    assert read(-signal.SIGTERM) is None


def test_the_kernel_counts_what_it_kills_for_memory(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    assert out_of_memory_kills(vmstat) == 0
    vmstat.write_text("nr_free_pages 12\noom_kill 3\nswap_ra 0\n")
    assert out_of_memory_kills(vmstat) == 3
    assert out_of_memory_kills() >= 0


WORK = {
    TrainingTask: "workers.trainer.training.train",
    VariationalTask: "workers.trainer.variational.infer",
    ScoringTask: "workers.trainer.bulk.produce",
    SamplingTask: "workers.trainer.bulk.produce",
    ImputationTask: "workers.trainer.bulk.produce",
}


@pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this processor cannot take denormals for zero"
)
@pytest.mark.parametrize("kind", WORK)
def test_training_alone_takes_denormals_for_zero_from_its_start(kind, monkeypatch):
    halves = []

    def done(_task, _send, *, interrupted):
        assert interrupted is not None
        halves.append(float(torch.full((1,), torch.finfo(torch.float32).tiny) / 2))

    monkeypatch.setattr(WORK[kind], done)
    task = kind.model_construct(memory_bytes=None, device="cpu")
    try:
        work.prepare(task)
        work.do(task, lambda _: None, bool)
    finally:
        torch.set_flush_denormal(False)
    [half] = halves
    assert (half == 0) == (kind in (TrainingTask, VariationalTask))


def spoilt(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_task(**fields: Any) -> TrainingTask:
    """A task with what is read of it alone."""
    return TrainingTask.model_construct(None, **fields)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("can't start new thread"), "process_limit"),
        (BlockingIOError(errno.EAGAIN, "try again"), "process_limit"),
        (OSError(errno.EIO, "Input/output error"), "storage_unavailable"),
        (BlobMissingError("models/1.safetensors"), "storage_unavailable"),
        (StorageFullError(), "storage_full"),
        (DiskKeptError(2**30), QUOTA_STORAGE),
        (RuntimeError("CUDA error: unspecified launch failure"), "device_failed"),
    ],
    ids=str,
)
def test_what_a_worker_lacks_is_the_fault_of_no_job(error, code):
    task = a_task(memory_bytes=None, device="cuda")
    outcome = work.outcome_of(error, task)
    assert isinstance(outcome, Unfit)
    assert outcome.code == code


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("a fault of ours"), "internal", None),
        (MemoryError(), "oom", "Training needs more memory than there is."),
        (OSError(errno.ENOMEM, "no memory"), "oom", "Training needs more memory than there is."),
    ],
    ids=str,
)
def test_what_a_job_cannot_have_anywhere_is_told_of_it(error, code, told):
    outcome = work.outcome_of(error, a_task(memory_bytes=None, kind="training"))
    assert outcome == Failed(code=code, detail=told)


@pytest.mark.parametrize(
    ("spoil", "kind", "code"),
    [
        (Path.exists, Failed, "dataset_corrupt"),
        (Path.unlink, Unfit, "wrong_store"),
        (spoilt, Unfit, "storage_unavailable"),
    ],
)
def test_what_a_trainer_says_of_a_job_counts_while_its_store_is_there(place, spoil, kind, code):
    adopt(place.database, place.blobs)
    spoil(place.blobs.root / STORE_ID)
    store = StoreAddress(url=str(place.blobs.root))
    task = a_task(store=store, store_id=known_identity(place.database))
    outcome = work.outcome_of(TrainingError("dataset_corrupt", "It is another file."), task)
    assert (type(outcome), outcome.code) == (kind, code)


def test_a_thread_for_which_the_job_left_no_memory_is_its_own_fault():
    program = (
        "import resource, threading\n"
        "from workers.protocol import TrainingTask\n"
        "from workers.trainer import work\n"
        "used = int(open('/proc/self/status').read().partition('VmData:')[2].split()[0]) * 1024\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (used + 4 * 2**20,) * 2)\n"
        "try:\n"
        "    threading.Thread(target=print).start()\n"
        "except RuntimeError as error:\n"
        "    task = TrainingTask.model_construct(memory_bytes=2**30)\n"
        "    print(work.outcome_of(error, task).code)\n"
    )
    told = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "oom"
