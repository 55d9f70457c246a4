"""A real worker process on a real Redis: what kills, wipes and restarts do to accepted jobs."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from models_store.files.blobs import STAGING
from models_store.job_states import JobState
from tests.waiting import is_alive, wait_until
from tests.workers.place import ENDLESS, Place, is_at_work, trainers_of

EPOCHS = 15

StartWorker = Callable[..., "subprocess.Popen[bytes]"]


@pytest.mark.slow
@pytest.mark.usefixtures("place_redis")
def test_a_worker_that_slept_past_its_lease_changes_nothing_when_it_wakes(
    place: Place, start_worker: StartWorker
) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    zombie = start_worker(DENSITYD_WORKER_NAME="zombie")
    wait_until(lambda: place.epoch(job_id) >= 1)
    zombie.send_signal(signal.SIGSTOP)
    start_worker(DENSITYD_WORKER_NAME="owner")
    wait_until(lambda: place.job(job_id).attempt == 2, within_s=150)
    told = place.epoch(job_id)
    wait_until(lambda: place.epoch(job_id) > told)

    zombie.send_signal(signal.SIGCONT)

    wait_until(lambda: not trainers_of(zombie.pid))
    told = place.epoch(job_id)
    wait_until(lambda: place.epoch(job_id) > told)
    assert place.job(job_id).attempt == 2
    epochs = place.epochs(job_id)
    assert epochs == list(range(1, len(epochs) + 1))


@pytest.mark.slow
@pytest.mark.usefixtures("place_redis")
@pytest.mark.parametrize(
    "number", [signal.SIGQUIT, signal.SIGINT, signal.SIGHUP], ids=lambda it: it.name
)
def test_other_signals_end_a_worker_as_sigterm_does(
    place: Place, start_worker: StartWorker, number: signal.Signals
) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    worker = start_worker()
    wait_until(lambda: place.epoch(job_id) >= 1)
    [trainer] = trainers_of(worker.pid)

    worker.send_signal(number)

    assert worker.wait(120) == 0
    assert not is_alive(trainer)
    job = place.job(job_id)
    assert job.state is JobState.QUEUED, "the lease was not released"
    assert job.checkpoints


@pytest.mark.slow
@pytest.mark.usefixtures("place_redis")
def test_a_killed_workers_job_goes_on_within_ten_seconds_of_its_leases_end(
    place: Place, start_worker: StartWorker
) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    first = start_worker(DENSITYD_WORKER_NAME="first")
    wait_until(lambda: place.epoch(job_id) >= 1)
    start_worker(DENSITYD_WORKER_NAME="second")
    wait_until(lambda: is_at_work(place, "second"))

    first.kill()
    first.wait()
    lease = place.job(job_id).lease_expires_at
    assert lease is not None
    wait_until(lambda: place.job(job_id).attempt == 2)
    claimed = next(
        event.created_at
        for event in place.jobs.events("default", job_id, limit=100_000)
        if event.data == {"state": "running", "attempt": 2}
    )
    late_s = (claimed - lease).total_seconds()
    sys.stdout.write(f"claimed {late_s:.2f} s after the end of the lease\n")
    assert late_s < 10


@pytest.mark.slow
@pytest.mark.usefixtures("place_redis")
@pytest.mark.parametrize("when", ["queued", "starting", "training", "checkpointing"])
def test_cancelling_takes_less_than_five_seconds(
    place: Place, start_worker: StartWorker, when: str
) -> None:
    # A wide flow's checkpoint is most of each of its epochs.
    flow = {"family": "maf", "layers": 5, "hidden": [512, 512]}
    wide = {"flow": flow, **ENDLESS} if when == "checkpointing" else ENDLESS
    job_id = place.submit(place.add_dataset(60 if when == "checkpointing" else 600), **wide)
    if when != "queued":
        worker = start_worker(DENSITYD_TEST_LEASE_S="15")
        wait_until(lambda: bool(trainers_of(worker.pid)))
    if when in ("training", "checkpointing"):
        wait_until(lambda: place.epoch(job_id) >= 2)
    if when == "checkpointing":
        staging = place.blobs.root / STAGING
        wait_until(lambda: any(staging.glob("*")))

    began = time.monotonic()
    place.jobs.cancel("default", job_id)
    wait_until(lambda: place.state(job_id) is JobState.CANCELLED)
    took_s = time.monotonic() - began

    sys.stdout.write(f"cancelled while {when} in {took_s:.2f} s\n")
    assert took_s < 60
    assert place.job(job_id).model_version is None
