"""Workers that lack what any job needs: they take none, say so, and jobs that meet one go back."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from models_store.consistency import compare
from models_store.files.blobs import STORE_ID, checkpoint_key, result_key
from models_store.files.store_identity import adopt
from models_store.job_states import JobState
from models_store.jobs.live_workers import Workers
from models_store.jobs.retries import QUOTA_STORAGE, AttemptEnd, Ending
from tests.jobs.workers.place import ENDLESS, Place, Running, is_at_work
from tests.store.makers import put, submitted
from tests.support.servers import free_port
from tests.support.waiting import wait_until
from workers.devices import count_gpus, devices_of, has_accelerator
from workers.leftovers import sweep
from workers.service import WorkerService
from workers.settings import WorkerSettings
from workers.supervisor.assignment import group_limits, machine_bytes, memory_limit_bytes
from workers.supervisor.fitness import Fitness
from workers.supervisor.supervisor import Supervisor
from workers.supervisor.trainers import Trainers

StartWorker = Callable[..., "subprocess.Popen[bytes]"]
Supervise = Callable[..., Running]

JOBS = 4


@pytest.fixture
def place(place: Place) -> Place:
    adopt(place.database, place.blobs)
    return place


def broken_torch(folder: Path) -> str:
    """A path on which torch cannot be imported."""
    (folder / "shim" / "torch").mkdir(parents=True)
    (folder / "shim" / "torch" / "__init__.py").write_text(
        "raise OSError('libtorch_cpu.so: cannot open shared object file')"
    )
    return os.pathsep.join(filter(None, [str(folder / "shim"), os.environ.get("PYTHONPATH", "")]))


class Sick:
    """A worker with a sickness, in threads as Celery's pool would have it."""

    def __init__(self, place: Place, **changes: str) -> None:
        self.ended = threading.Event()
        self.supervisor = Supervisor(place.database, place.with_settings(**changes), worker="sick")
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        """Look for a job again and again, as a worker polls."""
        while not self.ended.wait(0.05):
            self.supervisor.run_next()

    def end(self) -> None:
        self.ended.set()
        self.supervisor.stop()
        self.thread.join(120)
        assert not self.thread.is_alive()


@pytest.fixture
def get_sick(place: Place) -> Iterator[Callable[..., Sick]]:
    started: list[Sick] = []

    def start(**changes: str) -> Sick:
        started.append(Sick(place, **changes))
        return started[-1]

    yield start
    for sick in started:
        sick.end()


@pytest.mark.parametrize("sickness", ["store not mounted", "no GPU"])
def test_a_sick_worker_takes_no_job_and_says_why(place, get_sick, tmp_path, sickness):
    dataset = place.add_dataset()
    jobs = [place.submit(dataset, max_epochs=1) for _ in range(JOBS)]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if sickness == "store not mounted":
        sick, why = get_sick(store_url=str(elsewhere)), "nothing is mounted there"
    else:
        sick, why = get_sick(device="cuda:7"), "no device cuda:7"

    wait_until(lambda: why in str(sick.supervisor.unfit))
    sick.end()
    assert {place.job(job_id).attempt for job_id in jobs} == {0}
    assert not list(elsewhere.iterdir()), "it wrote into a folder that is not the store"


def test_a_worker_tells_at_once_that_it_takes_no_jobs(place, monkeypatch):
    monkeypatch.setattr("workers.service.POLL_S", 0.01)
    workers, told = Workers(place.database), []
    identity = place.blobs.root / STORE_ID

    class Pool:
        """A pool that looks for a job as soon as it is asked to, and the store goes away under the second look."""

        def apply_async(self, look):
            told.append([worker.unfit for worker in workers.alive()])
            if len(told) == 2:
                identity.unlink()
            look()

    service = WorkerService(place.database, place.with_settings(device="cpu"))
    service.start(Pool())
    wait_until(lambda: len(told) > 2)
    service.close()
    assert told[:2] == [[], [None]]
    assert "nothing is mounted there" in str(told[2])


class Idle:
    """A pool that does nothing."""

    def apply_async(self, look: Callable[[], None]) -> None:
        """Forget what it is asked for."""


def test_a_worker_that_has_not_looked_at_its_store_yet_deletes_nothing(place: Place) -> None:
    place.jobs.cancel("default", submitted(place.jobs).id)
    service = WorkerService(place.database, place.with_settings(device="cpu", keep_jobs_s=0))
    service.start(Idle())
    wait_until(lambda: is_at_work(place))
    service.close()
    assert len(place.jobs.list("default", limit=9).items) == 1


