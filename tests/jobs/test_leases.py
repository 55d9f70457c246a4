"""Jobs as workers see them, on both databases. Leases of no length stand for dead workers."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import StatementError

from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import ModelVersionRow
from models_store.errors import FencedError, NotFoundError
from models_store.job_states import EventKind, Job, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.registry import Registry
from tests.store.makers import (
    CRASHED,
    LEASE_S,
    PROJECT,
    a_checkpoint,
    a_version,
    claimed,
    submitted,
)


def epoch(number: int) -> dict[str, float]:
    return {"epoch": number, "validation_log_likelihood": -1.5}


def record(work: JobWork, job: Job, number: int, *, lease_s: float = LEASE_S) -> list[str]:
    return work.record_epoch(
        job.id,
        job.attempt,
        lease_s=lease_s,
        metrics=epoch(number),
        progress={"epoch": number, "fraction": number / 10},
        checkpoint=a_checkpoint(job, number),
    )


def test_epochs_that_are_recorded_together_are_events_of_their_own(
    jobs: Jobs, work: JobWork
) -> None:
    submitted(jobs)
    job = claimed(work)
    record(work, job, 1)
    work.record_epoch(
        job.id,
        job.attempt,
        lease_s=LEASE_S,
        metrics={},
        progress={},
        earlier=[epoch(number) for number in (1, 2, 3)],
    )
    events = jobs.events(PROJECT, job.id, limit=99)
    told = [event.data["epoch"] for event in events if event.event is EventKind.EPOCH]
    assert told == [1, 2, 3]
    assert jobs.get(PROJECT, job.id).metrics == epoch(3)


EVERY_WRITE: dict[str, Callable[[JobWork, Job], object]] = {
    "renew": lambda work, job: work.renew(job.id, job.attempt, lease_s=LEASE_S, progress={"a": 1}),
    "record_epoch": lambda work, job: record(work, job, 1),
    "add_message": lambda work, job: work.add_message(job.id, job.attempt, "text"),
    "finish": lambda work, job: work.finish(
        job.id, job.attempt, metrics={}, version=a_version(job)
    ),
    "fail": lambda work, job: work.fail(job.id, job.attempt, code="diverged", detail="NaN"),
    "cancelled": lambda work, job: work.cancelled(job.id, job.attempt),
    "release": lambda work, job: work.release(job.id, job.attempt, failed=CRASHED),
}


def test_a_claim_sets_attempt_and_lease_by_the_databases_clock(
    jobs: Jobs, work: JobWork, database: Database
) -> None:
    submitted(jobs)
    job = claimed(work, lease_s=900)
    with database.read() as session:
        now = session.scalar(select(db_now()))
    assert now is not None
    assert job.lease_expires_at is not None
    assert timedelta(seconds=300) < job.lease_expires_at - now <= timedelta(seconds=900)
    assert (job.state, job.attempt) == (JobState.RUNNING, 1)
    assert job == jobs.get(PROJECT, job.id)
    assert jobs.events(PROJECT, job.id)[-1].data == {"state": "running", "attempt": 1}


def test_renewing_extends_the_lease_and_shows_progress(jobs: Jobs, work: JobWork) -> None:
    submitted(jobs)
    job = claimed(work, lease_s=0)
    work.renew(job.id, job.attempt, lease_s=LEASE_S, progress={"fraction": 0.5})
    work.renew(job.id, job.attempt, lease_s=LEASE_S)
    assert jobs.get(PROJECT, job.id).progress == {"fraction": 0.5}
    assert work.claim("other", lease_s=LEASE_S) is None


def test_an_expired_lease_is_claimed_first_and_keeps_its_checkpoints(
    jobs: Jobs, work: JobWork
) -> None:
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


def test_a_zombies_writes_are_refused_and_change_nothing(
    jobs: Jobs, work: JobWork, registry: Registry
) -> None:
    submitted(jobs)
    zombie = claimed(work, lease_s=0)
    owner = claimed(work)
    before = jobs.events(PROJECT, owner.id)
    for write in EVERY_WRITE.values():
        with pytest.raises(FencedError, match=f"Attempt 1 of job {zombie.id}"):
            write(work, zombie)
    assert jobs.get(PROJECT, owner.id) == owner
    assert jobs.events(PROJECT, owner.id) == before
    with pytest.raises(NotFoundError):
        registry.model(PROJECT, owner.model_name)


def test_a_number_that_is_not_finite_is_refused_on_both_databases(
    jobs: Jobs, work: JobWork
) -> None:
    submitted(jobs)
    job = claimed(work)
    with pytest.raises((ValueError, StatementError), match="JSON"):
        work.record_epoch(
            job.id, job.attempt, lease_s=1, metrics={"epoch": 1, "x": float("nan")}, progress={}
        )
    assert jobs.get(PROJECT, job.id).metrics is None


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
    submitted(jobs)
    first = claimed(work)
    for number in (1, 2, 3):
        record(work, first, number)
    work.release(first.id, first.attempt)
    second = claimed(work)
    for number in (2, 3, 4):
        record(work, second, number)
    told = [e.data["epoch"] for e in jobs.events(PROJECT, first.id) if e.event is EventKind.EPOCH]
    assert told == [1, 2, 3, 4]


def test_a_checkpoint_before_the_first_epoch_is_named_without_an_event(
    jobs: Jobs, work: JobWork
) -> None:
    submitted(jobs)
    job = claimed(work)
    work.record_epoch(
        job.id,
        job.attempt,
        lease_s=LEASE_S,
        metrics={},
        progress={"fraction": 0.0},
        checkpoint=a_checkpoint(job, 0),
    )
    now = jobs.get(PROJECT, job.id)
    assert (now.metrics, now.checkpoints) == (None, [a_checkpoint(job, 0)])
    assert len(jobs.events(PROJECT, job.id)) == 2


def test_events_have_no_gaps_over_a_long_life(jobs: Jobs, work: JobWork) -> None:
    job = submitted(jobs)
    for attempt in range(4):
        job = claimed(work, lease_s=0)
        record(work, job, attempt + 1, lease_s=0)
        work.add_message(job.id, job.attempt, "still here")
    jobs.cancel(PROJECT, job.id)
    assert work.claim("w", lease_s=LEASE_S) is None
    jobs.resume(PROJECT, job.id)
    job = claimed(work)
    work.finish(job.id, job.attempt, metrics=epoch(4), version=a_version(job))
    events = jobs.events(PROJECT, job.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.event for event in events].count(EventKind.END) == 2
    assert events[-1].data == {"state": "succeeded"}
    assert [event.created_at for event in events] == sorted(event.created_at for event in events)


def test_finishing_registers_the_version_and_ends_the_job(
    jobs: Jobs, work: JobWork, registry: Registry
) -> None:
    submitted(jobs)
    job = claimed(work)
    record(work, job, 1)
    new = a_version(job)
    assert work.finish(job.id, job.attempt, metrics=epoch(1), version=new) == 1
    version = registry.version(PROJECT, "shuttle", 1)
    assert (version.job_id, version.checkpoint_key, version.seed) == (
        job.id,
        new.checkpoint_key,
        2**40,
    )
    now = jobs.get(PROJECT, job.id)
    assert (now.state, now.model_version, now.metrics) == (JobState.SUCCEEDED, 1, epoch(1))
    assert (now.checkpoints, now.lease_expires_at) == ([], None)
    assert now.finished_at is not None
    assert [event.event for event in jobs.events(PROJECT, job.id)][-2:] == ["state", "end"]


def test_a_finish_that_breaks_leaves_neither_state_nor_version(
    jobs: Jobs, work: JobWork, registry: Registry, database: Database
) -> None:
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


def test_a_job_that_fails_after_its_cancel_was_answered_is_cancelled(
    jobs: Jobs, work: JobWork
) -> None:
    submitted(jobs)
    job = claimed(work)
    jobs.cancel(PROJECT, job.id)
    work.fail(job.id, job.attempt, code="diverged", detail="The likelihood is not finite.")
    ended = jobs.get(PROJECT, job.id)
    assert (ended.state, ended.error) == (JobState.CANCELLED, None)
    told = [event.data.get("text") for event in jobs.events(PROJECT, job.id)]
    assert "The likelihood is not finite." in told, "why it would have failed"
