"""Jobs that are struck from outside: real trainers killed, on both databases."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models_store.job_states import JobState
from models_store.jobs.retries import OWN_LIMIT
from tests.waiting import wait_until
from tests.workers.place import ENDLESS, Place, Running

Supervise = Callable[..., Running]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    kind = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    place = Place(tmp_path / "data", request.getfixturevalue(kind))
    yield place
    place.database.dispose()


def test_trainers_killed_while_they_start_cost_their_job_nothing(
    place: Place, supervise: Supervise
) -> None:
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


@pytest.mark.slow
def test_attempts_that_end_within_the_first_epoch_get_further_each_time(
    place: Place, supervise: Supervise
) -> None:
    # Some twenty seconds an epoch.
    job_id = place.submit(place.add_dataset(rows=200_000), **ENDLESS | {"batch_size": 10})
    reached = 0
    for _ in range(OWN_LIMIT + 1):
        place.no_wait(job_id)
        running = supervise(long_epoch_s=0.1)
        trainer = running.trainer_pid()

        def further(than: int = reached) -> bool:
            checkpoints = place.job(job_id).checkpoints
            return bool(checkpoints) and checkpoints[0]["step"] > than

        wait_until(further)
        os.kill(trainer, signal.SIGSEGV)
        running.join()
        job = place.job(job_id)
        assert job.state is JobState.QUEUED, job.error
        assert place.epoch(job_id) == 0
        reached = job.checkpoints[0]["step"]
    assert "Progress so far: 0." in place.messages(job_id)[-1]


@pytest.mark.long
def test_a_job_that_runs_for_too_long_fails_and_goes_on_when_resumed(
    place: Place, supervise: Supervise
) -> None:
    job_id = place.submit(place.add_dataset(), **ENDLESS)
    running = supervise()
    wait_until(lambda: place.epoch(job_id) >= 1)
    running.end()
    ran_s = place.job(job_id).run_seconds
    assert ran_s > 0

    supervise(max_job_s=ran_s + 0.1).join()

    job = place.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "time_limit"
    for checkpoint in job.checkpoints:
        place.blobs.verify(checkpoint["key"], checkpoint["sha256"])
    assert job.checkpoints
    place.jobs.resume("default", job_id)
    assert place.job(job_id).run_seconds == 0