def test_the_port_of_a_worker_tells_whether_it_takes_jobs(place: Place) -> None:
    port = free_port()
    settings = place.with_settings(device="cpu", worker_port=port, worker_concurrency=2)
    service, other = (WorkerService(place.database, settings) for _ in range(2))
    for one in (service, other):  # the second works without one
        one.start(Idle())
    for takes_jobs in (1.0, 0.0):
        told = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
        assert {f"densityd_worker_takes_jobs {takes_jobs}", "densityd_worker_slots 2.0"} <= {*told}
        (place.blobs.root / STORE_ID).unlink(missing_ok=True)
        service.run_jobs()
    service.close()
    other.close()


def test_a_worker_whose_store_comes_back_takes_jobs_again(place, get_sick):
    job_id = place.submit(place.add_dataset(), max_epochs=1)
    identity = place.blobs.root / STORE_ID
    aside = identity.with_name("aside")
    identity.rename(aside)
    worker = get_sick()
    wait_until(lambda: worker.supervisor.unfit is not None)
    assert place.job(job_id).attempt == 0

    aside.rename(identity)

    wait_until(lambda: place.state(job_id) is JobState.SUCCEEDED)
    assert worker.supervisor.unfit is None


def test_a_store_that_goes_away_under_a_job_costs_it_nothing(place, supervise):
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    mounted, away = place.blobs.root, place.blobs.root.with_name("away")

    def unmount() -> None:
        mounted.rename(away)
        mounted.mkdir()

    supervisor = Supervisor(place.database, place.settings, worker="w", on_claim=unmount)
    assert supervisor.run_next()

    job = place.job(job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 1), job.error
    assert "nothing is mounted there" in place.messages(job_id)[-1]
    assert not list(mounted.iterdir())
    mounted.rmdir()
    away.rename(mounted)
    place.no_wait(job_id)
    running = supervise()
    wait_until(lambda: place.epoch(job_id) >= 1)
    running.end()


def test_a_worker_is_tested_again_after_its_environment_failed_a_job(place, start_worker, tmp_path):
    job_id = place.submit(place.add_dataset(), max_epochs=1)
    start_worker(PYTHONPATH=broken_torch(tmp_path))
    wait_until(lambda: "libtorch_cpu.so" in str(Workers(place.database).alive()))
    job = place.job(job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 1)
    assert "A library cannot be loaded" in place.messages(job_id)[-1]

    shutil.rmtree(tmp_path / "shim")

    place.no_wait(job_id)
    wait_until(lambda: place.state(job_id) is JobState.SUCCEEDED)
    [worker] = Workers(place.database).alive()
    assert worker.unfit is None


@pytest.mark.parametrize(("code", "fit"), [(QUOTA_STORAGE, True), ("storage_full", False)])
def test_a_project_that_is_full_puts_no_worker_out(place, code, fit):
    stopping, trainers = threading.Event(), Trainers()
    fitness = Fitness(place.database, place.settings, stopping=stopping, trainers=trainers)
    end = AttemptEnd(ending=Ending.ENVIRONMENT, detail="there is no room", code=code)
    fitness.judge(end)
    assert fitness.reason == (None if fit else "there is no room.")
    assert fitness.check() == fit


def test_a_worker_whose_environment_fails_waits_longer_each_time_until_a_job_succeeds(place):
    fitness = Fitness(
        place.database, place.settings, stopping=threading.Event(), trainers=Trainers()
    )
    end = AttemptEnd(ending=Ending.ENVIRONMENT, detail="there is no room")
    for waits_s in (1, 2, 4, None, 1):
        before = time.monotonic()
        fitness.judge(None if waits_s is None else end)
        if waits_s is not None:
            assert before + waits_s <= fitness.look_at <= time.monotonic() + waits_s


