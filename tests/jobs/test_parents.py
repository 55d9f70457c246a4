"""Jobs whose work their children do: steps, claims, cancelling, resuming, deletion, storage."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import update

from models_store.computed import Usage
from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import JobRow
from models_store.errors import (
    CancelledInsteadError,
    ConflictError,
    LimitError,
    NotFoundError,
)
from models_store.job_states import EventKind, Job, JobRole, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.parents import MOST_OPEN
from models_store.jobs.retention import JobRetention
from models_store.plans.search import SCORE
from models_store.quotas import stored_bytes
from models_store.registry import Registry
from tests.jobs.searches import a_search
from tests.store.makers import (
    LEASE_S,
    PROJECT,
    a_checkpoint,
    a_job,
    a_version,
    claimed,
    no_wait,
    submitted,
)


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def work(database: Database) -> JobWork:
    return JobWork(database)


def a_parent(jobs: Jobs, *, trials: int = 3, **changes: Any) -> Job:
    request = a_search(trials=trials, **changes)
    return submitted(jobs, role=JobRole.PARENT, request=request)


def ended(work: JobWork, job: Job, score: float) -> None:
    metrics = {SCORE: score, "epoch": 5, "seconds": 2.0}
    work.finish(job.id, job.attempt, metrics=metrics, product=vars(a_version(job, metrics=metrics)))


def children_of(jobs: Jobs, parent: Job) -> list[Any]:
    return jobs.list(PROJECT, limit=100, parent_id=parent.id).items[::-1]


def storage(database: Database) -> int:
    with database.read() as session:
        return stored_bytes(session, PROJECT)


def test_a_search_trains_all_then_the_best_and_makes_one_version(
    database: Database, jobs: Jobs, work: JobWork
) -> None:
    parent = a_parent(jobs)
    first = [claimed(work) for _ in range(3)]
    assert all(job.parent_id == parent.id and job.role is JobRole.CHILD for job in first)
    assert work.claim("w2", lease_s=LEASE_S) is None
    for job, score in zip(first, (1.0, 3.0, 2.0), strict=True):
        ended(work, job, score)
    best = claimed(work)
    assert best.request["optimisation"]["max_epochs"] == 40
    assert first[0].request["optimisation"]["max_epochs"] == 14
    assert storage(database) == 3 * a_version(best).checkpoint_bytes
    ended(work, best, 4.0)
    assert work.claim("w1", lease_s=LEASE_S) is None
    done = jobs.get(PROJECT, parent.id)
    assert (done.state, done.model_version) == (JobState.SUCCEEDED, 1)
    version = Registry(database).version(PROJECT, "shuttle", 1)
    assert version.job_id == parent.id
    assert version.checkpoint_key == a_version(best).checkpoint_key
    assert done.metrics is not None
    assert [row["state"] for row in done.metrics["trials"]] == ["succeeded"] * 4
    assert done.metrics["seconds"] == 8.0
    told = [event for event in jobs.events(PROJECT, parent.id) if event.event is EventKind.CHILD]
    assert [event.data["number"] for event in told] == [0, 1, 2, 1]
    assert storage(database) == 4 * a_version(best).checkpoint_bytes, "until they are forgotten"


def test_children_do_not_fill_the_queue(jobs: Jobs, work: JobWork, database: Database) -> None:
    a_parent(jobs)
    claimed(work)
    jobs.submit(a_job(), max_queued=1)
    usage = Usage(database).of_project(PROJECT)
    assert (usage.waiting, usage.jobs) == (1, {"queued": 3, "running": 2})
    with pytest.raises(LimitError):
        jobs.submit(a_job(), max_queued=1)


def test_a_parent_fails_when_all_children_do_and_tries_them_again_when_resumed(
    jobs: Jobs, work: JobWork
) -> None:
    parent = a_parent(jobs, trials=2)
    for child in (claimed(work), claimed(work)):
        work.fail(child.id, child.attempt, code="diverged", detail="It diverged.")
    assert work.claim("w1", lease_s=LEASE_S) is None
    failed = jobs.get(PROJECT, parent.id)
    assert failed.state is JobState.FAILED
    assert failed.error == {
        "code": "diverged",
        "detail": "All of its 2 children failed. The first one: It diverged.",
    }
    jobs.resume(PROJECT, parent.id)
    for child in (claimed(work), claimed(work)):
        assert child.attempt == 2
        ended(work, child, 1.0)
    ended(work, claimed(work), 1.0)
    assert work.claim("w1", lease_s=LEASE_S) is None
    assert jobs.get(PROJECT, parent.id).state is JobState.SUCCEEDED


def test_cancelling_a_parent_cancels_its_children(jobs: Jobs, work: JobWork) -> None:
    parent = a_parent(jobs)
    one, two = claimed(work), claimed(work)
    ended(work, one, 1.0)
    assert jobs.cancel(PROJECT, parent.id).state is JobState.RUNNING
    with pytest.raises(CancelledInsteadError):
        ended(work, two, 1.0)
    states = Counter(child.state for child in children_of(jobs, parent))
    assert states == {JobState.SUCCEEDED: 1, JobState.CANCELLED: 2}
    assert work.claim("w1", lease_s=LEASE_S) is None
    assert jobs.get(PROJECT, parent.id).state is JobState.CANCELLED
    jobs.cancel(PROJECT, parent.id)


def test_a_parent_whose_children_wait_is_cancelled_at_once_and_goes_on_where_it_was(
    jobs: Jobs, work: JobWork
) -> None:
    parent = a_parent(jobs)
    first = claimed(work)
    work.record_epoch(
        first.id,
        first.attempt,
        lease_s=LEASE_S,
        metrics={"epoch": 1},
        progress={},
        checkpoint=a_checkpoint(first, 1),
    )
    work.release(first.id, first.attempt)
    assert jobs.cancel(PROJECT, parent.id).state is JobState.CANCELLED
    assert work.claim("w1", lease_s=LEASE_S) is None
    jobs.resume(PROJECT, parent.id)
    again = claimed(work)
    assert (again.id, again.checkpoints) == (first.id, [a_checkpoint(first, 1)])
    assert jobs.get(PROJECT, parent.id).state is JobState.RUNNING


def test_a_child_is_resumed_and_deleted_with_its_parent_alone(jobs: Jobs, work: JobWork) -> None:
    parent = a_parent(jobs)
    child = claimed(work)
    work.fail(child.id, child.attempt, code="diverged", detail=None)
    with pytest.raises(ConflictError, match=parent.id):
        jobs.resume(PROJECT, child.id)
    with pytest.raises(ConflictError, match=parent.id):
        jobs.delete(PROJECT, child.id)
    jobs.cancel(PROJECT, parent.id)
    deleted = jobs.delete(PROJECT, parent.id)
    assert len(deleted) == 4
    assert deleted[-1] == parent.id
    with pytest.raises(NotFoundError):
        jobs.get(PROJECT, child.id)


def test_a_plan_that_cannot_be_carried_out_fails_and_no_other_job(
    jobs: Jobs, work: JobWork, caplog: pytest.LogCaptureFixture
) -> None:
    broken = submitted(jobs, role=JobRole.PARENT, request={"no": "plan"})
    other = submitted(jobs)
    assert claimed(work).id == other.id
    assert jobs.get(PROJECT, broken.id).state is JobState.FAILED
    assert "cannot be worked out" in caplog.text


def test_files_of_children_go_when_nothing_needs_them(
    jobs: Jobs, work: JobWork, retention: JobRetention
) -> None:
    parent = a_parent(jobs, trials=2, stages=((2, 1.0),))
    one, two = claimed(work), claimed(work)
    ended(work, one, 1.0)
    assert retention.forget_children(keep_s=0, limit=10) == []
    ended(work, two, 2.0)
    work.claim("w1", lease_s=LEASE_S)
    # That of the second is the version's.
    assert retention.forget_children(keep_s=3600, limit=10) == [(one.id, 1)]
    assert retention.forget_children(keep_s=3600, limit=10) == []
    assert len(children_of(jobs, parent)) == 2


def test_children_of_a_parent_that_nobody_resumed_are_forgotten_at_once(
    database: Database, jobs: Jobs, work: JobWork, retention: JobRetention
) -> None:
    parent = a_parent(jobs, trials=2)
    ended(work, claimed(work), 1.0)
    jobs.cancel(PROJECT, parent.id)
    old = [child.id for child in children_of(jobs, parent)]
    assert retention.forget_children(keep_s=3600, limit=10) == []
    with database.write() as session:
        session.execute(
            update(JobRow).where(JobRow.id == parent.id).values(finished_at=db_now(-7200))
        )
    forgotten = retention.forget_children(keep_s=3600, limit=10)
    assert [job_id for job_id, _ in forgotten] == old
    assert children_of(jobs, parent) == []
    assert retention.forget_children(keep_s=3600, limit=10) == []
    jobs.resume(PROJECT, parent.id)
    assert claimed(work).id not in old, "it begins again"


def a_parent_whose_step_fails(jobs: Jobs, work: JobWork) -> tuple[Job, Job, dict[str, Any]]:
    """A parent, its child, and the product of that, of which no version can be made."""
    broken = a_parent(jobs, trials=1, stages=((1, 1.0),))
    child = claimed(work)
    unstorable = vars(a_version(child, seed=2**70))  # beyond the integers of both databases
    work.finish(child.id, 1, metrics={SCORE: 1.0, "epoch": 5}, product=unstorable)
    assert jobs.get(PROJECT, child.id).state is JobState.SUCCEEDED, "its end is kept"
    return broken, child, unstorable


def test_a_step_that_fails_is_tried_again_and_keeps_nobody_waiting(
    database: Database, jobs: Jobs, work: JobWork, caplog: pytest.LogCaptureFixture
) -> None:
    broken, child, unstorable = a_parent_whose_step_fails(jobs, work)
    alone = submitted(jobs)
    assert claimed(work).id == alone.id
    assert work.claim("worker", lease_s=LEASE_S) is None
    assert f"the next step of {broken.id} failed" in caplog.text
    waits = jobs.get(PROJECT, broken.id)
    assert waits.state is JobState.RUNNING
    assert waits.not_before is not None
    with database.write() as session:
        product = unstorable | {"seed": 1}
        session.execute(update(JobRow).where(JobRow.id == child.id).values(product=product))
    no_wait(database, broken.id)
    assert work.claim("worker", lease_s=LEASE_S) is None
    done = jobs.get(PROJECT, broken.id)
    assert (done.state, done.not_before) == (JobState.SUCCEEDED, None)


def test_a_parent_whose_step_fails_each_time_fails(
    database: Database, jobs: Jobs, work: JobWork
) -> None:
    broken, _, _ = a_parent_whose_step_fails(jobs, work)
    looks = 0
    while (found := jobs.get(PROJECT, broken.id)).state is JobState.RUNNING:
        assert work.claim("worker", lease_s=LEASE_S) is None
        no_wait(database, broken.id)
        looks += 1
    assert looks == 5
    assert found.error is not None
    assert (found.state, found.error["code"]) == (JobState.FAILED, "internal")
    jobs.resume(PROJECT, broken.id)
    assert work.claim("worker", lease_s=LEASE_S) is None
    assert jobs.get(PROJECT, broken.id).state is not JobState.FAILED, "it has as many tries again"


def test_children_keep_the_place_of_their_parent_in_the_queue(jobs: Jobs, work: JobWork) -> None:
    parent = a_parent(jobs, trials=2, stages=((2, 1.0),))
    later = submitted(jobs)
    children = [claimed(work) for _ in range(2)]
    assert {child.parent_id for child in children} == {parent.id}
    assert claimed(work).id == later.id


def test_a_project_has_so_many_open_parents(jobs: Jobs) -> None:
    parents = [a_parent(jobs, trials=1) for _ in range(MOST_OPEN)]
    with pytest.raises(LimitError, match="have not ended"):
        a_parent(jobs, trials=1)
    jobs.cancel(PROJECT, parents[0].id)
    a_parent(jobs, trials=1)
    with pytest.raises(LimitError):
        jobs.resume(PROJECT, parents[0].id)
