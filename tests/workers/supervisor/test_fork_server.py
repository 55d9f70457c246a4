"""Trainers that a fork server makes: as those that are started afresh, whatever happens to it."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models_store.job_states import JobState
from tests.waiting import is_alive, wait_until
from tests.workers.place import ENDLESS, Place, Running, trainers_of
from workers.supervisor.fork_server import ForkServer
from workers.supervisor.supervisor import Supervisor

# Python runs a module of this name at its start. Each trainer notes what it is when it begins to
# read its task, so after the fork, where there is one.
_NOTE = """
import sys

if "workers.trainer" in sys.orig_argv:
    import atexit, json, os, pathlib, random, resource, signal

    def note():
        import numpy, torch
        status = dict(
            line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines()
        )
        told = {{
            "argv": sys.orig_argv,
            "parent": os.getppid(),
            "leads": os.getsid(0) == os.getpid() == os.getpgrp(),
            "ignored": status["SigIgn"].strip(),
            "blocked": status["SigBlk"].strip(),
            "caught": status["SigCgt"].strip()[-8:],  # the others are the C library's own
            "umask": status["Umask"].strip(),
            "nice": os.nice(0),
            "oom_score": pathlib.Path("/proc/self/oom_score_adj").read_text(),
            "data_limit": resource.getrlimit(resource.RLIMIT_DATA),
            "environment": dict(os.environ),
            "threads": torch.get_num_threads(),
            "descriptors": sorted(
                os.readlink(path).split(":")[0] for path in pathlib.Path("/proc/self/fd").iterdir()
                if os.path.exists(path)
            ),
            "chance": [random.random(), float(numpy.random.random()), torch.initial_seed()],
            "cuda": torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork(),
        }}
        with open({folder!r} + "/" + str(os.getpid()), "w") as file:
            json.dump(told, file)

    atexit.register(note)
"""

_LOGGER = "workers.supervisor.fork_server"


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a note of each trainer."""
    folder, shim = tmp_path_factory.mktemp("notes"), tmp_path_factory.mktemp("shim")
    (shim / "sitecustomize.py").write_text(_NOTE.format(folder=str(folder)))
    with pytest.MonkeyPatch.context() as patch:
        before = os.environ.get("PYTHONPATH", "")
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(shim), before])))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield folder


@pytest.fixture(scope="module")
def fork_server(notes: Path, fork_server: ForkServer) -> ForkServer:
    assert notes.is_dir()  # its trainers leave notes there
    return fork_server


def run(place: Place, server: ForkServer | None, **changes: Any) -> None:
    settings = place.with_settings(**changes)
    supervisor = Supervisor(place.database, settings, worker="w", fork_server=server)
    assert supervisor.run_next()


@pytest.fixture
def at_work(place: Place, fork_server: ForkServer) -> Iterator[tuple[str, Running]]:
    """A job without end, in a trainer that was forked, and its supervisor."""
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    running = Running(place.database, place.settings, fork_server)
    wait_until(lambda: place.epoch(job_id) >= 1)
    yield job_id, running
    running.end()


@pytest.mark.long
def test_a_forked_trainer_is_as_one_that_was_started_afresh(
    place: Place, fork_server: ForkServer, notes: Path
) -> None:
    dataset = place.add_dataset()
    jobs = [place.submit(dataset, max_epochs=2, seed=3) for _ in range(3)]
    told = []
    for server in (fork_server, fork_server, None):
        before = set(notes.iterdir())
        run(place, server, trainer_nice=2)
        (new,) = set(notes.iterdir()) - before
        told.append(json.loads(new.read_text()))

    assert ["fork-server" in one["argv"] for one in told] == [True, True, False]
    chances = zip(*(one.pop("chance") for one in told), strict=True)
    assert [len(set(numbers)) for numbers in chances] == [3, 3, 3], "they share random numbers"
    for one in told:
        del one["argv"]
    assert told[0] == told[1] == told[2]
    assert told[0]["parent"] == os.getpid()
    assert told[0]["leads"]
    assert not told[0]["cuda"]
    versions = [place.version(job_id) for job_id in jobs]
    assert len({version.checkpoint_sha256 for version in versions}) == 1, "their models differ"


def test_a_trainer_that_is_killed_is_seen_with_its_signal(
    place: Place, at_work: tuple[str, Running]
) -> None:
    job_id, running = at_work
    (trainer,) = trainers_of(os.getpid())

    os.kill(trainer, signal.SIGKILL)
    running.join()

    assert place.state(job_id) is JobState.QUEUED
    assert "killed by signal 9 (SIGKILL), from outside" in place.messages(job_id)[-1]
    assert not Path(f"/proc/{trainer}").exists(), "nobody waited for it"


def test_sigterm_to_a_forked_trainer_makes_it_write_a_checkpoint(
    place: Place, at_work: tuple[str, Running]
) -> None:
    job_id, running = at_work
    (trainer,) = trainers_of(os.getpid())

    os.kill(trainer, signal.SIGTERM)
    running.join()

    job = place.job(job_id)
    assert job.state is JobState.QUEUED
    assert job.not_before is None, "it counts as a failure"
    assert job.checkpoints


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_fork_server_that_fails_harms_no_job_and_is_replaced(
    place: Place,
    fork_server: ForkServer,
    number: signal.Signals,
    at_work: tuple[str, Running],
) -> None:
    at_work_id, _ = at_work
    failed = fork_server.pid
    assert failed is not None
    os.kill(failed, number)
    job_id = place.submit(place.add_dataset(), max_epochs=1)

    run(place, fork_server)  # while the first job goes on

    assert place.state(job_id) is JobState.SUCCEEDED
    assert place.job(job_id).attempt == 1
    assert place.state(at_work_id) is JobState.RUNNING
    wait_until(lambda: not fork_server.is_loading(0.2))
    assert fork_server.pid not in (failed, None)
    assert not is_alive(failed)


@pytest.mark.long
def test_sigterm_which_a_service_manager_sends_to_all_does_not_end_the_server(
    place: Place, fork_server: ForkServer
) -> None:
    wait_until(lambda: not fork_server.is_loading(1))
    server = fork_server.pid
    assert server is not None
    os.kill(server, signal.SIGTERM)
    place.submit(place.add_dataset(), max_epochs=1)

    run(place, fork_server)

    assert fork_server.pid == server


@pytest.mark.long
def test_a_server_for_other_trainers_is_not_asked(
    place: Place, fork_server: ForkServer, notes: Path
) -> None:
    place.submit(place.add_dataset(), max_epochs=1)
    before = set(notes.iterdir())

    run(place, fork_server, trainer_threads=2)

    (new,) = set(notes.iterdir()) - before
    told = json.loads(new.read_text())
    assert "fork-server" not in told["argv"]
    assert told["environment"]["OMP_NUM_THREADS"] == "2"


_THREAD = """
import sys, threading, time

if "fork-server" in sys.orig_argv:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (_THREAD, "have started threads"),
        ("import sys; sys.modules['torch'] = None", "torch"),
    ],
)
def test_libraries_that_cannot_be_loaded_ahead_are_loaded_by_each_trainer(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    why: str,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(fault)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    server = ForkServer(place.settings)
    try:
        wait_until(lambda: not server.is_loading(0.2))
        assert server.pid is None
        (line,) = [record for record in caplog.records if record.name == _LOGGER]
        assert why in line.getMessage()
        assert not server.is_loading(0), "it tries again at once"
    finally:
        server.close()
