"""A supervisor and its real trainers, against a real database: one job at a time."""

import errno
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import pytest
from sqlalchemy import text, update

from models_store.database.database import Database
from models_store.database.schema import JobRow
from models_store.errors import DatabaseUnavailableError
from models_store.job_states import JobKind, JobState, NewJob
from models_store.jobs.retries import OWN_LIMIT
from tests.jobs.workers.crash_child import InlineTrainer, InlineTrainers
from tests.jobs.workers.place import ENDLESS, Place, Running, result, run
from tests.store.makers import claimed
from tests.support.waiting import is_alive, wait_until
from workers.protocol import EpochDone, Failed, Started, Task
from workers.supervisor.fitness import Fitness
from workers.supervisor.supervisor import Supervisor
from workers.supervisor.trainers import Trainers
from workers.supervisor.writes import Writes

Supervise = Callable[..., Running]
# Long enough to be caught in the middle, short enough to wait for.
EPOCHS = 40
MEDIUM: dict[str, Any] = {"max_epochs": EPOCHS, "patience": EPOCHS, "batch_size": 16}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the model that MEDIUM gives as a plain call that nobody disturbs."""
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    place.submit(place.add_dataset(), **MEDIUM)
    messages = run(place.assigned(claimed(place.work, lease_s=60)))
    place.database.dispose()
    return str(result(messages).version["checkpoint_sha256"])


def test_a_job_succeeds_with_one_version_and_leaves_only_its_model(place, supervise):
    dataset = place.add_dataset()
    job_id = place.submit(dataset, max_epochs=30, patience=30)

    supervise(checkpoint_interval_s=60.0).join()

    job = place.job(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert place.epochs(job_id) == list(range(1, 31))
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


def test_a_cancelled_job_stops_within_five_seconds_and_can_go_on_later(place, supervise):
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


def let_another_wait(place: Place) -> None:
    """Submit a job of another project that has waited for long."""
    other = NewJob(
        project="other", kind=JobKind.VARIATIONAL, model_name="m", dataset_id=None, request={}
    )
    place.jobs.submit(other)
    with place.database.write() as session:
        session.execute(
            text("UPDATE job SET queued_at = '2000-01-01T00:00:00.000Z' WHERE state = 'queued'")
        )


def test_a_job_after_its_last_epoch_gives_way_to_none(place: Place) -> None:
    job_id = place.submit(place.add_dataset(), max_epochs=1)
    settings = place.with_settings(turn_s=0.0)
    waits, trainers = partial(let_another_wait, place), InlineTrainers()
    Supervisor(place.database, settings, worker="w", trainers=trainers, on_claim=waits).run_next()
    assert (place.state(job_id), place.job(job_id).attempt) == (JobState.SUCCEEDED, 1)


def test_a_job_without_an_end_gives_way_and_continues_later(place, supervise):
    dataset = place.add_dataset()
    job_id = place.submit(dataset, **ENDLESS)
    running = supervise(turn_s=0.01)
    wait_until(lambda: place.state(job_id) is JobState.RUNNING)
    let_another_wait(place)

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


def test_neither_kill_9_nor_a_stop_changes_the_model(place, supervise, undisturbed):
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


def test_a_job_that_kills_its_trainer_each_time_fails_and_lets_the_next_run(place, supervise):
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


def test_a_model_that_needs_too_much_memory_fails_and_the_worker_lives(place, supervise):
    dataset = place.add_dataset()
    flow = {"family": "maf", "layers": 2, "hidden": [8192, 8192]}
    job_id = place.submit(dataset, flow=flow, max_epochs=1)

    running = supervise(trainer_memory_bytes=700 * 2**20)
    running.join()

    error = place.job(job_id).error
    assert error is not None
    assert error["code"] == "oom"
    assert "700 MiB" in error["detail"]


def test_a_supervisor_that_lost_the_job_kills_its_trainer_and_changes_nothing(place, supervise):
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
def test_a_trainer_that_stands_still_is_killed_and_the_job_given_back(place, supervise):
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    running = supervise(stall_timeout_s=3)
    trainer = running.trainer_pid()
    wait_until(lambda: place.epoch(job_id) >= 1)

    os.kill(trainer, signal.SIGSTOP)
    running.join()

    assert place.state(job_id) is JobState.QUEUED
    assert not is_alive(trainer)
    assert "no progress" in place.messages(job_id)[0]


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


def test_trainers_killed_while_they_start_cost_their_job_nothing(place, supervise):
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    for attempt in range(1, OWN_LIMIT + 1):
        place.no_wait(job_id)
        running = supervise()
        os.kill(running.trainer_pid(), signal.SIGKILL)
        running.join()
        job = place.job(job_id)
        assert job.state is JobState.QUEUED, job.error
        assert job.not_before is not None
        assert place.messages(job_id)[-1] == (
            f"Attempt {attempt} on worker tester: the training process was killed by signal 9"
            f" (SIGKILL), from outside. It is tried again in {2 ** (attempt - 1)} s."
        )


def test_sigterm_to_a_trainer_that_starts_is_a_release(place: Place, supervise: Supervise) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    for attempt in range(1, OWN_LIMIT + 1):
        running = supervise()
        os.kill(running.trainer_pid(), signal.SIGTERM)
        running.join()
        job = place.job(job_id)
        assert (job.state, job.attempt, job.not_before) == (JobState.QUEUED, attempt, None)
        assert "was asked to stop" in place.messages(job_id)[-1]


def test_a_job_that_runs_for_too_long_fails_and_goes_on_when_resumed(place, supervise):
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    running = supervise()
    wait_until(lambda: place.epoch(job_id) >= 1)
    running.end()
    assert place.job(job_id).run_seconds > 0
    with place.database.write() as session:
        session.execute(update(JobRow).values(run_seconds=1e6))

    supervise(max_job_s=1e6 + 0.1).join()

    job = place.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "time_limit"
    for checkpoint in job.checkpoints:
        place.blobs.verify(checkpoint["key"], checkpoint["sha256"])
    assert job.checkpoints
    place.jobs.resume("default", job_id)
    assert place.job(job_id).run_seconds == 0


@pytest.mark.slow  # as above
def test_what_an_ended_job_has_no_use_for_goes_at_once(place: Place, supervise: Supervise) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    running = supervise()
    wait_until(lambda: len(place.job(job_id).checkpoints) == 2)
    # A killed trainer leaves what nobody heard of.
    for key in (f"jobs/{job_id}/1-999999.safetensors", f"models/{job_id}/1.safetensors"):
        with place.blobs.staged() as staged:
            staged.write_bytes(b"x" * 1000)
            place.blobs.commit(staged, key)
    place.jobs.cancel("default", job_id)
    running.join()
    named = sorted(checkpoint["key"] for checkpoint in place.job(job_id).checkpoints)
    assert place.blobs.keys("jobs") == named
    assert place.blobs.keys("models") == []


def test_a_worker_fails_a_job_beyond_a_quota_that_was_lowered(place, supervise):
    job_id = place.submit(place.add_dataset(), max_epochs=3)
    supervise(max_project_bytes=1000).join()
    error = place.job(job_id).error
    assert error is not None
    assert error["code"] == "quota_storage"
    assert place.messages(job_id) == []
    assert place.blobs.keys("jobs") == []


def test_a_disk_of_which_too_little_is_free_puts_no_worker_out(place, supervise):
    job_id = place.submit(place.add_dataset(), max_epochs=3)
    running = supervise(reserve_bytes=10**18)
    running.join()
    assert "of the disk of the service are free" in place.messages(job_id)[-1]
    assert place.state(job_id) is JobState.QUEUED
    assert place.job(job_id).attempt == 1
    assert running.supervisor.unfit is None


class FlakyDatabase:
    """Answers only from its `good_after`-th call on."""

    def __init__(self, good_after: int) -> None:
        self.calls = 0
        self.written: list[str] = []
        self._good_after = good_after

    def write(self, text: str) -> bool:
        self.calls += 1
        if self.calls <= self._good_after:
            raise DatabaseUnavailableError
        self.written.append(text)
        return True


def test_a_write_waits_for_the_database_and_keeps_its_place() -> None:
    database, writes = FlakyDatabase(1), Writes()
    writes.add(lambda: database.write("a"))
    writes.add(lambda: database.write("b"))

    assert not writes.flush()
    assert writes.waiting
    assert not writes.flush(), "tried again without a pause"
    assert database.calls == 1
    deadline = time.monotonic() + 60
    while not writes.flush():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert database.written == ["a", "b"]


class ShortTrainer(InlineTrainer):
    """A trainer whose epochs and end come at once."""

    def _run(self) -> None:
        self.send(Started())
        for epoch in (1, 2, 3):
            self.send(EpochDone(metrics={"epoch": epoch}, progress={}, checkpoint=None))
        self.send(Failed(code="diverged", detail="It diverged."))
        self._messages.put(None)


class ShortTrainers(InlineTrainers):
    """Such trainers."""

    def start(self, task: Task) -> ShortTrainer:  # type: ignore[override]  # taken for a process
        return ShortTrainer(task, self._told)


class NoProcesses(Trainers):
    """A system that has no room for another process."""

    def fork(self, task: Task) -> NoReturn:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")


class Faulty(InlineTrainers):
    """A fault of the supervisor itself."""

    def start(self, task: Task) -> NoReturn:
        raise ValueError("unforeseen")


@pytest.mark.parametrize(
    ("trainers", "told", "unfit"),
    [
        (NoProcesses, "no training process could be started ([Errno 11]", True),
        (Faulty, "the worker met a fault of its own", False),
    ],
)
def test_a_job_for_which_no_trainer_starts_goes_back_to_the_queue(place, trainers, told, unfit):
    job_id = place.submit(place.add_dataset())
    supervisor = Supervisor(place.database, place.settings, worker="w", trainers=trainers())
    assert supervisor.run_next()
    job = place.job(job_id)
    assert (supervisor.unfit is not None) == unfit
    assert (job.state, job.attempt) == (JobState.QUEUED, 1)
    assert told in place.messages(job_id)[-1]


class SilentTrainer(ShortTrainer):
    """A trainer that ends without a word."""

    def _run(self) -> None:
        self._messages.put(None)


class SilentTrainers(InlineTrainers):
    """Such trainers."""

    def start(self, task: Task) -> SilentTrainer:  # type: ignore[override]  # as above
        return SilentTrainer(task, self._told)


@pytest.mark.parametrize(
    ("trainers", "reason"),
    [
        (NoProcesses, "No training process can be started: [Errno 11]"),
        (ShortTrainers, "The self-test failed with diverged: It diverged."),
        (SilentTrainers, "The self-test's process ended with status 0."),
    ],
)
def test_a_worker_whose_self_test_does_not_pass_says_why(place, trainers, reason):
    settings = place.with_settings(device="cuda:0")
    fitness = Fitness(place.database, settings, stopping=Event(), trainers=trainers())
    assert not fitness.check()
    assert str(fitness.reason).startswith(reason)
    assert not fitness.check(), "it waits before it tries again"


def test_a_job_whose_dataset_is_gone_fails(place: Place) -> None:
    job_id = place.submit(place.add_dataset())
    with place.database.write() as session:
        session.execute(text("DELETE FROM dataset"))
    assert Supervisor(place.database, place.settings, worker="w").run_next()
    assert "dataset_missing" in str(place.job(job_id).error)


def test_what_comes_right_before_the_end_of_a_trainer_is_recorded(place: Place) -> None:
    job_id = place.submit(place.add_dataset())
    Supervisor(place.database, place.settings, worker="w", trainers=ShortTrainers()).run_next()
    assert place.state(job_id) is JobState.FAILED
    assert place.epochs(job_id) == [1, 2, 3]
