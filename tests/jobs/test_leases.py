"""Jobs as workers see them, on both databases. Leases of no length stand for dead workers."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import StatementError

from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import JobEventRow, JobRow, ModelVersionRow
from models_store.errors import FencedError
from models_store.job_states import Checkpoint, EventKind, Job, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.retries import OUTSIDE_LIMIT, OWN_LIMIT, Ending
from models_store.registry import Registry
from tests.store.makers import (
    CRASHED,
    LEASE_S,
    PROJECT,
    a_checkpoint,
    a_version,
    an_end,
    claimable,
    claimed,
    no_wait,
    record,
    submitted,
)


def test_epochs_that_are_recorded_together_are_events_of_their_own(jobs, work):
    submitted(jobs)
    job = claimed(work)
    record(work, job, 1)
    earlier = [{"epoch": number} for number in (1, 2, 3)]
    record(work, job, 3, metrics={}, earlier=earlier)
    events = jobs.events(PROJECT, job.id, limit=99)
    told = [event.data["epoch"] for event in events if event.event is EventKind.EPOCH]
    assert told == [1, 2, 3]
    assert jobs.get(PROJECT, job.id).metrics == {"epoch": 3}


def test_a_claim_sets_attempt_and_lease_by_the_databases_clock(jobs, work, database):
    submitted(jobs)
    job = claimed(work, lease_s=900)
    with database.read() as session:
        now = session.scalar(select(db_now()))
    assert now is not None
    assert job.lease_expires_at is not None
    assert timedelta(seconds=300) < job.lease_expires_at - now <= timedelta(seconds=900)
    assert (job.state, job.attempt) == (JobState.RUNNING, 1)
    assert job.started_at is not None
    assert job == jobs.get(PROJECT, job.id)
    assert jobs.events(PROJECT, job.id)[-1].data == {"state": "running", "attempt": 1}


def test_renewing_extends_the_lease_and_shows_progress(jobs: Jobs, work: JobWork) -> None:
    submitted(jobs)
    job = claimed(work, lease_s=0)
    work.renew(job.id, job.attempt, lease_s=LEASE_S, progress={"fraction": 0.5})
    work.renew(job.id, job.attempt, lease_s=LEASE_S)
    assert jobs.get(PROJECT, job.id).progress == {"fraction": 0.5}
    assert work.claim("other", lease_s=LEASE_S) is None


def test_an_expired_lease_is_claimed_first_and_keeps_its_checkpoints(jobs, work):
    submitted(jobs)
    first = claimed(work)
    submitted(jobs)
    record(work, first, 1, lease_s=0)
    second = claimed(work)
    assert (second.id, second.attempt) == (first.id, 2)
    assert second.checkpoints == [a_checkpoint(first, 1)]
    assert second.started_at == first.started_at
    [message, *states] = [event.data for event in jobs.events(PROJECT, first.id, after=3)]
    assert message["text"] == (
        "Attempt 1 on worker worker: the worker went silent and its lease ran out."
        " Progress so far: 10.0%. It is tried again at once, from its last checkpoint; what came"
        " after that is done again."
    )
    assert states == [{"state": "queued", "attempt": 1}, {"state": "running", "attempt": 2}]


def test_a_worker_that_speaks_before_its_attempt_is_ended_keeps_it(jobs, work, database_url):
    both = [submitted(jobs) for _ in range(2)]
    slow, silent = claimed(work), claimed(work)
    work.renew(slow.id, slow.attempt, lease_s=-9)
    work.renew(silent.id, silent.attempt, lease_s=-5)

    class Late(Database):
        def transact(self, *args: Any, **kwargs: Any) -> Any:
            work.renew(slow.id, slow.attempt, lease_s=LEASE_S)
            return super().transact(*args, **kwargs)

    late = Late(database_url)
    assert JobWork(late).end_silent(), "it was found silent"
    late.dispose()
    assert [jobs.get(PROJECT, job.id).state for job in both] == [JobState.RUNNING] * 2


def test_a_zombies_writes_are_refused_and_change_nothing(jobs, work, registry):
    submitted(jobs)
    zombie, owner = claimed(work, lease_s=0), claimed(work)
    before = jobs.events(PROJECT, owner.id)
    at = zombie.id, zombie.attempt
    for write in (
        partial(work.renew, *at, lease_s=LEASE_S, progress={"a": 1}),
        partial(record, work, zombie, 1),
        partial(work.add_message, *at, "text"),
        partial(work.finish, *at, metrics={}, version=a_version(zombie)),
        partial(work.fail, *at, code="diverged", detail="NaN"),
        partial(work.cancelled, *at),
        partial(work.release, *at, failed=CRASHED),
    ):
        with pytest.raises(FencedError, match=f"Attempt 1 of job {zombie.id}"):
            write()
    assert (jobs.get(PROJECT, owner.id), jobs.events(PROJECT, owner.id)) == (owner, before)
    assert registry.models(PROJECT, limit=1).items == []


def test_the_newest_two_checkpoints_stay_named(jobs: Jobs, work: JobWork) -> None:
    submitted(jobs)
    job = claimed(work)
    dropped = [record(work, job, number) for number in (1, 2, 3, 4)]
    assert dropped == [[], [], [a_checkpoint(job, 1)["key"]], [a_checkpoint(job, 2)["key"]]]
    assert [saved["epoch"] for saved in jobs.get(PROJECT, job.id).checkpoints] == [4, 3]
    # The answer was lost, the worker says it again.
    assert record(work, job, 4) == []
    assert [saved["epoch"] for saved in jobs.get(PROJECT, job.id).checkpoints] == [4, 3]


def test_a_resumed_attempt_repeats_no_epoch_event(jobs: Jobs, work: JobWork) -> None:
    job = submitted(jobs)
    for numbers in ((1, 2, 3), (2, 3, 4)):
        job = claimed(work)
        for number in numbers:
            record(work, job, number)
        work.release(job.id, job.attempt)
    told = [e.data["epoch"] for e in jobs.events(PROJECT, job.id) if e.event is EventKind.EPOCH]
    assert told == [1, 2, 3, 4]


def test_a_checkpoint_before_the_first_epoch_is_named_without_an_event(jobs, work):
    submitted(jobs)
    job = claimed(work)
    record(work, job, 0, metrics={})
    now = jobs.get(PROJECT, job.id)
    assert (now.metrics, now.checkpoints) == (None, [a_checkpoint(job, 0)])
    assert len(jobs.events(PROJECT, job.id)) == 2


def test_finishing_registers_the_version_and_ends_the_job(jobs, work, registry):
    submitted(jobs)
    job = claimed(work)
    record(work, job, 1)
    new = a_version(job)
    assert work.finish(job.id, job.attempt, metrics={"epoch": 1}, version=new) == 1
    made = registry.version(PROJECT, "shuttle", 1)
    assert (made.job_id, made.checkpoint_key, made.seed) == (job.id, new.checkpoint_key, 2**40)
    now = jobs.get(PROJECT, job.id)
    assert (now.state, now.model_version, now.metrics) == (JobState.SUCCEEDED, 1, {"epoch": 1})
    assert (now.checkpoints, now.lease_expires_at) == ([], None)
    assert now.finished_at is not None
    assert [event.event for event in jobs.events(PROJECT, job.id)][-2:] == ["state", "end"]


def test_a_finish_that_breaks_leaves_neither_state_nor_version(jobs, work, registry, database):
    submitted(jobs)
    job = claimed(work)
    with pytest.raises((ValueError, StatementError)):
        work.finish(job.id, job.attempt, metrics={"x": float("inf")}, version=a_version(job))
    assert jobs.get(PROJECT, job.id) == job
    with database.read() as session:
        assert session.scalars(select(ModelVersionRow)).all() == []
    # The next try counts from 1: no number was used up.
    assert work.finish(job.id, job.attempt, metrics={}, version=a_version(job)) == 1
    assert registry.model(PROJECT, "shuttle").latest_version == 1


def test_failing_keeps_the_reason(jobs: Jobs, work: JobWork, registry: Registry) -> None:
    submitted(jobs)
    job = claimed(work)
    record(work, job, 1)
    work.fail(job.id, job.attempt, code="diverged", detail="NaN in epoch 2\0")
    now = jobs.get(PROJECT, job.id)
    assert now.state is JobState.FAILED
    assert now.error == {"code": "diverged", "detail": "NaN in epoch 2\N{REPLACEMENT CHARACTER}"}
    assert now.checkpoints == [a_checkpoint(job, 1)]
    assert registry.models(PROJECT, limit=10).items == []


def test_a_job_that_fails_after_its_cancel_was_answered_is_cancelled(jobs, work):
    submitted(jobs)
    job = claimed(work)
    jobs.cancel(PROJECT, job.id)
    work.fail(job.id, job.attempt, code="diverged", detail="The likelihood is not finite.")
    ended = jobs.get(PROJECT, job.id)
    assert (ended.state, ended.error) == (JobState.CANCELLED, None)
    told = [event.data.get("text") for event in jobs.events(PROJECT, job.id)]
    assert "The likelihood is not finite." in told, "why it would have failed"


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


def test_three_crashes_without_progress_fail_the_job(jobs, work, database):
    poison, healthy = submitted(jobs), submitted(jobs)
    for attempt in range(1, OWN_LIMIT + 1):
        no_wait(database, poison.id)
        job = claimed(work)
        assert (job.id, job.attempt) == (poison.id, attempt)
        record(work, job, 5)  # the second at an old position, which is no progress
        state = work.release(job.id, job.attempt, failed=CRASHED)
        assert state is (JobState.FAILED if attempt == OWN_LIMIT else JobState.QUEUED)
    error = jobs.get(PROJECT, poison.id).error
    assert error == {
        "code": "crash_loop",
        "detail": "3 attempts in a row, on one worker, ended without any progress (crashed); the job's events tell each.",
    }
    assert claimed(work).id == healthy.id


@pytest.mark.parametrize("ending", [Ending.KILLED, Ending.NOT_STARTED, Ending.ENVIRONMENT])
def test_what_comes_from_outside_counts_apart_and_ends_later(jobs, crash, ending):
    job = submitted(jobs)
    for _ in range(OUTSIDE_LIMIT - 1):
        crash(ending=ending)
    for _ in range(OWN_LIMIT - 1):
        crash()
    assert jobs.get(PROJECT, job.id).state is JobState.QUEUED
    crash("another", ending=ending, code="storage_full")
    now = jobs.get(PROJECT, job.id)
    assert now.state is JobState.FAILED
    assert now.error is not None
    assert now.error["code"] == "storage_full"
    kind = ending.replace("_", " ")
    assert f"on 2 workers, ended without any progress ({kind});" in now.error["detail"]


def test_a_failed_attempt_waits_by_the_databases_clock_and_others_go_first(
    jobs, work, database, crash
):
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


def test_a_newer_checkpoint_is_progress_also_within_an_epoch(jobs, work, database):
    job = submitted(jobs)
    for step in range(1, 2 * OWN_LIMIT):
        no_wait(database, job.id)
        held = claimed(work)
        at = Checkpoint(key=f"k{step}", sha256="d" * 64, epoch=0, step=step)
        record(work, held, 0, metrics={}, progress={"fraction": 0.01 * step}, checkpoint=at)
        assert work.release(held.id, held.attempt, failed=CRASHED) is JobState.QUEUED
    assert jobs.get(PROJECT, job.id).not_before is not None
    told = "Progress so far: 5.0%. It is tried again in 1 s, from its last checkpoint;"
    assert told in str(jobs.events(PROJECT, job.id))


def test_the_events_say_where_the_next_attempt_begins(jobs, work, database):
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


def test_resuming_a_crash_loop_gives_it_three_attempts_more(jobs, crash):
    job = submitted(jobs)
    for _ in range(2):
        for attempt in range(1, OWN_LIMIT + 1):
            assert crash().id == job.id
            assert jobs.get(PROJECT, job.id).final == (attempt == OWN_LIMIT)
        assert jobs.resume(PROJECT, job.id).run_seconds == 0


def test_running_time_adds_up_over_attempts_until_the_end_of_the_lease(jobs, work, database):
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
