"""A worker as Celery's users know it, the queue as what it is: a bell, and what kills do to accepted jobs."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
import redis
from sqlalchemy import text

from app.server.broker import Broker
from models_store.broker import CPU_QUEUE, GPU_QUEUE, celery_options
from models_store.job_states import JobState
from models_store.settings import StoreSettings
from tests.jobs.workers.place import ENDLESS, Place, PlaceRedis, is_at_work, trainers_of
from tests.support.waiting import is_alive, wait_until
from workers.main import run_worker

StartWorker = Callable[..., "subprocess.Popen[bytes]"]


def celery(place: Place, *arguments: str) -> str:
    """What Celery's own command says about the workers of a place."""
    command = [sys.executable, "-P", "-m", "celery", "-A", "workers.celery_app", *arguments]
    environment = {"DENSITYD_DATA_DIR": str(place.settings.data_dir)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    return run.stdout + run.stderr


def test_the_queues_of_a_worker_follow_from_its_device_and_nothing_imports_torch() -> None:
    code = (
        "import sys, workers.celery_app, workers.main, workers.supervisor;"
        "print(*workers.celery_app.celery.conf.task_queues);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'flows')))"
    )
    run = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code],
        env=os.environ | {"DENSITYD_DEVICE": "cuda:0"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout.split()) == (0, [GPU_QUEUE, CPU_QUEUE])


@pytest.mark.usefixtures("place_redis")
def test_celerys_own_commands_see_the_worker_and_the_job_that_it_runs(place, start_worker):
    worker = start_worker(DENSITYD_WORKER_NAME="one")
    wait_until(lambda: "pong" in celery(place, "inspect", "ping"))
    assert "densityd@one: OK" in celery(place, "status")
    assert CPU_QUEUE in celery(place, "inspect", "active_queues")
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    broker = Broker(place.settings)
    assert broker.ping() is None
    broker.announce(place.job(job_id))
    wait_until(lambda: place.state(job_id) is JobState.RUNNING)
    assert "densityd.work" in celery(place, "inspect", "registered")
    worker.terminate()
    assert worker.wait(120) == 0
    assert place.state(job_id) is JobState.QUEUED
    assert not is_at_work(place), "it told nobody that it ended"
    lines = (place.settings.data_dir / "worker.log").read_text().splitlines()
    assert all(json.loads(line)["message"] for line in lines), "each line is JSON"
    broker.close()


@pytest.mark.usefixtures("place_redis")
def test_a_worker_that_celery_starts_takes_the_jobs_of_its_queue(place: Place) -> None:
    job_id = place.submit(place.add_dataset(), max_epochs=1)
    command = ["-m", "celery", "-A", "workers.celery_app", "worker", "-Q", "gpu", "-c", "2"]
    worker = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-P", *command],
        env={"DENSITYD_DATA_DIR": str(place.settings.data_dir)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: place.state(job_id) is JobState.SUCCEEDED)
    assert "'name': 'gpu'" in celery(place, "inspect", "active_queues")
    worker.terminate()
    assert worker.wait(120) == 0


def test_jobs_run_while_the_broker_is_wiped_and_away(place, place_redis, start_worker):
    worker = start_worker()
    wait_until(lambda: is_at_work(place))
    dataset = place.add_dataset()
    for fault in (lambda: None, place_redis.kill):
        fault()
        job_id = place.submit(dataset, max_epochs=1)  # nobody is told
        wait_until(lambda job_id=job_id: place.state(job_id) is JobState.SUCCEEDED)  # type: ignore[misc]  # its own
        assert place.job(job_id).attempt == 1
    assert worker.poll() is None


def test_a_busy_worker_to_which_messages_were_given_outlives_its_broker(
    place: Place, place_redis: PlaceRedis, start_worker: StartWorker
) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    worker = start_worker()
    wait_until(lambda: place.state(job_id) is JobState.RUNNING)
    for _ in range(3):
        with (
            closing(Broker(place.settings)) as broker,
            redis.Redis.from_url(place.settings.resolved_broker_url) as client,
        ):
            assert broker.ping() is None
            for _ in range(3):  # more than it takes at once; it acknowledges none
                broker.announce(place.job(job_id))
            wait_until(lambda client=client: client.llen(CPU_QUEUE) < 3)  # type: ignore[misc]  # its own
        place_redis.kill()
        place_redis.start()
    reached = place.epoch(job_id)
    wait_until(lambda: place.epoch(job_id) > reached + 20)
    assert worker.poll() is None
    assert place.job(job_id).attempt == 1


