"""Attempts that end without a result, on both databases: what counts, who waits, when it is enough."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import JobEventRow, JobRow
from models_store.job_states import Checkpoint, EventKind, Job, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.retries import OUTSIDE_LIMIT, OWN_LIMIT, Ending
from tests.store.makers import (
    CRASHED,
    LEASE_S,
    PROJECT,
    a_checkpoint,
    an_end,
    claimable,
    claimed,
    no_wait,
    submitted,
)


def record(work: JobWork, job: Job, number: int) -> None:
    work.record_epoch(
        job.id,
        job.attempt,
        lease_s=LEASE_S,
        metrics={"epoch": number},
        progress={"epoch": number, "fraction": number / 10},
        checkpoint=a_checkpoint(job, number),
    )


@pytest.fixture
def crash(work: JobWork, database: Database) -> Callable[..., Job]:
    """Have the next job fail once on a worker, after any wait; gives it as it was claimed."""

    def fail_once(
        worker: str = "worker", *, ending: Ending = Ending.CRASHED, code: str | None = None
    ) -> Job:
        def claim() -> Job | None:
            with database.write() as session:
                session.execute(update(JobRow).values(not_before=None))
            return work.claim(worker, lease_s=0 if ending is Ending.LOST else LEASE_S)

        # A lease that ran out is found by the first, and may have the job wait.
        job = claim() or claim()
        assert job is not None
        if ending is not Ending.LOST:
            work.release(job.id, job.attempt, failed=an_end(ending, code=code))
        return job

    return fail_once


def test_three_crashes_without_progress_fail_the_job(
    jobs: Jobs, work: JobWork, database: Database
) -> None:
    poison, healthy = submitted(jobs), submitted(jobs)
    for attempt in range(1, OWN_LIMIT + 1):
        no_wait(database, poison.id)
        job = claimed(work)
        assert (job.id, job.attempt) == (poison.id, attempt)
        state = work.release(job.id, job.attempt, failed=CRASHED)
        assert state is (JobState.FAILED if attempt == OWN_LIMIT else JobState.QUEUED)
    error = jobs.get(PROJECT, poison.id).error
    assert error is not None
    assert error["code"] == "crash_loop"
    assert error["detail"].startswith("3 attempts in a row, on one worker,")
    assert claimed(work).id == healthy.id


@pytest.mark.parametrize("ending", [Ending.KILLED, Ending.NOT_STARTED, Ending.ENVIRONMENT])
def test_what_comes_from_outside_counts_apart_and_ends_later(
    jobs: Jobs, crash: Callable[..., Job], ending: Ending
) -> None:
    job = submitted(jobs)
    for _ in range(OUTSIDE_LIMIT - 1):
        crash(ending=ending)
    for _ in range(OWN_LIMIT - 1):
        crash()
    assert jobs.get(PROJECT, job.id).state is JobState.QUEUED
    crash(ending=ending, code="storage_full")
    now = jobs.get(PROJECT, job.id)
    assert now.state is JobState.FAILED
    assert now.error is not None
    assert now.error["code"] == "storage_full"


def test_a_failed_attempt_waits_by_the_databases_clock_and_others_go_first(
    jobs: Jobs, work: JobWork, database: Database, crash: Callable[..., Job]
) -> None:
    first = submitted(jobs)
    for number in range(4):
        with database.read() as session:
            before = session.scalars(select(db_now())).one()
        crash(ending=Ending.KILLED)
        with database.read() as session:
            now = session.scalars(select(db_now())).one()
        again_at = jobs.get(PROJECT, first.id).not_before
        assert again_at is not None
        assert before < again_at <= now + timedelta(seconds=2**number)
    assert claimable(database) == []
    second = submitted(jobs)
    assert claimable(database) == [second.id]
    assert claimed(work).id == second.id
    assert work.claim("worker", lease_s=LEASE_S) is None
    no_wait(database, first.id)
    assert claimable(database) == [first.id]
    again = claimed(work)
    assert (again.id, again.not_before) == (first.id, None)


def test_a_newer_checkpoint_is_progress_also_within_an_epoch(
    jobs: Jobs, work: JobWork, database: Database
) -> None:
    job = submitted(jobs)
    for step in range(1, 2 * OWN_LIMIT):
        no_wait(database, job.id)
        held = claimed(work)
        work.record_epoch(
            held.id,
            held.attempt,
            lease_s=LEASE_S,
            metrics={},
            progress={"epoch": 0, "fraction": 0.01 * step},
            checkpoint=Checkpoint(key=f"k{step}", sha256="d" * 64, epoch=0, step=step),
        )
        assert work.release(held.id, held.attempt, failed=CRASHED) is JobState.QUEUED
    assert jobs.get(PROJECT, job.id).not_before is not None
    told = "Progress so far: 5.0%. It is tried again in 1 s, from its last checkpoint;"
    assert told in str(jobs.events(PROJECT, job.id))


def test_the_events_say_where_the_next_attempt_begins(
    jobs: Jobs, work: JobWork, database: Database
) -> None:
    job = submitted(jobs)
    held = claimed(work)
    work.release(held.id, held.attempt, failed=CRASHED)
    no_wait(database, job.id)
    held = claimed(work)
    work.renew(held.id, held.attempt, lease_s=LEASE_S, progress={"epoch": 0, "fraction": 0.3})
    work.release(held.id, held.attempt, failed=CRASHED)
    events = jobs.events(PROJECT, job.id)
    texts = [event.data["text"] for event in events if event.event is EventKind.MESSAGE]
    assert texts[0].endswith(". It is tried again in 1 s.")
    assert texts[1].endswith("so far: 30.0%. It is tried again in 2 s, from the beginning.")


def test_a_checkpoint_at_an_old_position_is_no_progress(
    jobs: Jobs, work: JobWork, database: Database
) -> None:
    submitted(jobs)
    job = claimed(work)
    record(work, job, 5)
    states = [work.release(job.id, job.attempt, failed=CRASHED)]
    while states[-1] is JobState.QUEUED:
        no_wait(database, job.id)
        job = claimed(work)
        record(work, job, 5)
        states.append(work.release(job.id, job.attempt, failed=CRASHED))
    assert len(states) == OWN_LIMIT


def test_resuming_a_crash_loop_gives_it_three_attempts_more(
    jobs: Jobs, work: JobWork, crash: Callable[..., Job]
) -> None:
    job = submitted(jobs)
    for _ in range(OWN_LIMIT):
        crash()
    assert work.claim("w", lease_s=LEASE_S) is None
    jobs.resume(PROJECT, job.id)
    assert jobs.get(PROJECT, job.id).run_seconds == 0
    for _ in range(OWN_LIMIT):
        assert crash().id == job.id
    assert jobs.get(PROJECT, job.id).state is JobState.FAILED


def test_running_time_adds_up_over_attempts_until_the_end_of_the_lease(
    jobs: Jobs, work: JobWork, database: Database
) -> None:
    submitted(jobs)

    def ran(seconds: float, *, lease_s: float) -> None:
        with database.write() as session:
            session.execute(update(JobEventRow).values(created_at=db_now(-seconds)))
            session.execute(update(JobRow).values(lease_expires_at=db_now(lease_s - seconds)))

    job = claimed(work)
    ran(100, lease_s=1000)
    work.release(job.id, job.attempt)
    assert claimed(work).run_seconds == pytest.approx(100, abs=5)
    ran(1000, lease_s=50)  # silent since long ago
    assert claimed(work).run_seconds == pytest.approx(150, abs=5)
