"""Trainers as processes: forked from a server that has loaded everything, and gone with their worker."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from models_store.job_states import JobState
from tests.waiting import is_alive, wait_until
from tests.workers.place import ENDLESS, Place, Running, fork_servers_of, trainers_of
from workers.supervisor.trainers import Trainers

Supervise = Callable[..., Running]


def _told() -> None:
    """What a trainer begins with, by its exit status."""
    import torch  # noqa: PLC0415

    loaded = "workers.trainer.training" in sys.modules
    alone = len([*Path("/proc/self/task").iterdir()]) == 1
    touched = torch.cuda.is_initialized()
    os._exit(40 + loaded + 2 * alone + 4 * touched)


def test_the_server_has_loaded_all_and_started_no_thread_and_no_accelerator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[3])  # where the child finds this module
    Trainers()
    process = get_context("forkserver").Process(target=_told)
    process.start()
    process.join(120)
    assert process.exitcode == 40 + 1 + 2


def test_the_server_serves_many_trainers_and_ends_when_it_is_idle(
    place: Place, supervise: Supervise
) -> None:
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


@pytest.mark.long
def test_a_server_that_is_killed_takes_its_trainers_along_and_their_jobs_go_on(
    place: Place, supervise: Supervise
) -> None:
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


def test_a_trainer_dies_with_its_worker(
    place: Place, start_worker: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    worker = start_worker()
    wait_until(lambda: place.epoch(job_id) >= 1)
    [server], [trainer] = fork_servers_of(worker.pid), trainers_of(worker.pid)
    worker.kill()
    worker.wait()
    wait_until(lambda: not is_alive(trainer) and not is_alive(server))
