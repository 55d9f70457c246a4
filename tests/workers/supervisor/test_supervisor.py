"""A supervisor and its real trainers, against a real database: one job at a time."""

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from models_store.database.database import Database, migrate
from models_store.files.blobs import Blobs
from models_store.job_states import JobKind, JobState, NewJob
from models_store.jobs.leases import JobWork
from tests.servers import PostgresServer
from tests.waiting import is_alive, wait_until
from tests.workers.place import ENDLESS, Place, Running
from workers.protocol import EpochDone, Message, Trained, TrainingTask
from workers.supervisor.assignment import task_of
from workers.supervisor.supervisor import Supervisor
from workers.trainer.training import train

Supervise = Callable[..., Running]

# Long enough to be caught in the middle, short enough to wait for.
EPOCHS = 20
MEDIUM: dict[str, Any] = {"max_epochs": EPOCHS, "patience": EPOCHS, "batch_size": 40}


def messages_of_training(place: Place) -> list[Message]:
    """Train the next job as a plain call, and return what it sends."""
    job = place.work.claim("plain call", lease_s=60)
    assert job is not None
    messages: list[Message] = []
    task = task_of(job, registry=place.registry, settings=place.settings)
    assert isinstance(task, TrainingTask)
    train(task, messages.append, interrupted=lambda: False)
    return messages


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the model that MEDIUM gives as a plain call that nobody disturbs."""
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    place.submit(place.add_dataset(), **MEDIUM)
    messages = messages_of_training(place)
    place.database.dispose()
    last = messages[-1]
    assert isinstance(last, Trained)
    return str(last.version["checkpoint_sha256"])


def test_a_job_succeeds_with_one_version_and_leaves_only_its_model(
    place: Place, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = JobWork.record_epoch
    calls: list[int] = []

    def counted(work: JobWork, *arguments: Any, **named: Any) -> Any:
        calls.append(1 + len(named["earlier"]))
        return record(work, *arguments, **named)

    monkeypatch.setattr(JobWork, "record_epoch", counted)
    # However slow the epochs of a busy machine are, some come together.
    monkeypatch.setattr("workers.supervisor.attempt._RELAY_S", 5.0)
    dataset = place.add_dataset()
    job_id = place.submit(dataset, max_epochs=200, patience=200)

    supervise(checkpoint_interval_s=60.0).join()

    job = place.job(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert place.epochs(job_id) == list(range(1, 201))
    assert len(calls) < sum(calls) == 200, "short epochs share no transactions"
    version = place.version(job_id)
    place.blobs.verify(version.checkpoint_key, version.checkpoint_sha256)
    assert place.blobs.keys("jobs") == []
    assert place.blobs.keys("models") == [version.checkpoint_key]
    assert version.dataset_sha256 == dataset.sha256
    assert version.family == "realnvp"
    assert version.columns == ["x1", "x2", "x3"]
    metrics = job.metrics or {}
    assert metrics == version.metrics
    assert metrics["test_standard_error"] > 0
    assert metrics["test_rows"] == 60
    assert metrics["stop_reason"] == "max_epochs"
    assert (job.progress or {})["fraction"] == 1.0


def test_nothing_to_claim_is_no_work(place: Place) -> None:
    assert Supervisor(place.database, place.settings, worker="w").run_next() is False


def test_a_worker_leaves_a_job_that_does_not_fit_to_others(place: Place) -> None:
    new = NewJob(
        project="p",
        kind=JobKind.VARIATIONAL,
        model_name="m",
        dataset_id=None,
        request={},
        memory_bytes=2**30,
    )
    job = place.jobs.submit(new).job
    small = place.with_settings(trainer_memory_bytes=2**30 - 1)
    assert Supervisor(place.database, small, worker="w").run_next() is False
    assert place.jobs.get("p", job.id).attempt == 0


def test_a_cancelled_job_stops_within_five_seconds_and_can_go_on_later(
    place: Place, supervise: Supervise
) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    running = supervise()
    trainer = running.trainer_pid()
    wait_until(lambda: place.epoch(job_id) >= 2)

    place.jobs.cancel("default", job_id)

    running.join()
    job = place.job(job_id)
    assert job.state is JobState.CANCELLED
    assert job.model_version is None
    assert not is_alive(trainer)
    assert place.blobs.keys("models") == []
    for checkpoint in job.checkpoints:
        place.blobs.verify(checkpoint["key"], checkpoint["sha256"])
    assert len(job.checkpoints) == 2
    assert len(place.blobs.keys("jobs")) == 2, "older checkpoints are kept"


def test_a_job_without_an_end_gives_way_and_continues_later(
    place: Place, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.supervisor.attempt._GIVE_WAY_S", 0.1)
    dataset = place.add_dataset()
    job_id = place.submit(dataset, **ENDLESS)
    running = supervise(turn_s=0.01)
    wait_until(lambda: place.job(job_id).checkpoints, within_s=60)
    other = NewJob(
        project="other", kind=JobKind.VARIATIONAL, model_name="m", dataset_id=None, request={}
    )
    place.jobs.submit(other)
    with place.database.write() as session:
        session.execute(
            text("UPDATE job SET queued_at = '2000-01-01T00:00:00.000Z' WHERE state = 'queued'")
        )

    running.join()

    job = place.job(job_id)
    assert (job.state, job.attempt) == (JobState.QUEUED, 1)
    assert "a job of another project was waiting" in place.messages(job_id)[-1]
    place.blobs.verify(job.checkpoints[0]["key"], job.checkpoints[0]["sha256"])
    next_one = place.work.claim("tester", lease_s=60)
    assert next_one is not None
    assert next_one.project == "other"

    reached = place.epoch(job_id)
    running = supervise(turn_s=0.01)
    wait_until(lambda: place.epoch(job_id) >= reached + 2)
    running.end()
    assert place.epochs(job_id)[:3] == [1, 2, 3]


def test_nothing_is_left_to_continue_after_the_last_epoch(place: Place) -> None:
    place.submit(place.add_dataset(), max_epochs=3, patience=3)
    messages = messages_of_training(place)
    epochs = [message for message in messages if isinstance(message, EpochDone)]
    assert [epoch.computed for epoch in epochs] == [False, False, True]


def test_faults_119_124_neither_kill_9_nor_a_stop_changes_the_model(
    place: Place, supervise: Supervise, undisturbed: str
) -> None:
    job_id = place.submit(place.add_dataset(), **MEDIUM)
    running = supervise()
    trainer = running.trainer_pid()
    wait_until(lambda: place.epoch(job_id) >= 3)
    # Of all processes the kernel takes this one when memory runs out.
    assert Path(f"/proc/{trainer}/oom_score_adj").read_text() == "600\n"
    os.kill(trainer, signal.SIGKILL)
    running.join()
    assert place.state(job_id) is JobState.QUEUED, "it waited for the lease to run out"
    assert "signal 9" in place.messages(job_id)[0]

    reached = place.epoch(job_id)
    place.no_wait(job_id)
    running = supervise()
    wait_until(lambda: place.epoch(job_id) >= reached + 2)
    running.supervisor.stop()
    running.join()
    job = place.job(job_id)
    assert job.state is JobState.QUEUED
    assert job.checkpoints[0]["epoch"] == place.epoch(job_id) + 1, "the part of an epoch is lost"

    supervise().join()
    assert place.job(job_id).attempt == 3
    assert place.epochs(job_id) == list(range(1, EPOCHS + 1))
    assert place.version(job_id).checkpoint_sha256 == undisturbed


@pytest.mark.long
def test_a_job_that_kills_its_trainer_each_time_fails_and_lets_the_next_run(
    place: Place, supervise: Supervise
) -> None:
    dataset = place.add_dataset(rows=600_000)
    poison = place.submit(dataset, **{**ENDLESS, "batch_size": 2})  # no epoch ends before the crash
    for attempt in range(3):
        place.no_wait(poison)
        running = supervise(long_epoch_s=600)
        trainer = running.trainer_pid()
        wait_until(partial(_has_moved, place, poison, place.job(poison).progress))
        assert place.job(poison).attempt == attempt + 1
        os.kill(trainer, signal.SIGSEGV)  # as if the job had it write where it may not
        running.join()

    job = place.job(poison)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "crash_loop"
    assert "SIGSEGV" in place.messages(poison)[-1]
    after = place.submit(dataset, max_epochs=1)
    claimed = place.work.claim("the next", lease_s=60)
    assert claimed is not None
    assert claimed.id == after


def _has_moved(place: Place, job_id: str, before: dict[str, Any] | None) -> bool:
    return place.job(job_id).progress != before


def test_a_model_that_needs_too_much_memory_fails_and_the_worker_lives(
    place: Place, supervise: Supervise
) -> None:
    dataset = place.add_dataset()
    flow = {"family": "maf", "layers": 2, "hidden": [8192, 8192]}
    job_id = place.submit(dataset, flow=flow, max_epochs=1)

    running = supervise(trainer_memory_bytes=700 * 2**20)
    running.join()

    error = place.job(job_id).error
    assert error is not None
    assert error["code"] == "oom"
    assert "700 MiB" in error["detail"]


def test_a_supervisor_that_lost_the_job_kills_its_trainer_and_changes_nothing(
    place: Place, supervise: Supervise
) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    running = supervise()
    trainer = running.trainer_pid()
    wait_until(lambda: place.epoch(job_id) >= 1)
    assert place.work.claim("another", lease_s=60) is None, "the lease was not renewed"

    def take_over() -> bool:
        # The running attempt extends its lease all the time.
        place.expire_lease(job_id)
        return place.work.claim("another", lease_s=60) is not None

    wait_until(take_over)

    running.join()
    assert not is_alive(trainer)
    job = place.job(job_id)
    assert job.state is JobState.RUNNING
    assert job.attempt == 2


@pytest.mark.slow
def test_a_trainer_that_stands_still_is_killed_and_the_job_given_back(
    place: Place, supervise: Supervise
) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    running = supervise(stall_timeout_s=3)
    trainer = running.trainer_pid()
    wait_until(lambda: place.epoch(job_id) >= 1)

    os.kill(trainer, signal.SIGSTOP)
    running.join()

    assert place.state(job_id) is JobState.QUEUED
    assert not is_alive(trainer)
    assert "no progress" in place.messages(job_id)[0]


@pytest.mark.long
def test_training_goes_on_while_the_database_is_away(place: Place, supervise: Supervise) -> None:
    impatient = Database(place.settings.resolved_database_url, busy_timeout_s=0.1)
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    running = supervise(impatient)
    trainer = running.trainer_pid()
    wait_until(lambda: place.epoch(job_id) >= 1)

    with place.database.write() as session:
        session.execute(text("SELECT 1"))  # from here on nobody else can write
        locked_at = place.epoch(job_id)
        # Only the supervisor deletes checkpoints, after a write.
        wait_until(lambda: len(place.blobs.keys("jobs")) >= 8)
        assert place.epoch(job_id) == locked_at
        assert is_alive(trainer)

    wait_until(lambda: place.epoch(job_id) >= locked_at + 5)
    wait_until(lambda: len(place.blobs.keys("jobs")) <= 3)
    told = place.epochs(job_id)
    assert told == list(range(1, len(told) + 1)), "an epoch of the outage is missing"
    assert place.job(job_id).attempt == 1
    running.end()
    impatient.dispose()


@pytest.mark.slow
def test_faults_150_151_training_outlives_kill_9_of_postgresql(tmp_path: Path) -> None:
    server = PostgresServer()
    url = server.create("densityd")
    migrate(url)
    place = Place(tmp_path / "data", url)
    job_id = place.submit(place.add_dataset(), **MEDIUM | {"batch_size": 4})
    running = Running(place.database, place.settings)
    try:
        trainer = running.trainer_pid()
        wait_until(lambda: place.epoch(job_id) >= 2)
        server.kill()
        before = len(place.blobs.keys("jobs"))
        wait_until(lambda: len(place.blobs.keys("jobs")) >= before + 3)
        assert is_alive(trainer)
        server.restart()

        running.join()

        assert place.state(job_id) is JobState.SUCCEEDED
        assert place.epochs(job_id) == list(range(1, EPOCHS + 1))
        assert place.job(job_id).attempt == 1
        assert place.version(job_id).version == 1
    finally:
        running.end()
        place.database.dispose()
        server.close()


@pytest.mark.slow
def test_a_full_disk_gives_the_job_back_until_there_is_room(
    tmp_path: Path, supervise: Supervise, place: Place
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(  # noqa: S603 - a fixed command
        ["/bin/mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        place.blobs = Blobs.in_folder(small)
        job_id = place.submit(place.add_dataset(), **ENDLESS)
        running = supervise(store_url=str(small), reserve_bytes=0)
        wait_until(lambda: place.epoch(job_id) >= 3)
        filler = small / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 1000):
                pass
        running.join()

        job = place.job(job_id)
        assert job.state is JobState.QUEUED, job.error
        assert "no space left" in place.messages(job_id)[-1]
        for checkpoint in job.checkpoints:
            place.blobs.verify(checkpoint["key"], checkpoint["sha256"])
        reached = place.epoch(job_id)

        filler.unlink()
        place.no_wait(job_id)
        running = supervise(store_url=str(small), reserve_bytes=0)
        wait_until(lambda: place.epoch(job_id) > reached)
        running.end()
    finally:
        subprocess.run(["/bin/umount", "-l", str(small)], check=True)  # noqa: S603 - a fixed command
