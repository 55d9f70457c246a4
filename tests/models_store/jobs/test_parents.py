"""Jobs whose work their children do: steps, claims, cancelling, resuming, deletion, storage."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from flows import MixedColumn, MixedSpec
from models_store.computed import Usage
from models_store.database.clock import db_now
from models_store.database.database import Database
from models_store.database.schema import JobRow
from models_store.database.usage import stored_bytes
from models_store.errors import (
    CancelledInsteadError,
    DatabaseUnavailableError,
    JobInUseError,
    JobNotResumableError,
    LimitError,
    NotFoundError,
    StorageFullError,
)
from models_store.job_states import Accelerator, EventKind, Job, JobRole, JobState
from models_store.jobs.jobs import Jobs
from models_store.jobs.leases import JobWork
from models_store.jobs.live_workers import Workers
from models_store.jobs.parents import steps
from models_store.jobs.retention import ForgottenChild, JobRetention
from models_store.jobs.retries import OUTSIDE_LIMIT, Failure, wait_s
from models_store.plans.search import SCORE
from models_store.registry import Registry
from tests.models_store.makers import (
    LEASE_S,
    PROJECT,
    a_checkpoint,
    a_job,
    a_version,
    claimed,
    no_wait,
    submitted,
)
from tests.models_store.searches import a_search

RESERVED = 10_000_000


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def work(database: Database) -> JobWork:
    return JobWork(database)


def a_parent(jobs: Jobs, *, trials: int = 3, **changes: Any) -> Job:
    request = a_search(trials=trials, **changes)
    return submitted(jobs, role=JobRole.PARENT, request=request, reserved_bytes=RESERVED)


def ended(work: JobWork, job: Job, score: float) -> None:
    metrics = {SCORE: score, "epoch": 5, "seconds": 2.0}
    work.finish_child(
        job.id, job.attempt, metrics=metrics, product=vars(a_version(job, metrics=metrics))
    )


def children_of(jobs: Jobs, parent: Job) -> list[Any]:
    return jobs.list(PROJECT, limit=100, parent_id=parent.id).items[::-1]


def storage(database: Database) -> int:
    with database.read() as session:
        return stored_bytes(session, PROJECT)


def test_a_search_trains_all_then_the_best_and_makes_one_version(
    database: Database, jobs: Jobs, work: JobWork
) -> None:
    parent = a_parent(jobs)
    before = storage(database)
    first = [claimed(work) for _ in range(3)]
    assert all(job.parent_id == parent.id and job.role is JobRole.CHILD for job in first)
    assert work.claim("w2", lease_s=LEASE_S) is None
    for job, score in zip(first, (1.0, 3.0, 2.0), strict=True):
        ended(work, job, score)
    best = claimed(work)
    assert best.request["optimisation"]["max_epochs"] == 40
    assert first[0].request["optimisation"]["max_epochs"] == 14
    assert storage(database) == before, "children are stored on the account of their parent"
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
    assert storage(database) < before


def test_children_are_hidden_from_the_list_unless_asked_for(jobs: Jobs, work: JobWork) -> None:
    parent = a_parent(jobs)
    child = claimed(work)
    assert [job.id for job in jobs.list(PROJECT, limit=10).items] == [parent.id]
    assert child.id in [job.id for job in children_of(jobs, parent)]
    assert jobs.list("other", limit=10, parent_id=parent.id).items == []


def test_children_do_not_fill_the_queue(jobs: Jobs, work: JobWork, database: Database) -> None:
    a_parent(jobs)
    claimed(work)
    jobs.submit(a_job(), max_queued=1)
    usage = Usage(database).of_project(PROJECT)
    assert (usage.waiting, usage.jobs) == (1, {"queued": 3, "running": 2})
    with pytest.raises(LimitError):
        jobs.submit(a_job(), max_queued=1)


def test_failures_of_some_children_are_part_of_what_was_tried(jobs: Jobs, work: JobWork) -> None:
    parent = a_parent(jobs, stages=((3, 1.0),))
    one, two, three = (claimed(work) for _ in range(3))
    work.fail(one.id, one.attempt, code="diverged", detail="It diverged.")
    ended(work, two, -5.0)
    work.fail(three.id, three.attempt, code="oom", detail="No memory.")
    assert work.claim("w1", lease_s=LEASE_S) is None
    assert jobs.get(PROJECT, parent.id).state is JobState.SUCCEEDED


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
    database: Database, jobs: Jobs, work: JobWork
) -> None:
    parent = a_parent(jobs)
    reserved = storage(database)
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
    assert storage(database) < reserved
    assert work.claim("w1", lease_s=LEASE_S) is None
    jobs.resume(PROJECT, parent.id)
    assert storage(database) >= reserved
    again = claimed(work)
    assert (again.id, again.checkpoints) == (first.id, [a_checkpoint(first, 1)])
    assert jobs.get(PROJECT, parent.id).state is JobState.RUNNING


def test_a_child_is_resumed_and_deleted_with_its_parent_alone(jobs: Jobs, work: JobWork) -> None:
    parent = a_parent(jobs)
    child = claimed(work)
    work.fail(child.id, child.attempt, code="diverged", detail=None)
    with pytest.raises(JobNotResumableError, match=parent.id):
        jobs.resume(PROJECT, child.id)
    with pytest.raises(JobInUseError, match=parent.id):
        jobs.delete(PROJECT, child.id)
    jobs.cancel(PROJECT, parent.id)
    deleted = jobs.delete(PROJECT, parent.id)
    assert len(deleted) == 4
    assert deleted[-1] == parent.id
    with pytest.raises(NotFoundError):
        jobs.get(PROJECT, child.id)


def test_a_step_that_nobody_took_is_due_still(jobs: Jobs, work: JobWork) -> None:
    parent = a_parent(jobs)
    assert jobs.claimable(10) == [parent.id]
    children = [claimed(work) for _ in range(3)]
    assert jobs.claimable(10) == []
    ended(work, children[0], 1.0)
    assert jobs.claimable(10) == [parent.id]


def test_a_plan_that_cannot_be_carried_out_fails_and_no_other_job(
    jobs: Jobs, work: JobWork, caplog: pytest.LogCaptureFixture
) -> None:
    broken = submitted(jobs, role=JobRole.PARENT, request={"no": "plan"})
    other = submitted(jobs)
    assert claimed(work).id == other.id
    assert jobs.get(PROJECT, broken.id).state is JobState.FAILED
    assert "cannot be reported" in caplog.text


def test_projects_take_turns(jobs: Jobs, work: JobWork) -> None:
    a_parent(jobs, trials=8)
    claimed(work)
    other = jobs.submit(replace(a_job(), project="other")).job
    assert claimed(work).id == other.id
    assert claimed(work).project == PROJECT


def test_a_claim_starts_the_children_of_few_parents_and_projects_take_turns(
    jobs: Jobs, work: JobWork, database: Database
) -> None:
    parents = [a_parent(jobs, trials=64) for _ in range(3)]
    request = a_search(trials=2)
    theirs = replace(a_job(), project="other", role=JobRole.PARENT, request=request)
    assert claimed(work).project == PROJECT
    other = jobs.submit(theirs).job
    assert [len(children_of(jobs, parent)) for parent in parents] == [64, 0, 0]
    assert claimed(work).project == "other"
    assert [len(children_of(jobs, parent)) for parent in parents] == [64, 64, 0]
    of_it = select(JobRow.place).where(JobRow.parent_id == parents[0].id).order_by(JobRow.position)
    with database.read() as session:
        numbers = [place["number"] for place in session.scalars(of_it) if place is not None]
    assert numbers == list(range(64))
    assert jobs.get("other", other.id).state is JobState.RUNNING


def test_a_project_with_many_children_that_wait_starts_more_for_urgent_work_alone(
    jobs: Jobs, database: Database
) -> None:
    parents = [a_parent(jobs, trials=64) for _ in range(18)]
    for _ in parents:
        steps.take_steps(database)
    states = [jobs.get(PROJECT, parent.id).state for parent in parents]
    assert Counter(states) == {JobState.RUNNING: 16, JobState.QUEUED: 2}
    assert not {parent.id for parent in parents} & {*jobs.claimable(2000)}
    jobs.cancel(PROJECT, parents[-1].id)
    with pytest.raises(LimitError, match="children of other jobs"):
        jobs.resume(PROJECT, parents[-1].id, max_queued=100)
    few = {"role": JobRole.PARENT, "request": a_search(trials=2), "reserved_bytes": 1}
    urgent = submitted(jobs, priority=1, **few)
    elsewhere = submitted(jobs, accelerator=Accelerator.REQUIRED, **few)
    steps.take_steps(database)
    for one in (urgent, elsewhere):
        assert jobs.get(PROJECT, one.id).state is JobState.RUNNING
    assert jobs.get(PROJECT, parents[-2].id).state is JobState.QUEUED
    jobs.cancel(PROJECT, parents[0].id)
    jobs.resume(PROJECT, parents[-1].id, max_queued=100)
    steps.take_steps(database)
    assert jobs.get(PROJECT, parents[-2].id).state is JobState.RUNNING


def test_a_parent_that_others_keep_waiting_says_so(jobs: Jobs, database: Database) -> None:
    for _ in [a_parent(jobs, trials=64) for _ in range(16)]:
        steps.take_steps(database)
    few = {"role": JobRole.PARENT, "request": a_search(trials=2), "reserved_bytes": 1}
    held_back = submitted(jobs, **few)
    others = (
        submitted(jobs, priority=1, **few),
        submitted(jobs, accelerator=Accelerator.REQUIRED, **few),
    )

    def told(job: Job) -> list[str]:
        page = jobs.event_page(PROJECT, job.id, after=0, limit=10, max_bytes=2**20)
        return [one.data["text"] for one in page.events if one.event is EventKind.MESSAGE]

    (text,) = told(held_back)
    assert text.startswith("1,000 children of other jobs wait")
    assert [told(one) for one in others] == [[], []]
    steps.take_steps(database)
    assert jobs.get(PROJECT, held_back.id).state is JobState.QUEUED


def test_an_urgent_parent_is_resumed_while_many_children_of_others_wait(
    jobs: Jobs, database: Database
) -> None:
    others = [a_parent(jobs, trials=64) for _ in range(16)]
    few = {"role": JobRole.PARENT, "request": a_search(trials=2), "reserved_bytes": 1}
    usual, urgent, more = (submitted(jobs, priority=priority, **few) for priority in (0, 1, 1))
    for parent in (usual, urgent, more):
        jobs.cancel(PROJECT, parent.id)
    for _ in others:
        steps.take_steps(database)
    with pytest.raises(LimitError, match="children of other jobs"):
        jobs.resume(PROJECT, usual.id, max_queued=100)
    jobs.resume(PROJECT, urgent.id, max_queued=100)
    steps.take_steps(database)
    assert jobs.get(PROJECT, urgent.id).state is JobState.RUNNING
    with pytest.raises(LimitError, match="children of other jobs"):
        jobs.resume(PROJECT, more.id, max_queued=100)  # the children of an urgent one wait


def test_children_too_large_for_all_workers_keep_no_others_waiting(
    jobs: Jobs, database: Database
) -> None:
    Workers(database).beat("w1", unfit=None, accelerator=False, memory_bytes=8_000)
    large = [a_parent(jobs, trials=64) for _ in range(18)]
    with database.write() as session:
        session.execute(update(JobRow).values(memory_bytes=9_000))
    few = {"role": JobRole.PARENT, "request": a_search(trials=2), "reserved_bytes": 1}
    fitting, stopped = (submitted(jobs, memory_bytes=7_000, **few) for _ in range(2))
    jobs.cancel(PROJECT, stopped.id)
    for _ in large:
        steps.take_steps(database)
    states = Counter(jobs.get(PROJECT, parent.id).state for parent in large)
    assert states == {JobState.RUNNING: 16, JobState.QUEUED: 2}
    assert jobs.get(PROJECT, fitting.id).state is JobState.RUNNING
    jobs.resume(PROJECT, stopped.id, max_queued=100)


def test_a_resumed_parent_ends_while_many_children_of_others_wait(
    jobs: Jobs, work: JobWork, database: Database
) -> None:
    resumed = a_parent(jobs, trials=1, stages=((1, 1.0),))
    steps.take_steps(database)
    (child,) = children_of(jobs, resumed)
    jobs.cancel(PROJECT, resumed.id)
    others = [a_parent(jobs, trials=64) for _ in range(16)]
    for _ in others[1:]:
        steps.take_steps(database)
    jobs.resume(PROJECT, resumed.id, max_queued=100)
    with database.write() as session:  # as if those of others had been started since
        for one, later in (
            (resumed, {"not_before": db_now(60)}),
            (child, {"queued_at": db_now(-60)}),
        ):
            session.execute(update(JobRow).where(JobRow.id == one.id).values(later))
    steps.take_steps(database)
    running = claimed(work)
    assert running.id == child.id
    ended(work, running, 1.0)
    no_wait(database, resumed.id)
    assert jobs.claimable(1) == [resumed.id]
    steps.take_steps(database)
    assert jobs.get(PROJECT, resumed.id).state is JobState.SUCCEEDED


def test_the_steps_of_a_project_keep_none_of_another_waiting(
    jobs: Jobs, database: Database
) -> None:
    for _ in range(3):
        a_parent(jobs, trials=64)
    theirs = replace(a_job(), project="other", role=JobRole.PARENT, request=a_search(trials=2))
    other = jobs.submit(theirs).job
    steps.take_steps(database)
    assert jobs.get("other", other.id).state is JobState.RUNNING


def test_a_claim_starts_fewer_large_children(jobs: Jobs, work: JobWork) -> None:
    wide = MixedSpec(columns=[MixedColumn(spikes=[float(n) for n in range(300_000)])])
    parents = [a_parent(jobs, trials=2, mixed=wide) for _ in range(2)]
    claimed(work)
    assert [len(children_of(jobs, parent)) for parent in parents] == [2, 0]


def test_nothing_but_a_claim_reads_the_requests_of_children(
    jobs: Jobs, work: JobWork, database: Database
) -> None:
    parent = a_parent(jobs, trials=3)
    ended(work, claimed(work), 1.0)
    with database.write() as session:
        no_request: Any = {"unreadable": True}
        children = update(JobRow).where(JobRow.parent_id == parent.id)
        session.execute(children.values(request=no_request))
        if session.get_bind().dialect.name == "sqlite":
            session.execute(text("UPDATE job SET request = '{' WHERE parent_id IS NOT NULL"))
    assert jobs.cancel(PROJECT, parent.id).state is JobState.CANCELLED
    jobs.resume(PROJECT, parent.id)
    jobs.cancel(PROJECT, parent.id)
    jobs.delete(PROJECT, parent.id)
    assert children_of(jobs, parent) == []


def test_files_of_children_go_when_nothing_needs_them(
    jobs: Jobs, work: JobWork, retention: JobRetention
) -> None:
    parent = a_parent(jobs, trials=2, stages=((2, 1.0),))
    one, two = claimed(work), claimed(work)
    ended(work, one, 1.0)
    assert retention.needless_children(keep_s=0, limit=10) == []
    ended(work, two, 2.0)
    work.claim("w1", lease_s=LEASE_S)
    assert retention.needless_children(keep_s=3600, limit=10) == [one.id]
    forgotten = ForgottenChild(one.id, 1, a_version(two).checkpoint_key)
    assert retention.forget_child(one.id, keep_s=3600) == [forgotten]
    assert retention.needless_children(keep_s=3600, limit=10) == []
    assert len(children_of(jobs, parent)) == 2


def test_children_of_a_parent_that_nobody_resumed_are_forgotten_at_once(
    database: Database, jobs: Jobs, work: JobWork, retention: JobRetention
) -> None:
    parent = a_parent(jobs, trials=2)
    ended(work, claimed(work), 1.0)
    jobs.cancel(PROJECT, parent.id)
    assert retention.needless_children(keep_s=3600, limit=10) == []
    with database.write() as session:
        session.execute(
            update(JobRow).where(JobRow.id == parent.id).values(finished_at=db_now(-7200))
        )
    old = retention.needless_children(keep_s=3600, limit=10)
    assert len(old) == 2
    forgotten = retention.forget_child(old[-1], keep_s=3600)
    assert {(child.id, child.kept_key) for child in forgotten} == {(child, None) for child in old}
    assert children_of(jobs, parent) == []
    assert retention.forget_child(old[0], keep_s=3600) == []
    jobs.resume(PROJECT, parent.id)
    assert claimed(work).id not in old, "it begins again"


def test_children_with_many_events_leave_their_parent_at_once(
    jobs: Jobs, work: JobWork, retention: JobRetention, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = a_parent(jobs, trials=3)
    ended(work, claimed(work), 1.0)
    jobs.cancel(PROJECT, parent.id)
    children = children_of(jobs, parent)
    monkeypatch.setattr("models_store.rows.job_deletions.EVENTS_AT_ONCE", 8)
    old = retention.needless_children(keep_s=0, limit=10)
    forgotten = retention.forget_child(old[0], keep_s=0)
    assert {child.id for child in forgotten} == {child.id for child in children}
    assert children_of(jobs, parent) == []
    assert retention.needless_children(keep_s=0, limit=10) == []
    jobs.resume(PROJECT, parent.id)
    assert claimed(work).id not in old, "it begins again"
    while retention.delete_some_events():
        assert len(children_of(jobs, parent)) == 3
    jobs.cancel(PROJECT, parent.id)


def test_a_step_that_meets_an_error_is_put_off_and_keeps_nobody_waiting(
    database: Database,
    jobs: Jobs,
    work: JobWork,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    def noted(failures: list[Failure]) -> float:
        pauses.append(wait_s(failures))
        return 300.0  # however slow the machine

    monkeypatch.setattr("models_store.jobs.parents.steps.wait_s", noted)
    broken = a_parent(jobs, trials=1, stages=((1, 1.0),))
    child = claimed(work)
    unstorable = vars(a_version(child, seed=2**70))  # beyond the integers of both databases
    work.finish_child(child.id, 1, metrics={SCORE: 1.0, "epoch": 5}, product=unstorable)
    well, alone = a_parent(jobs, trials=1), submitted(jobs)
    assert claimed(work).id == alone.id
    assert claimed(work).parent_id == well.id
    assert work.claim("worker", lease_s=LEASE_S) is None
    assert jobs.claimable(10) == [], "it waits"
    assert caplog.text.count(f"the next step of {broken.id} is put off") == 1
    assert jobs.get(PROJECT, broken.id).state is JobState.RUNNING
    for _ in range(12):
        no_wait(database, broken.id)
        assert work.claim("worker", lease_s=LEASE_S) is None
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-3:] == [300] * 3
    with database.write() as session:
        product = unstorable | {"seed": 1}
        session.execute(update(JobRow).where(JobRow.id == child.id).values(product=product))
    no_wait(database, broken.id)
    assert work.claim("worker", lease_s=LEASE_S) is None
    done = jobs.get(PROJECT, broken.id)
    assert (done.state, done.not_before) == (JobState.SUCCEEDED, None)


def test_a_step_that_was_put_off_is_cancelled_with_its_parent(jobs: Jobs, work: JobWork) -> None:
    broken = a_parent(jobs, trials=1, stages=((1, 1.0),))
    child = claimed(work)
    product = vars(a_version(child)) | {"no": "field of a version"}
    work.finish_child(child.id, 1, metrics={SCORE: 1.0}, product=product)
    assert work.claim("worker", lease_s=LEASE_S) is None
    assert jobs.get(PROJECT, broken.id).not_before is not None
    assert jobs.cancel(PROJECT, broken.id).state is JobState.CANCELLED


def failing(monkeypatch: pytest.MonkeyPatch, parent: Job, error: Callable[[], Exception]) -> None:
    """Let each step of a parent fail, until the patch is undone."""
    take = steps._take_step

    def taken(session: Session, row: JobRow, *rest: Any) -> list[JobRow]:
        if row.id == parent.id:
            raise error()
        return take(session, row, *rest)

    monkeypatch.setattr(steps, "_take_step", taken)


def messages(jobs: Jobs, job: Job) -> list[str]:
    events = jobs.events(PROJECT, job.id)
    return [event.data["text"] for event in events if event.event is EventKind.MESSAGE]


def test_a_parent_whose_steps_fail_in_a_row_fails_with_its_children_and_can_be_resumed(
    database: Database, jobs: Jobs, work: JobWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = a_parent(jobs, trials=3, stages=((3, 1.0),))
    ends, runs = claimed(work), claimed(work)
    ended(work, ends, 1.0)
    with monkeypatch.context() as patch:
        failing(patch, parent, lambda: RuntimeError("of the service"))
        for _ in range(OUTSIDE_LIMIT - 1):
            steps.take_steps(database)
            no_wait(database, parent.id)
        steps.take_steps(database)
        assert jobs.get(PROJECT, parent.id).state is JobState.RUNNING, "a child runs"
        assert [child.state for child in children_of(jobs, parent)] == [
            JobState.SUCCEEDED,
            JobState.RUNNING,
            JobState.CANCELLED,
        ]
        assert work.renew(runs.id, 1, lease_s=LEASE_S), "it is asked to stop"
        work.cancelled(runs.id, 1)
        no_wait(database, parent.id)
        steps.take_steps(database)
    failed = jobs.get(PROJECT, parent.id)
    assert failed.state is JobState.FAILED
    assert failed.error is not None
    assert failed.error["code"] == "crash_loop"
    assert "20 times in a row" in failed.error["detail"]
    told = messages(jobs, parent)
    assert len(told) == OUTSIDE_LIMIT + 1
    assert told[0].endswith("It is tried again in 1 s.")
    jobs.resume(PROJECT, parent.id)
    for _ in range(2):
        ended(work, claimed(work), 2.0)
    assert work.claim("worker", lease_s=LEASE_S) is None
    assert jobs.get(PROJECT, parent.id).state is JobState.SUCCEEDED


@pytest.mark.parametrize("error", [DatabaseUnavailableError, StorageFullError])
def test_outages_do_not_count_and_a_step_that_succeeds_ends_the_row(
    database: Database,
    jobs: Jobs,
    work: JobWork,
    monkeypatch: pytest.MonkeyPatch,
    error: Callable[[], Exception],
) -> None:
    parent = a_parent(jobs, trials=1, stages=((1, 1.0),))
    child = claimed(work)
    ended(work, child, 1.0)
    for reason, times in ((error, OUTSIDE_LIMIT + 2), (RuntimeError, OUTSIDE_LIMIT - 1)):
        with monkeypatch.context() as patch:
            failing(patch, parent, reason)
            for _ in range(times):
                steps.take_steps(database)
                no_wait(database, parent.id)
        assert jobs.get(PROJECT, parent.id).state is JobState.RUNNING
    assert len(messages(jobs, parent)) == OUTSIDE_LIMIT - 1
    steps.take_steps(database)
    assert jobs.get(PROJECT, parent.id).state is JobState.SUCCEEDED


def test_a_parent_whose_first_step_fails_again_and_again_fails(
    database: Database, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = a_parent(jobs)
    failing(monkeypatch, parent, RuntimeError)
    for _ in range(OUTSIDE_LIMIT):
        steps.take_steps(database)
        no_wait(database, parent.id)
    assert jobs.get(PROJECT, parent.id).state is JobState.FAILED
    assert storage(database) < RESERVED


def test_a_cancelled_parent_whose_steps_fail_is_cancelled(
    database: Database, jobs: Jobs, work: JobWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = a_parent(jobs, trials=1)
    child = claimed(work)
    assert jobs.cancel(PROJECT, parent.id).state is JobState.RUNNING
    work.cancelled(child.id, 1)
    failing(monkeypatch, parent, RuntimeError)
    for _ in range(OUTSIDE_LIMIT):
        steps.take_steps(database)
        no_wait(database, parent.id)
    assert jobs.get(PROJECT, parent.id).state is JobState.CANCELLED


def test_a_step_that_fails_for_several_workers_at_once_is_put_off_once(
    database: Database, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = a_parent(jobs)
    together = threading.Barrier(4)

    def planned(*_: Any) -> Any:
        together.wait(timeout=60)
        raise RuntimeError

    monkeypatch.setattr(steps, "planned", planned)
    workers = [threading.Thread(target=steps.take_steps, args=(database,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert messages(jobs, parent) == [steps._PUT_OFF.format(pause_s=1.0)]


def test_a_parent_that_cannot_even_be_given_up_keeps_nobody_waiting(
    database: Database, jobs: Jobs, work: JobWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, alone = a_parent(jobs, trials=1), submitted(jobs)

    def refused(*_: Any) -> Any:
        raise RuntimeError

    failing(monkeypatch, parent, RuntimeError)
    monkeypatch.setattr(steps, "_give_up", refused)
    for _ in range(OUTSIDE_LIMIT + 2):
        steps.take_steps(database)
        no_wait(database, parent.id)
    assert claimed(work).id == alone.id
    assert jobs.get(PROJECT, parent.id).not_before is not None