def test_a_broker_that_is_away_costs_a_request_no_time(place: Place) -> None:
    job = place.job(place.submit(place.add_dataset()))
    broker = Broker(place.settings)
    assert broker.ping() is not None
    began = time.monotonic()
    for _ in range(100):
        broker.announce(job)
    assert time.monotonic() - began < 60


def test_sentinels_and_sockets_are_spelled_as_celery_wants_them() -> None:
    url = "sentinel://:s%2F@a:1,b:2/0?master_name=q"
    options = celery_options(url, timeout_s=1)
    assert options["broker_url"] == "sentinel://:s%2F@a:1/0;sentinel://:s%2F@b:2/0"
    assert options["broker_transport_options"]["master_name"] == "q"
    assert celery_options("unix:///x", timeout_s=1)["broker_url"] == "redis+socket:///x"
    for wrong in ("amqp://h", "sentinel://a:1/0"):
        with pytest.raises(ValueError, match=r"broker.s URL begins|master_name"):
            StoreSettings(broker_url=wrong)


def spoil_database(place: Place) -> str:
    place.database.dispose()
    file = place.settings.data_dir / "densityd.sqlite3"
    file.write_bytes(b"garbage" * 1000)
    for other in (f"{file}-wal", f"{file}-shm"):
        Path(other).unlink(missing_ok=True)
    return str(file)


def spoil_schema(place: Place) -> str:
    with place.database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '2026_11_24_keys'"))
    return "2026_11_24_keys"


def spoil_store(place: Place) -> str:
    place.settings.blob_root.write_text("no folder")
    return str(place.settings.blob_root)


@pytest.mark.parametrize("spoil", [spoil_database, spoil_schema, spoil_store])
def test_a_worker_without_its_stores_ends_with_one_line(place, monkeypatch, caplog, spoil):
    # It would stay for the tests that follow.
    monkeypatch.setattr("workers.main.configure_logging", lambda *_: None)
    named = spoil(place)

    assert run_worker(place.settings) == 1

    [record] = [record for record in caplog.records if record.name == "workers.main"]
    assert record.levelname == "ERROR"
    assert named in record.getMessage()


def stop_outside_a_write(process: subprocess.Popen[bytes], place: Place) -> None:
    """Stop a process where it does not hold SQLite's lock, which nobody else could have then."""

    def is_stopped() -> bool:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)  # until all its threads have stopped
        file = place.settings.data_dir / "densityd.sqlite3"
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(file, 1)) as other:
            other.execute("BEGIN IMMEDIATE")
            return True
        process.send_signal(signal.SIGCONT)
        return False

    wait_until(is_stopped)


@pytest.mark.slow
@pytest.mark.usefixtures("place_redis")
def test_a_worker_that_slept_past_its_lease_changes_nothing_when_it_wakes(place, start_worker):
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    zombie = start_worker(DENSITYD_WORKER_NAME="zombie")
    wait_until(lambda: place.epoch(job_id) >= 1)
    stop_outside_a_write(zombie, place)
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
def test_other_signals_end_a_worker_as_sigterm_does(place, start_worker):
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    worker = start_worker()
    wait_until(lambda: place.epoch(job_id) >= 1)
    [trainer] = trainers_of(worker.pid)

    worker.send_signal(signal.SIGHUP)

    assert worker.wait(120) == 0
    assert not is_alive(trainer)
    job = place.job(job_id)
    assert job.state is JobState.QUEUED, "the lease was not released"
    assert job.checkpoints


@pytest.mark.slow
@pytest.mark.usefixtures("place_redis")
def test_a_killed_workers_job_goes_on_within_ten_seconds_of_its_leases_end(place, start_worker):
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
    assert (claimed - lease).total_seconds() < 10