def test_old_jobs_are_deleted_with_their_files(place: Place) -> None:
    database, blobs, jobs = place.database, place.blobs, place.jobs
    version = place.add_model()
    old, waiting = submitted(jobs), submitted(jobs)
    for job in (old, waiting):
        for key in (checkpoint_key(job.id, 1, number=1), result_key(job.id, 1, suffix="npy")):
            put(blobs, key)
    jobs.cancel("default", old.id)
    for keep_jobs_s in (None, 3600):
        sweep(database, blobs, keep_s=3600, keep_jobs_s=keep_jobs_s)
        assert len(jobs.list("default", limit=9).items) == 3
    sweep(database, blobs, keep_s=3600, keep_jobs_s=0)
    assert {job.id for job in jobs.list("default", limit=9).items} == {version.job_id, waiting.id}
    assert not any(blobs.keys(f"{folder}/{old.id}") for folder in ("jobs", "results"))
    assert len(blobs.keys(f"jobs/{waiting.id}")) == 1
    found = compare(database, blobs, deep=True, grace_s=0)
    assert (found.orphans, found.unusable) == ([], [])


def test_staged_files_are_swept_while_the_worker_runs(place: Place) -> None:
    with place.blobs.staged() as old, place.blobs.staged() as fresh:
        past = time.time() - 24 * 3600
        os.utime(old, (past, past))
        sweep(place.database, place.blobs, keep_s=0)
        assert (old.exists(), fresh.exists()) == (False, True)


def test_a_sweep_tells_whether_more_jobs_are_due(place: Place) -> None:
    for _ in range(21):  # one more than a transaction deletes
        place.jobs.cancel("default", submitted(place.jobs).id)
    once = partial(sweep, place.database, place.blobs, keep_s=3600, keep_jobs_s=0)
    assert [once(), once()] == [True, False]
    assert place.jobs.list("default", limit=9).items == []


def test_gpus_are_counted_by_their_files_or_as_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia1", "nvidia12", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert count_gpus(tmp_path) == 3
    assert count_gpus(tmp_path / "none") == 0
    for visible, count in (
        ("", 0),
        ("-1", 0),
        ("0", 1),
        ("0,2", 2),
        ("GPU-1, GPU-2 ", 2),
        ("0,-1,1", 1),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert count_gpus(tmp_path) == count, visible


def test_each_gpu_is_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    every = WorkerSettings(device="cuda:all", worker_concurrency=7)
    assert devices_of(every) == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices_of(WorkerSettings(device="cpu", worker_concurrency=2)) == ["cpu", "cpu"]
    assert [has_accelerator(WorkerSettings(device=d)) for d in ("cpu", "cuda:1", "auto")] == [
        False,
        True,
        True,
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices_of(every) == ["cuda:0"]  # whose self-test says that it is missing
    assert not has_accelerator(WorkerSettings(device="auto"))


@pytest.mark.parametrize(
    ("device", "gpus", "limit"),
    [("cpu", "0", 2**32), ("auto", "", 2**32), ("auto", "0", None), ("cuda:0", "0", None)],
)
def test_memory_is_limited_where_jobs_compute_without_a_gpu(monkeypatch, device, gpus, limit):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    settings = WorkerSettings(device=device, trainer_memory_bytes=2**32)
    assert memory_limit_bytes(settings) == limit


def make(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("own", "files", "limits"),
    [
        pytest.param(
            "0::/system.slice/densityd.service",
            {
                "memory.max": "9",
                "system.slice/memory.max": "max",
                "system.slice/densityd.service/memory.max": "4",
                "other.slice/memory.max": "1",
            },
            [4, 9],
            id="a unit of systemd",
        ),
        pytest.param("0::/", {"memory.max": "5"}, [5], id="a container"),
        pytest.param(
            "5:cpu:/\n4:memory:/slurm/job\n0::/",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/slurm/memory.limit_in_bytes": "7",
                "memory/slurm/job/memory.limit_in_bytes": "6",
            },
            [6, 7, 9223372036854771712],
            id="the first version",
        ),
        pytest.param(
            "4:memory:/docker/0123",
            {"memory/memory.limit_in_bytes": "8"},
            [8],
            id="a container that sees its group elsewhere",
        ),
    ],
)
def test_the_limits_of_all_groups_of_a_process_are_found(tmp_path, own, files, limits):
    make(tmp_path / "own", own)
    for name, text in files.items():
        make(tmp_path / "groups" / name, text)
    groups = tmp_path / "own", tmp_path / "groups"
    assert list(group_limits(*groups)) == limits
    assert machine_bytes(*groups) == min(limits)


def test_a_system_without_groups_has_no_limits(tmp_path: Path) -> None:
    assert not list(group_limits(tmp_path / "none", tmp_path))
    make(tmp_path / "empty", "")
    assert not list(group_limits(tmp_path / "empty", tmp_path))
