"""Workers that lack what any job needs: they take none, say so, and jobs that meet one go back."""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models_store.files.blobs import STORE_ID
from models_store.files.store_identity import adopt
from models_store.job_states import JobState
from models_store.jobs.live_workers import Workers
from tests.jobs.workers.place import ENDLESS, Place, Running
from tests.support.waiting import wait_until
from workers.supervisor.supervisor import Supervisor

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
        self.supervisor = Supervisor(
            place.database,
            place.with_settings(**changes),
            worker="sick",
        )
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
def test_a_sick_worker_takes_no_job_and_says_why(
    place: Place,
    get_sick: Callable[..., Sick],
    tmp_path: Path,
    sickness: str,
) -> None:
    dataset = place.add_dataset()
    jobs = [place.submit(dataset, max_epochs=1) for _ in range(JOBS)]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    match sickness:
        case "store not mounted":
            sick, why = get_sick(store_url=str(elsewhere)), "nothing is mounted there"
        case _:
            sick, why = get_sick(device="cuda:7"), "no device cuda:7"

    wait_until(lambda: why in str(sick.supervisor.unfit))
    sick.end()
    assert {place.job(job_id).attempt for job_id in jobs} == {0}
    assert not list(elsewhere.iterdir()), "it wrote into a folder that is not the store"


def test_a_worker_whose_store_comes_back_takes_jobs_again(
    place: Place, get_sick: Callable[..., Sick]
) -> None:
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


def test_a_store_that_goes_away_under_a_job_costs_it_nothing(
    place: Place, supervise: Supervise
) -> None:
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


def test_a_worker_is_tested_again_after_its_environment_failed_a_job(
    place: Place, start_worker: StartWorker, tmp_path: Path
) -> None:
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
